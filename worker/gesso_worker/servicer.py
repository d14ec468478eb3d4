"""The Worker service on gRPC: a thin layer over the engine of the model that is held, and the shard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from gesso.logs import subject
from gesso.profile import Profile
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso.tracing import OFF, Tracing
from gesso_worker.defaults import LONGEST_S
from gesso_worker.engine import (
    ClosedError,
    Event,
    Failed,
    FailureReason,
    Finished,
    ImageRequest,
    Job,
    Progress,
    QueueFullError,
    Start,
    Started,
)
from gesso_worker.engine.job import Sink
from gesso_worker.holder import CHANGING, ModelHolder
from gesso_worker.requests import (
    FORMAT_CODES,
    BadRequestError,
    GenerateSpec,
    check_generate,
    check_level,
    check_model,
)
from gesso_worker.serving import Serving
from gesso_worker.shard_service import Context, ShardServicer, abort
from gesso_worker.told import Told

#: Of a call that brings no deadline of its own.
DEFAULT_DEADLINE_S = 300.0
#: How long past its deadline a job may be silent before the call is ended without it: the device hangs.
_GRACE_S = 2.0
#: A device that has not come round for so long is told: its requests may be served elsewhere.
_STALLED_S = 10.0

_STATUS = {
    FailureReason.CANCELLED: grpc.StatusCode.CANCELLED,
    FailureReason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    FailureReason.OUT_OF_MEMORY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    FailureReason.INTERNAL: grpc.StatusCode.INTERNAL,
    FailureReason.STOPPED: grpc.StatusCode.ABORTED,
}


#: Which of a request's images leaves latents for others.
_KEEPS = 0


@dataclass
class Assigned:
    """The level that the plan counts on; a preference, since every worker serves every K."""

    skipped_steps: int = 0
    revision: int = 0


class WorkerServicer(ShardServicer):
    """Serves `gesso.v1.Worker`; until a model is loaded, only Stats and Assign."""

    def __init__(
        self, name: str, ladder: tuple[int, ...], holder: ModelHolder, tracing: Tracing = OFF
    ) -> None:
        """`ladder` is the service's."""
        super().__init__(name, tracing)
        self.draining = False
        self.assigned = Assigned()
        self._ladder = ladder
        self._holder = holder

    async def Generate(  # noqa: N802
        self, request: worker_pb2.WorkerGenerateRequest, context: Context
    ) -> AsyncIterator[worker_pb2.WorkerEvent]:
        """See worker.proto."""
        serving = await self._ready(request.model, context)
        try:
            spec = check_generate(request, serving.limits)
        except BadRequestError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        remaining = context.time_remaining()
        time_left = DEFAULT_DEADLINE_S if remaining is None else min(remaining, LONGEST_S)
        deadline_s = time.monotonic() + time_left
        told = Told.of(self.tracing, spec, self.name, context.invocation_metadata())
        loop = asyncio.get_running_loop()
        # Bounded by what jobs can say: a start, a progress every few steps, an end.
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        def sink_of(index: int) -> Sink:
            def sink(event: Event) -> None:
                loop.call_soon_threadsafe(events.put_nowait, (index, event))

            return sink

        jobs: list[Job] = []
        seen: set[int] = set()
        try:
            for index in range(spec.images):
                image = self._image_request(serving, spec, index, deadline_s)
                jobs.append(await self._accept(serving, image, sink_of(index), context))
            with told.fetching() as span:
                start = await serving.starts.find(spec, serving.fingerprint(spec), time_left)
                span.set_attribute("gesso.skipped_steps", start.skipped_steps)
            for job in jobs:
                serving.engine.begin(job, start)
            while len(seen) < len(jobs):
                patience = max(0.0, deadline_s - time.monotonic()) + _GRACE_S
                try:
                    index, event = await asyncio.wait_for(events.get(), patience)
                except TimeoutError:
                    event = Failed(FailureReason.DEADLINE, "the device does not answer")
                if isinstance(event, Failed):
                    told.failed(event)
                    await abort(context, _STATUS[event.reason], event.message)
                if isinstance(event, Finished):
                    seen.add(index)
                yield self._told(event, spec, index, start)
        finally:
            # The client left, or its deadline passed, or an image failed; jobs that ended are left alone.
            for job in jobs:
                serving.engine.cancel(job)
            told.end(jobs, len(seen))
            if jobs and _KEEPS not in seen and self.store is not None:
                # Nobody has seen this image: it is nothing to start others from.
                loop.run_in_executor(None, self.store.shard.retract, spec.request_id)

    async def Assign(  # noqa: N802
        self, request: worker_pb2.AssignRequest, context: Context
    ) -> worker_pb2.AssignResponse:
        """See worker.proto."""
        began = time.monotonic()
        try:
            model = check_model(request.model, self._holder.names)
            level = check_level(request.skipped_steps, (0,) if model else self._ladder)
        except BadRequestError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if request.revision < self.assigned.revision:
            message = (
                f"revision: {request.revision} is not allowed: at least {self.assigned.revision}"
            )
            await abort(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        changed = level != self.assigned.skipped_steps
        self.assigned = Assigned(level, request.revision)
        # Between levels nothing is drained or loaded: each runs on the model that is there.
        cost = time.monotonic() - began if changed else 0.0
        if not self.draining:
            self._holder.want(model)
        return worker_pb2.AssignResponse(
            skipped_steps=level,
            switch_seconds=cost,
            model=self._holder.held,
            loading_model=self._holder.loading,
        )

    async def Stats(  # noqa: N802
        self, request: worker_pb2.StatsRequest, context: Context
    ) -> worker_pb2.StatsResponse:
        """See worker.proto."""
        return await self.stats()

    async def stats(self) -> worker_pb2.StatsResponse:
        """What `Stats` answers."""
        holder, serving = self._holder, self._holder.serving
        ready = serving is not None and not self.draining and not holder.changing
        response = worker_pb2.StatsResponse(
            worker=self.name,
            ready=ready and not holder.broken,
            draining=self.draining,
            assigned_skipped_steps=self.assigned.skipped_steps,
            assigned_revision=self.assigned.revision,
            model=holder.held,
            loading_model=holder.loading,
            switch_error=holder.error,
            stalled=holder.hung_seconds(_STALLED_S) > 0,
            images_done=holder.images_done,
            profile=None if holder.profile is None else _told_profile(holder.profile),
        )
        if holder.last is not None:
            last = holder.last
            response.last_switch.CopyFrom(
                worker_pb2.Switch(
                    **{"from": last.before},
                    to=last.after,
                    drain_seconds=last.drain_seconds,
                    load_seconds=last.load_seconds,
                    warmup_seconds=last.warmup_seconds,
                    kept=last.kept,
                )
            )
        response.kept_models.extend(holder.kept)
        response.model_bytes = holder.model_bytes
        response.model_capacity_bytes = holder.bound_bytes
        for at_work in holder.at_work:
            _fill(response, at_work)
        if self.store is not None:
            cache = self.store.shard.stats()
            response.cache_entries = cache.entries
            response.cache_bytes = cache.used_bytes
            response.cache_capacity_bytes = cache.capacity_bytes
            response.cache_disk_bytes = cache.disk_used_bytes
            response.cache_disk_capacity_bytes = cache.disk_capacity_bytes
            response.cache_disk_corrupt = cache.disk_corrupt
            response.cache_disk_unwritten = cache.disk_unwritten
            response.cache_disk_failed = cache.disk_failed
            response.fingerprint = self.store.fingerprint
        if self.announcer is not None and self.announcer.placement is not None:
            response.placement = self.announcer.placement.version
            response.unannounced = self.announcer.unannounced
        return response

    async def _ready(self, model: str, context: Context) -> Serving:
        """The model at work, if it is the one that a request is meant for."""
        holder = self._holder
        try:
            check_model(model, holder.names)
        except BadRequestError as error:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if holder.changing:
            await abort(context, grpc.StatusCode.ABORTED, CHANGING)
        serving = holder.serving
        if serving is None:
            await abort(context, grpc.StatusCode.UNAVAILABLE, "the worker is warming up")
        if serving.model != model:
            message = f"wrong model: {model!r} is not held here, {serving.model!r} is"
            await abort(context, grpc.StatusCode.ABORTED, message)
        return serving

    def _image_request(
        self, serving: Serving, spec: GenerateSpec, index: int, deadline_s: float
    ) -> ImageRequest:
        """One of the images of a request."""
        default = serving.fingerprint(spec)
        # What no look-up can find is not worth its memory.
        keep = (
            spec.keep_latents
            and index == _KEEPS
            and serving.caches
            and spec.embedding is not None
            and default == serving.default_fingerprint
        )
        return ImageRequest(
            request_id=f"{spec.request_id}#{index}" if index else spec.request_id,
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            seed=spec.seed + index,
            guidance_scale=spec.guidance_scale,
            skipped_steps=spec.skipped_steps,
            image_format=spec.image_format,
            deadline_s=deadline_s,
            keep_levels=tuple(level for level in self._ladder if level) if keep else (),
            width=spec.width,
            height=spec.height,
            scheduler=spec.scheduler,
            progress_steps=spec.progress_steps,
            preview_steps=spec.preview_steps,
            owner=spec,
            subject=subject(),
        )

    async def _accept(
        self, serving: Serving, request: ImageRequest, sink: Sink, context: Context
    ) -> Job:
        try:
            return serving.engine.accept(request, sink)
        except QueueFullError as error:
            await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except ClosedError as error:
            await abort(context, grpc.StatusCode.ABORTED, str(error))

    def _told(
        self, event: Event, spec: GenerateSpec, index: int, start: Start
    ) -> worker_pb2.WorkerEvent:
        match event:
            case Started(skipped_steps):
                started = image_pb2.Started(worker=self.name, skipped_steps=skipped_steps)
                return worker_pb2.WorkerEvent(started=started, image_index=index)
            case Progress(step, steps, preview):
                progress = image_pb2.Progress(step=step, steps=steps, preview=preview)
                return worker_pb2.WorkerEvent(progress=progress, image_index=index)
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
                    seed=spec.seed + index,
                    source=_told_source(start) if skipped_steps else None,
                )
                return worker_pb2.WorkerEvent(image=image, image_index=index)
            case Failed():
                raise AssertionError("a failure is a status, not an event")


def _fill(response: worker_pb2.StatsResponse, serving: Serving) -> None:
    snapshot = serving.engine.snapshot()
    response.out_of_memory = snapshot.out_of_memory
    response.batch_limit = snapshot.batch_limit
    response.swaps = snapshot.swaps
    for target, jobs in ((response.active, snapshot.active), (response.queued, snapshot.queued)):
        target.extend(
            worker_pb2.RequestProgress(request_id=j.request_id, remaining_steps=j.steps)
            for j in jobs
        )


def _told_source(start: Start) -> worker_pb2.LatentSource:
    return worker_pb2.LatentSource(entry_id=start.entry_id, worker=start.worker)


def _told_profile(profile: Profile) -> worker_pb2.DeviceProfile:
    return worker_pb2.DeviceProfile(
        device=profile.device,
        steps=profile.steps,
        encode_seconds=profile.encode_seconds,
        decode_seconds=profile.decode_seconds,
        step_seconds=profile.step_seconds,
    )
