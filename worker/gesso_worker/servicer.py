"""The Worker service on gRPC: a thin layer over the engine and the shard."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import grpc
import torch

from gesso.profile import Profile
from gesso.rpc.v1 import image_pb2, worker_pb2, worker_pb2_grpc
from gesso_worker.cache.fingerprint import ModelIdentity, fingerprint
from gesso_worker.cache.peers import pack
from gesso_worker.cache.shard import Shard
from gesso_worker.engine import (
    ClosedError,
    Engine,
    Event,
    Failed,
    FailureReason,
    Finished,
    ImageRequest,
    Job,
    Progress,
    QueueFullError,
    Started,
)
from gesso_worker.engine.live_profile import LiveProfile
from gesso_worker.requests import (
    FORMAT_CODES,
    BadRequestError,
    GenerateSpec,
    Limits,
    check_generate,
    check_level,
    check_lookup,
)
from gesso_worker.starts import StartFinder

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

#: Of a call that brings no deadline of its own.
DEFAULT_DEADLINE_S = 300.0
#: How long past its deadline a job may be silent before the call is ended without it: the device hangs.
_GRACE_S = 2.0

_STATUS = {
    FailureReason.CANCELLED: grpc.StatusCode.CANCELLED,
    FailureReason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    FailureReason.OUT_OF_MEMORY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FailureReason.INTERNAL: grpc.StatusCode.INTERNAL,
    FailureReason.STOPPED: grpc.StatusCode.ABORTED,
}


@dataclass(frozen=True)
class Serving:
    """What is there once the model is warm."""

    engine: Engine
    shard: Shard
    starts: StartFinder
    identity: ModelIdentity
    limits: Limits
    live: LiveProfile

    @property
    def profile(self) -> Profile:
        """How long the device takes, as it is now."""
        return self.live.profile

    def fingerprint(self, guidance_scale: float, negative_prompt: str = "") -> str:
        """Under what a request's latents may be used."""
        return fingerprint(self.identity, guidance_scale, negative_prompt)

    @cached_property
    def default_fingerprint(self) -> str:
        """That of requests which name neither guidance nor negative prompt: what look-ups find."""
        return self.fingerprint(self.limits.guidance_scale)


@dataclass
class Assigned:
    """The level that the plan counts on; a preference, since every worker serves every K."""

    skipped_steps: int = 0
    revision: int = 0


