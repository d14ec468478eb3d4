"""A worker of fixed service time over real gRPC: no model; it records, and fails on demand.

A request at K takes (steps - K) x step_seconds once it has one of `max_batch` slots, first in,
first out. Latents "held" are entries with an embedding; looking up compares them as a real shard
does. Put `tests/fakes` on sys.path.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gesso.rpc.v1 import image_pb2, worker_pb2, worker_pb2_grpc
from gesso.tls import Tls, add_port
from gesso.vectors import packed, unpacked


@dataclass
class Entry:
    entry_id: str
    tenant: str
    embedding: tuple[float, ...]
    held_levels: tuple[int, ...]


@dataclass
class Failure:
    """What the next request ends with: before its first step, or after `after_steps`."""

    code: grpc.StatusCode
    after_steps: int | None = None


@dataclass
class FakeWorker(worker_pb2_grpc.WorkerServicer):
    name: str = "worker-0"
    steps: int = 10
    step_seconds: float = 0.002
    max_batch: int = 2
    ladder: tuple[int, ...] = (0, 2, 4, 6)
    address: str = ""
    ready: bool = True
    draining: bool = False
    assigned: int = 0
    assigned_revision: int = 0
    failures: list[Failure] = field(default_factory=list)
    requests: list[worker_pb2.WorkerGenerateRequest] = field(default_factory=list)
    lookups: list[worker_pb2.LookupQuery] = field(default_factory=list)
    entries: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    cancelled: list[str] = field(default_factory=list)
    #: Cleared: every call hangs, as in a frozen process.
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Set when a request is in its first step, and whenever one was cancelled.
    first_step: asyncio.Event = field(default_factory=asyncio.Event)
    saw_cancel: asyncio.Event = field(default_factory=asyncio.Event)
    #: Cleared: look-ups hang.
    may_look_up: asyncio.Event = field(default_factory=asyncio.Event)
    #: Cleared: requests wait before their first step until it is set.
    may_start: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_start.set()
        self.may_look_up.set()
        self.thawed.set()
        self._slots = asyncio.Semaphore(self.max_batch)
        self._remaining: dict[str, int] = {}
        self._queued: OrderedDict[str, int] = OrderedDict()
        self._done = 0
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0, tls: Tls | None = None) -> FakeWorker:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        worker_pb2_grpc.add_WorkerServicer_to_server(self, self._server)
        health_servicer = health.aio.HealthServicer()
        await health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self._server)
        bound = add_port(self._server, f"127.0.0.1:{port}", tls, mutual=tls is not None)
        await self._server.start()
        self.address = f"127.0.0.1:{bound}"
        return self

    async def stop(self) -> None:
        """Ends it at once, as kill -9 does."""
        if self._server is not None:
            await self._server.stop(None)

    def hold(self, embedding: Any, *, tenant: str = "", levels: tuple[int, ...] = ()) -> str:
        """Puts latents into the shard; returns the entry's id."""
        entry_id = f"{self.name}-{len(self.entries)}"
        held = levels or tuple(k for k in self.ladder if k > 0)
        vector = tuple(float(x) for x in embedding)
        self.entries[entry_id] = Entry(entry_id, tenant, vector, held)
        return entry_id

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        failure = self.failures.pop(0) if self.failures else None
        if self.draining:
            await context.abort(grpc.StatusCode.ABORTED, "draining")
        if failure and failure.after_steps is None:
            await context.abort(failure.code, "told to fail")
        source = self.entries.get(request.source.entry_id)
        skipped = request.skipped_steps
        if skipped and not request.source.address and source is None:
            skipped = 0
        self._queued[request.request_id] = self.steps - skipped
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        try:
            async with self._slots:
                await self.may_start.wait()
                await self.thawed.wait()
                self._queued.pop(request.request_id, None)
                started = loop.time()
                yield worker_pb2.WorkerEvent(
                    started=image_pb2.Started(worker=self.name, skipped_steps=skipped)
                )
                self.first_step.set()
                for step in range(skipped, self.steps):
                    self._remaining[request.request_id] = self.steps - step
                    if failure and step - skipped == failure.after_steps:
                        await context.abort(failure.code, "told to fail")
                    await asyncio.sleep(self.step_seconds)
                    await self.thawed.wait()
                    progress = image_pb2.Progress(step=step + 1, steps=self.steps)
                    if request.preview_steps and (step + 1 - skipped) % request.preview_steps == 0:
                        progress.preview = f"preview at {step + 1}".encode()
                    yield worker_pb2.WorkerEvent(progress=progress)
        except asyncio.CancelledError:
            self.cancelled.append(request.request_id)
            self.saw_cancel.set()
            raise
        finally:
            self._queued.pop(request.request_id, None)
            self._remaining.pop(request.request_id, None)
        if request.keep_latents and request.embedding:
            self.hold(
                unpacked(request.embedding),
                tenant=request.tenant,
                levels=tuple(k for k in self.ladder if k > skipped),
            )
        self._done += 1
        yield worker_pb2.WorkerEvent(
            image=worker_pb2.WorkerImage(
                data=f"image of {request.seed} by {self.name}".encode(),
                format=request.format,
                width=request.width,
                height=request.height,
                skipped_steps=skipped,
                queue_seconds=started - arrived,
                denoise_seconds=loop.time() - started,
            )
        )

    async def Assign(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.revision < self.assigned_revision:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "revision: lower than known")
        self.assigned, self.assigned_revision = request.skipped_steps, request.revision
        return worker_pb2.AssignResponse(skipped_steps=self.assigned)

    async def Lookup(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.thawed.wait()
        await self.may_look_up.wait()
        self.lookups += request.queries
        return worker_pb2.LookupResponse(answers=map(self._near, request.queries))

    def _near(self, request: worker_pb2.LookupQuery) -> worker_pb2.Matches:
        wanted = unpacked(request.embedding).tolist()
        near = sorted(
            (
                (sum(a * b for a, b in zip(e.embedding, wanted, strict=True)), e)
                for e in self.entries.values()
                if e.tenant == request.tenant
            ),
            key=lambda pair: -pair[0],
        )
        return worker_pb2.Matches(
            matches=[
                worker_pb2.Match(
                    entry_id=e.entry_id,
                    similarity=similarity,
                    held_levels=e.held_levels,
                    embedding=packed(e.embedding),
                )
                for similarity, e in near[: request.limit or 1]
            ]
        )

    async def FetchLatents(self, request: Any, context: Any) -> Any:  # noqa: N802
        entry = self.entries.get(request.entry_id)
        held = [k for k in entry.held_levels if k <= request.skipped_steps] if entry else []
        if not held or (entry and entry.tenant != request.tenant):
            await context.abort(grpc.StatusCode.NOT_FOUND, "entry_id: evicted")
        return worker_pb2.FetchLatentsResponse(
            skipped_steps=max(held), shape=[1], dtype="float32", data=bytes(4), fingerprint="fake"
        )

    async def Stats(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.thawed.wait()
        return worker_pb2.StatsResponse(
            worker=self.name,
            ready=self.ready,
            draining=self.draining,
            assigned_skipped_steps=self.assigned,
            assigned_revision=self.assigned_revision,
            profile=worker_pb2.DeviceProfile(
                device="fake",
                steps=self.steps,
                encode_seconds=0.0,
                decode_seconds=0.0,
                step_seconds=[self.step_seconds] * self.max_batch,
            ),
            active=[
                worker_pb2.RequestProgress(request_id=i, remaining_steps=n)
                for i, n in self._remaining.items()
            ],
            queued=[
                worker_pb2.RequestProgress(request_id=i, remaining_steps=n)
                for i, n in self._queued.items()
            ],
            cache_entries=len(self.entries),
            images_done=self._done,
            fingerprint="fake",
        )
