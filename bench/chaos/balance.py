"""Do routers that know nothing of each other send to workers as one router would? Real routers, fake workers.

A fake worker denoises as a real one: a batch that requests join and leave at each step, steps that take longer
the larger it is, a profile that says so, and everybody's requests in its `Stats`. It only computes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from chaos.client import Balanced
from chaos.figures import Answer, Ending, attainment, mean, percentile
from gesso.profile import Profile
from gesso.rpc.v1 import image_pb2, worker_pb2, worker_pb2_grpc
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import PromptRequest, SessionMix, prompts, requests

PARTS = Path(__file__).parents[1] / "router_load" / "parts.py"
STEPS = 50
WORKERS, LOAD, SLO_S = 8, 0.85, 8.0
#: A batch of 4 serves 1.6 times what one by one does.
PROFILE = Profile("fake", STEPS, 0.0, 0.0, (0.016, 0.024, 0.032, 0.04))
WARM_S = 5.0


class BatchWorker(worker_pb2_grpc.WorkerServicer):
    """One worker, on this process's event loop."""

    def __init__(self, name: str, profile: Profile = PROFILE) -> None:
        self.name, self.profile = name, profile
        self.address = ""
        self.served = 0
        self._remaining: dict[str, int] = {}
        self._waiting: dict[str, asyncio.Event] = {}
        self._loop: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._work = asyncio.Event()

    async def __aenter__(self) -> BatchWorker:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        worker_pb2_grpc.add_WorkerServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
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
            due = max(due, time.monotonic() - 0.2) + self.profile.tick_seconds(len(batch))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for request_id in batch:
                if request_id in self._remaining:
                    self._remaining[request_id] -= 1
                    if not self._remaining[request_id]:
                        del self._remaining[request_id]
                        self._waiting[request_id].set()

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See worker.proto."""
        done = self._waiting[request.request_id] = asyncio.Event()
        self._remaining[request.request_id] = STEPS
        self._work.set()
        try:
            yield worker_pb2.WorkerEvent(started=image_pb2.Started(worker=self.name))
            await done.wait()
            self.served += 1
            yield worker_pb2.WorkerEvent(
                image=worker_pb2.WorkerImage(
                    data=b"image", format=image_pb2.IMAGE_FORMAT_PNG, width=64, height=64
                )
            )
        finally:
            self._waiting.pop(request.request_id, None)
            self._remaining.pop(request.request_id, None)

    async def Lookup(self, request: Any, context: Any) -> Any:  # noqa: N802
        """An empty shard."""
        return worker_pb2.LookupResponse()

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
            profile=worker_pb2.DeviceProfile(
                device="fake", steps=STEPS, step_seconds=self.profile.step_seconds
            ),
            active=told[:size],
            queued=told[size:],
            fingerprint="fake",
        )


@contextlib.asynccontextmanager
async def router(addresses: Sequence[str]) -> AsyncIterator[str]:
    """A router's process for these workers; gives its gRPC host:port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PARTS),
        "router",
        "QualityAware",
        *addresses,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports = json.loads(await process.stdout.readline())
        yield f"127.0.0.1:{ports['grpc']}"
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def case(
    routers: int, asked: Sequence[PromptRequest], workers: int = WORKERS, slo_s: float = SLO_S
) -> dict[str, Any]:
    """One load through so many routers."""
    async with contextlib.AsyncExitStack() as stack:
        fleet = [
            await stack.enter_async_context(BatchWorker(f"worker-{i}")) for i in range(workers)
        ]
        addresses = [w.address for w in fleet]
        targets = [await stack.enter_async_context(router(addresses)) for _ in range(routers)]
        apart: list[float] = []

        async def sample() -> None:
            await asyncio.sleep(WARM_S)
            while True:
                queues = [w.outstanding for w in fleet]
                apart.append(float(np.std(queues)))
                await asyncio.sleep(0.1)

        sampling = asyncio.create_task(sample())
        async with Balanced(targets, slo_s) as client:
            answers: list[Answer] = await open_loop(asked, client.send)
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    warm = [a for a in answers if a.at_s >= WARM_S]
    served = [a for a in warm if a.ending in (Ending.IN_SLO, Ending.LATE)]
    by_worker = Counter(a.worker for a in served)
    shares = [by_worker[w.name] / max(1, len(served)) for w in fleet]
    latencies = [a.latency_s for a in served]
    return {
        "requests": len(warm),
        "attainment": attainment(warm),
        "refused": sum(a.ending is Ending.REFUSED for a in warm),
        "latency_p50_s": percentile(latencies, 0.5),
        "latency_p99_s": percentile(latencies, 0.99),
        "least_share": min(shares),
        "most_share": max(shares),
        "queue_apart": mean(apart),
        "by_router": dict(Counter(str(a.routers[-1]) for a in warm)),
    }


async def balance(seconds: float, seed: int) -> dict[str, Any]:
    """One and two routers, the same load of `LOAD` of the capacity."""
    rate = LOAD * WORKERS * PROFILE.throughput(0)
    rng = np.random.default_rng(seed)
    arrivals = poisson_arrivals(RateShape(((0.0, rate), (seconds, rate))), rng)
    asked = requests(arrivals, prompts(SessionMix(), rng), rng)
    return {
        "workers": WORKERS,
        "load": LOAD,
        "requests_per_s": rate,
        "slo_seconds": SLO_S,
        "cases": {str(n): await case(n, asked) for n in (1, 2)},
    }