@dataclass
class WorkerServicer(worker_pb2_grpc.WorkerServicer):
    """Serves `gesso.v1.Worker`; until `serving` is set, only Stats."""

    name: str
    ladder: tuple[int, ...]
    serving: Serving | None = None
    draining: bool = False
    assigned: Assigned = field(default_factory=Assigned)

    def __post_init__(self) -> None:
        # Searching a large index takes tens of milliseconds, too long for the event loop.
        self._searches = ThreadPoolExecutor(1, "lookup")

    async def Generate(  # noqa: N802
        self, request: worker_pb2.WorkerGenerateRequest, context: Context
    ) -> AsyncIterator[worker_pb2.WorkerEvent]:
        """See worker.proto."""
        serving = await self._ready(context)
        try:
            spec = check_generate(request, serving.limits)
        except BadRequestError as error:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        remaining = context.time_remaining()
        time_left = DEFAULT_DEADLINE_S if remaining is None else min(remaining, DEFAULT_DEADLINE_S)
        deadline_s = time.monotonic() + time_left
        loop = asyncio.get_running_loop()
        # Bounded by what a job can say: a start, a progress every few steps, an end.
        events: asyncio.Queue[Event] = asyncio.Queue()

        def sink(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        job = await self._accept(serving, spec, deadline_s, sink, context)
        try:
            print_ = serving.fingerprint(spec.guidance_scale, spec.negative_prompt)
            start = await serving.starts.find(spec, print_, time_left)
            serving.engine.begin(job, start)
            while True:
                patience = max(0.0, deadline_s - time.monotonic()) + _GRACE_S
                try:
                    event = await asyncio.wait_for(events.get(), patience)
                except TimeoutError:
                    event = Failed(FailureReason.DEADLINE, "the device does not answer")
                if isinstance(event, Failed):
                    await _abort(context, _STATUS[event.reason], event.message)
                yield self._told(event, spec)
                if isinstance(event, Finished):
                    return
        finally:
            # The client left, or its deadline passed; a job that ended is left alone.
            serving.engine.cancel(job)

    async def Assign(  # noqa: N802
        self, request: worker_pb2.AssignRequest, context: Context
    ) -> worker_pb2.AssignResponse:
        """See worker.proto."""
        began = time.monotonic()
        try:
            level = check_level(request.skipped_steps, self.ladder)
        except BadRequestError as error:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if request.revision < self.assigned.revision:
            message = (
                f"revision: {request.revision} is not allowed: at least {self.assigned.revision}"
            )
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        changed = level != self.assigned.skipped_steps
        self.assigned = Assigned(level, request.revision)
        # Nothing is drained or loaded: every level runs on the model that is there.
        cost = time.monotonic() - began if changed else 0.0
        return worker_pb2.AssignResponse(skipped_steps=level, switch_seconds=cost)

    async def Lookup(  # noqa: N802
        self, request: worker_pb2.LookupRequest, context: Context
    ) -> worker_pb2.LookupResponse:
        """See worker.proto. Finds what requests with the service's own guidance may start from."""
        serving = await self._ready(context)
        try:
            tenant, embedding, limit = check_lookup(request)
            matches = await asyncio.get_running_loop().run_in_executor(
                self._searches,
                serving.shard.lookup,
                tenant,
                serving.default_fingerprint,
                embedding,
                limit,
            )
        except ValueError as error:
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return worker_pb2.LookupResponse(
            matches=[
                worker_pb2.Match(
                    entry_id=m.entry_id,
                    similarity=m.similarity,
                    held_levels=m.held_levels,
                    embedding=m.embedding.tolist(),
                )
                for m in matches
            ]
        )

    async def FetchLatents(  # noqa: N802
        self, request: worker_pb2.FetchLatentsRequest, context: Context
    ) -> worker_pb2.FetchLatentsResponse:
        """See worker.proto."""
        serving = await self._ready(context)
        held = serving.shard.fetch(request.tenant, request.entry_id, request.skipped_steps)
        if held is None:
            message = (
                f"no latents of entry {request.entry_id!r} at {request.skipped_steps} or below"
            )
            await _abort(context, grpc.StatusCode.NOT_FOUND, message)
        return pack(held)

    async def Stats(  # noqa: N802
        self, request: worker_pb2.StatsRequest, context: Context
    ) -> worker_pb2.StatsResponse:
        """See worker.proto."""
        response = worker_pb2.StatsResponse(
            worker=self.name,
            ready=self.serving is not None and not self.draining and not self.serving.engine.broken,
            draining=self.draining,
            assigned_skipped_steps=self.assigned.skipped_steps,
            assigned_revision=self.assigned.revision,
        )
        serving = self.serving
        if serving is not None:
            _fill(response, serving)
        return response

    def close(self) -> None:
        """Ends the look-up thread."""
        self._searches.shutdown(wait=False, cancel_futures=True)

    async def _ready(self, context: Context) -> Serving:
        if self.serving is None:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "the worker is warming up")
        return self.serving

    async def _accept(
        self, serving: Serving, spec: GenerateSpec, deadline_s: float, sink: Any, context: Context
    ) -> Job:
        default = serving.fingerprint(spec.guidance_scale, spec.negative_prompt)
        # What no look-up can find is not worth its memory.
        keep = (
            spec.keep_latents
            and spec.embedding is not None
            and default == serving.default_fingerprint
        )
        request = ImageRequest(
            request_id=spec.request_id,
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            seed=spec.seed,
            guidance_scale=spec.guidance_scale,
            skipped_steps=spec.skipped_steps,
            image_format=spec.image_format,
            deadline_s=deadline_s,
            keep_levels=tuple(level for level in self.ladder if level) if keep else (),
            owner=spec,
        )
        try:
            return serving.engine.accept(request, sink)
        except QueueFullError as error:
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except ClosedError as error:
            await _abort(context, grpc.StatusCode.ABORTED, str(error))

    def _told(self, event: Event, spec: GenerateSpec) -> worker_pb2.WorkerEvent:
        match event:
            case Started(skipped_steps):
                started = image_pb2.Started(worker=self.name, skipped_steps=skipped_steps)
                return worker_pb2.WorkerEvent(started=started)
            case Progress(step, steps):
                return worker_pb2.WorkerEvent(progress=image_pb2.Progress(step=step, steps=steps))
            case Finished(data, width, height, skipped_steps, timings):
                image = worker_pb2.WorkerImage(
                    data=data,
                    format=FORMAT_CODES[spec.image_format],
                    width=width,
                    height=height,
                    skipped_steps=skipped_steps,
                    queue_seconds=timings.queue,
                    encode_seconds=timings.encode,
                    fetch_seconds=timings.fetch,
                    denoise_seconds=timings.denoise,
                    decode_seconds=timings.decode,
                )
                return worker_pb2.WorkerEvent(image=image)
            case Failed():
                raise AssertionError("a failure is a status, not an event")


def keep_in(shard: Shard, default_fingerprint: str) -> Any:
    """The engine's `keep`: puts the latents of a finished run into the shard."""

    def keep(job: Job, latents: dict[int, torch.Tensor]) -> None:
        spec = job.request.owner
        if not isinstance(spec, GenerateSpec) or spec.embedding is None:
            return
        arrays = {level: _array(tensor) for level, tensor in latents.items()}
        shard.insert(spec.tenant, default_fingerprint, spec.embedding, arrays)

    return keep


def _array(tensor: torch.Tensor) -> Any:
    """float16 as it is, anything else as float32, which holds bfloat16 exactly."""
    kept = tensor if tensor.dtype == torch.float16 else tensor.float()
    return kept.cpu().numpy()


def _fill(response: worker_pb2.StatsResponse, serving: Serving) -> None:
    snapshot = serving.engine.snapshot()
    profile = serving.profile
    response.profile.CopyFrom(
        worker_pb2.DeviceProfile(
            device=profile.device,
            steps=profile.steps,
            encode_seconds=profile.encode_seconds,
            decode_seconds=profile.decode_seconds,
            step_seconds=profile.step_seconds,
        )
    )
    for target, jobs in ((response.active, snapshot.active), (response.queued, snapshot.queued)):
        target.extend(
            worker_pb2.RequestProgress(request_id=j.request_id, remaining_steps=j.steps)
            for j in jobs
        )
    cache = serving.shard.stats()
    response.cache_entries = cache.entries
    response.cache_bytes = cache.used_bytes
    response.cache_capacity_bytes = cache.capacity_bytes
    response.images_done = snapshot.images_done
    response.fingerprint = serving.default_fingerprint


async def _abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort returned")
