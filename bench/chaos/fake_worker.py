"""A worker that denoises as a real one, but computes nothing; as a module, a process with a worker's flags.

A batch that requests join and leave at each step, steps that take longer the larger it is, a profile that says
so, everybody's requests in its `Stats`, and look-ups among the prompts that it was told to keep latents of.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections import deque
from dataclasses import replace
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gesso.profile import Profile
from gesso.rpc.v1 import image_pb2, worker_pb2, worker_pb2_grpc
from gesso.vectors import packed, unpacked

STEPS = 50
#: A batch of 4 serves 1.6 times what one by one does.
PROFILE = Profile("fake", STEPS, 0.0, 0.0, (0.016, 0.024, 0.032, 0.04))
MOST_ENTRIES = 256
TOLD_EVERY = 10
#: Environment variable: steps take so many times as long. On a busy machine, waking up late then counts less.
SLOWER = "GESSO_FAKE_WORKER_SLOWER"


class BatchWorker(worker_pb2_grpc.WorkerServicer):
    """One worker, on this process's event loop."""

    def __init__(self, name: str, profile: Profile = PROFILE, listen: str = "127.0.0.1:0") -> None:
        self.name, self.profile, self._listen = name, profile, listen
        self.address = ""
        self.served = 0
        self._remaining: dict[str, int] = {}
        #: Steps left, told at the first step and now and then.
        self._waiting: dict[str, asyncio.Queue[int]] = {}
        self._begun: set[str] = set()
        self._loop: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._work = asyncio.Event()
        self._assigned = (0, 0)
        #: Embeddings of prompts whose latents it keeps, all levels of them.
        self._entries: deque[tuple[str, Any]] = deque(maxlen=MOST_ENTRIES)

    async def __aenter__(self) -> BatchWorker:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        worker_pb2_grpc.add_WorkerServicer_to_server(self, self._server)
        healthy: Any = health.aio.HealthServicer()
        await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port(self._listen)}"
        await self._server.start()
        self._loop = asyncio.create_task(self._denoise())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._loop is not None
        self._loop.cancel()
        await self._server.stop(None)

    @property
    def outstanding(self) -> int:
        """Requests that it has, those that wait included."""
        return len(self._remaining)

    async def _denoise(self) -> None:
        due = time.monotonic()
        while True:
            if not self._remaining:
                self._work.clear()
                await self._work.wait()
                due = time.monotonic()
            batch = list(self._remaining)[: self.profile.max_batch]
            for request_id in batch:
                if request_id not in self._begun:
                    self._begun.add(request_id)
                    self._waiting[request_id].put_nowait(STEPS)
            due = max(due, time.monotonic() - 0.2) + self.profile.tick_seconds(len(batch))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for request_id in batch:
                if request_id in self._remaining:
                    left = self._remaining[request_id] = self._remaining[request_id] - 1
                    if not left % TOLD_EVERY:
                        self._waiting[request_id].put_nowait(left)
                    if not left:
                        del self._remaining[request_id]

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See worker.proto."""
        told = self._waiting[request.request_id] = asyncio.Queue()
        skipped = request.skipped_steps
        self._remaining[request.request_id] = STEPS - skipped
        self._work.set()
        try:
            await told.get()
            started = image_pb2.Started(worker=self.name, skipped_steps=skipped)
            yield worker_pb2.WorkerEvent(started=started)
            while left := await told.get():
                progress = image_pb2.Progress(step=STEPS - left, steps=STEPS)
                yield worker_pb2.WorkerEvent(progress=progress)
            self.served += 1
            if request.keep_latents and request.embedding:
                vector = unpacked(request.embedding)
                self._entries.append((request.request_id, vector))
            yield worker_pb2.WorkerEvent(
                image=worker_pb2.WorkerImage(
                    data=bytes(8000),
                    format=image_pb2.IMAGE_FORMAT_PNG,
                    width=64,
                    height=64,
                    skipped_steps=skipped,
                )
            )
        finally:
            self._waiting.pop(request.request_id, None)
            self._begun.discard(request.request_id)
            self._remaining.pop(request.request_id, None)

    async def Lookup(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The nearest of what it keeps."""
        return worker_pb2.LookupResponse(answers=map(self._near, request.queries))

    def _near(self, query: worker_pb2.LookupQuery) -> worker_pb2.Matches:
        if not self._entries:
            return worker_pb2.Matches()
        wanted = unpacked(query.embedding)
        near = max(self._entries, key=lambda e: float(e[1] @ wanted))
        match = worker_pb2.Match(
            entry_id=near[0],
            similarity=float(near[1] @ wanted),
            held_levels=[5, 10, 15, 20, 25],
            embedding=packed(near[1]),
        )
        return worker_pb2.Matches(matches=[match])

    async def Assign(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See worker.proto."""
        self._assigned = (request.skipped_steps, request.revision)
        return worker_pb2.AssignResponse(skipped_steps=request.skipped_steps)

    async def Stats(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See worker.proto."""
        told = [
            worker_pb2.RequestProgress(request_id=i, remaining_steps=n)
            for i, n in self._remaining.items()
        ]
        size = self.profile.max_batch
        return worker_pb2.StatsResponse(
            worker=self.name,
            ready=True,
            assigned_skipped_steps=self._assigned[0],
            assigned_revision=self._assigned[1],
            profile=worker_pb2.DeviceProfile(
                device="fake", steps=STEPS, step_seconds=self.profile.step_seconds
            ),
            active=told[:size],
            queued=told[size:],
            fingerprint="fake",
        )


async def serve(name: str, listen: str) -> None:
    """Until SIGTERM; then it finishes what it has."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    slower = float(os.environ.get(SLOWER, "1"))
    profile = replace(PROFILE, step_seconds=tuple(slower * s for s in PROFILE.step_seconds))
    async with BatchWorker(name, profile, listen) as worker:
        await stop.wait()
        while worker.outstanding:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--listen", required=True)
    given, _ = parser.parse_known_args()
    asyncio.run(serve(given.name, given.listen))
    os._exit(0)
