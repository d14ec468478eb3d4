"""The engine: encode, denoise and decode, each in its own thread, off each other's critical path.

Only the denoising thread touches the batch; everything that threads share lies behind the ledger's lock,
which no thread holds while it computes. Accepted jobs are bounded by `max_accepted`, and so are the queues
between the stages. A job that was cancelled or is past its deadline is dropped when a stage claims it and at
each step boundary.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from gesso.logs import about, subject
from gesso_worker.engine.at_rest import AtRest, Sample
from gesso_worker.engine.batch import Member
from gesso_worker.engine.conditioning import Conditioning, encode_prompt
from gesso_worker.engine.decoding import decode_latents
from gesso_worker.engine.denoiser import REST_POLL_S, Denoiser, Run
from gesso_worker.engine.images import Provenance, encode_image
from gesso_worker.engine.job import FailureReason, Finished, ImageRequest, Job, Sink, Stage, Start
from gesso_worker.engine.ledger import Ledger
from gesso_worker.engine.live_profile import LiveProfile
from gesso_worker.engine.model import Model
from gesso_worker.engine.preview import LatentProjection
from gesso_worker.engine.rest import RestStage
from gesso_worker.engine.shared_time import SharedTime
from gesso_worker.engine.streams import finish, stage_stream

logger = logging.getLogger(__name__)


#: Encoded prompts that are kept: several images of a prompt need one encoding.
_ENCODED_PROMPTS = 32
#: So often is a stage tried that ran out of memory, each time beside half of the batch.
_MEMORY_TRIES = 4
#: A batch gets smaller at the next step boundary.
_SHRINK_S = 30.0


@dataclass(frozen=True)
class EngineSettings:
    """`max_batch` requests are denoised together, `max_accepted` are accepted and unfinished at most."""

    max_batch: int = 8
    max_accepted: int = 64
    threads: int = 1
    #: First guess at a tick, until ticks were measured.
    step_seconds: float = 0.05
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class Remaining:
    """A job and its steps still to do."""

    request_id: str
    steps: int


@dataclass(frozen=True)
class Snapshot:
    """The engine at one moment. `active` are in the batch, `queued` are accepted and not yet denoised."""

    active: tuple[Remaining, ...]
    queued: tuple[Remaining, ...]
    decoding: int
    accepting: bool
    images_done: int
    ticks: int
    out_of_memory: int
    batch_limit: int
    #: How often one in the batch made room for one that could not wait.
    swaps: int


Keep = Callable[[Job, dict[int, Tensor]], None]
_Result = TypeVar("_Result")


class Engine:
    """Serves one model. `start` it, `accept` and `begin` jobs, `drain` and `stop` it. Thread-safe."""

    def __init__(
        self,
        model: Model,
        settings: EngineSettings,
        keep: Keep | None = None,
        clock: Callable[[], float] = time.monotonic,
        live: LiveProfile | None = None,
        projection: LatentProjection | None = None,
        sample: Sample | None = None,
    ) -> None:
        """`keep` gets the kept latents of each finished run, before its image event; must be quick.

        `live` is told what each stage takes, and with a `sample` to measure with, while idle too; `projection`
        makes the previews, a fresh one if None.
        """
        self._model = model
        self._settings = settings
        self._keep = keep
        self._clock = clock
        self._live = live
        self._projection = projection or LatentProjection()
        self._encoded: OrderedDict[tuple[object, ...], Conditioning] = OrderedDict()
        self._ledger = Ledger(settings.max_accepted, clock)
        self._shared = SharedTime(clock)
        self._at_rest: AtRest | None = None
        if live is not None and sample is not None:
            self._at_rest = AtRest(model, self._ledger, live, sample)
        self._encode_queue: queue.Queue[Job | None] = queue.Queue(settings.max_accepted + 1)
        self._decode_queue: queue.Queue[Run | None] = queue.Queue(settings.max_accepted + 1)
        self._denoiser = Denoiser(
            model,
            self._ledger,
            settings.max_batch,
            settings.step_seconds,
            settings.decode_seconds,
            hand_over=self._decode_queue.put_nowait,
            shared=self._shared,
            on_tick=live.ticked if live is not None else None,
            projection=self._projection,
            at_rest=partial(self._at_rest.measure, "step") if self._at_rest else None,
        )
        stages = (
            ("encode", self._encode_loop),
            ("denoise", self._denoiser.loop),
            ("decode", self._decode_loop),
        )
        self._threads = [
            threading.Thread(target=self._run, args=(name, loop), name=name, daemon=True)
            for name, loop in stages
        ]

    def start(self) -> None:
        """Starts the three threads."""
        if self._model.device.type == "cuda":
            # What loading and warm-up have written is there for every stage's stream.
            torch.cuda.synchronize(self._model.device)
        for thread in self._threads:
            thread.start()

    def accept(self, request: ImageRequest, sink: Sink) -> Job:
        """Takes a place for a request, so that its start may be fetched; then `begin` or `cancel` it.

        Raises QueueFullError at the bound, ClosedError when draining.
        """
        return self._ledger.accept(request, sink)

    def begin(self, job: Job, start: Start) -> None:
        """Sends an accepted job on its way. One that was cancelled meanwhile is dropped."""
        if self._ledger.begin(job, start):
            self._encode_queue.put_nowait(job)

    def cancel(self, job: Job) -> None:
        """Drops a job at the next step boundary; a job that ended is left alone."""
        self._ledger.cancel(job)

    def snapshot(self) -> Snapshot:
        """What is under way."""
        denoiser, ledger = self._denoiser, self._ledger
        with ledger.lock:
            active = {run.job.key: run.member.trajectory.remaining for run in denoiser.active}
            ready = {run.job.key: run.member.trajectory.remaining for run in denoiser.ready}
            jobs = ledger.jobs()
            queued = [j for j in jobs if j.key not in active and j.stage is not Stage.DECODING]
            return Snapshot(
                active=tuple(
                    Remaining(j.request.request_id, active[j.key])
                    for j in jobs
                    if active.get(j.key)
                ),
                queued=tuple(
                    Remaining(j.request.request_id, ready.get(j.key, self._steps(j)))
                    for j in queued
                ),
                decoding=sum(j.stage is Stage.DECODING for j in jobs),
                accepting=ledger.accepting,
                images_done=ledger.images_done,
                ticks=denoiser.ticks,
                out_of_memory=denoiser.out_of_memory,
                batch_limit=denoiser.limit,
                swaps=denoiser.swaps,
            )

    @property
    def broken(self) -> str:
        """Why the engine serves no more, or empty."""
        return self._denoiser.broken

    def silent_seconds(self) -> float:
        """Seconds since the denoising thread last came round; grows when the device hangs."""
        return self._denoiser.silent_seconds()

    def drain(self, timeout_s: float, why: str = "the worker is draining") -> bool:
        """Accepts nothing more and waits until every job has ended; False if some have not in time.

        `why` is what refused requests are told.
        """
        self._ledger.close(why)
        return self._ledger.drain(timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the threads; jobs still there fail."""
        self._ledger.close("the worker has stopped")
        self._denoiser.stop()
        for job in self._ledger.jobs():
            self._ledger.fail(job, FailureReason.STOPPED)
        self._encode_queue.put_nowait(None)
        self._decode_queue.put_nowait(None)
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self, name: str, loop: Callable[[], None]) -> None:
        # Each thread of the process has a setting of its own.
        torch.set_num_threads(self._settings.threads)
        with stage_stream(self._model.device, urgent=name == "denoise"):
            loop()

    def _steps(self, job: Job) -> int:
        """Steps of a job that is not encoded: of the K asked for until its start is found."""
        begun = job.stage is not Stage.ACCEPTED
        skipped = job.start.skipped_steps if begun else job.request.skipped_steps
        return self._model.settings.steps - skipped

    def _encode_loop(self) -> None:
        while (job := self._next(self._encode_queue, "encode")) is not None:
            if not self._ledger.claim(job, Stage.ENCODING):
                continue
            # The fetch happened while the job waited for its start.
            job.timings.queue = max(0.0, job.timings.queue - job.timings.fetch)
            began = self._clock()
            try:
                with about(job.request.subject), self._shared.work() as share:
                    member, encoded = self._with_memory(partial(self._member, job))
            except Exception as error:
                self._failed("encoding", job, error)
                continue
            with self._ledger.lock:
                now = self._clock()
                job.timings.encode = now - began
                job.worked(now)
                job.waiting_since_s = now
                job.stage = Stage.READY
            if self._live is not None and encoded:
                self._live.encoded(share.seconds)
            self._denoiser.add(Run(job, member))

    def _next(self, work: queue.Queue[_Result], stage: RestStage) -> _Result:
        """Waits for work, and measures the stage now and then meanwhile."""
        while True:
            with contextlib.suppress(queue.Empty):
                return work.get(timeout=REST_POLL_S)
            if self._at_rest is not None:
                self._at_rest.measure(stage)

    def _with_memory(self, work: Callable[[], _Result]) -> _Result:
        """Does a stage's work; where it runs out of memory, again beside half of the denoising batch."""
        for _ in range(_MEMORY_TRIES - 1):
            try:
                return work()
            except torch.OutOfMemoryError:
                self._denoiser.shrink(_SHRINK_S)
                if self._model.device.type == "cuda":
                    torch.cuda.empty_cache()
        return work()

    @torch.inference_mode()
    def _member(self, job: Job) -> tuple[Member, bool]:
        """A job ready to be denoised, and whether its prompt had to be encoded."""
        request, start, model = job.request, job.start, self._model
        trajectory = model.trajectory(start.skipped_steps, request.scheduler)
        if start.latents is None:
            shape = model.shape_of(request.width, request.height)
            latents = model.noise(request.seed, trajectory, shape)
        else:
            latents = start.latents.to(model.device, model.dtype)
        asked = (
            request.prompt,
            request.negative_prompt,
            # All that encoding looks at is whether it guides.
            2.0 if request.guidance_scale > 1 else 1.0,
            request.width,
            request.height,
        )
        conditioning = self._encoded.get(asked)
        encoded = conditioning is None
        if conditioning is None:
            conditioning = encode_prompt(model, *asked)
            self._encoded[asked] = conditioning
            if len(self._encoded) > _ENCODED_PROMPTS:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(asked)
        finish(model.device)
        watches = request.preview_steps > 0
        member = Member(trajectory, conditioning, request.guidance_scale, latents, watches)
        return member, encoded

    def _decode_loop(self) -> None:
        while (run := self._next(self._decode_queue, "decode")) is not None:
            if not self._ledger.claim(run.job, Stage.DECODING):
                continue
            try:
                with about(run.job.request.subject):
                    self._with_memory(partial(self._finish, run))
            except Exception as error:
                self._failed("decoding", run.job, error)

    def _finish(self, run: Run) -> None:
        job, request, settings = run.job, run.job.request, self._model.settings
        began = self._clock()
        with self._shared.work() as share:
            image = decode_latents(self._model, run.member.latents)
            self._projection.observe(run.member.latents, image)
            if self._keep is not None and job.kept:
                self._keep(job, job.kept)
            provenance = Provenance(
                model=settings.source,
                scheduler=request.scheduler or settings.scheduler,
                steps=settings.steps,
                skipped_steps=job.start.skipped_steps,
                seed=request.seed,
                guidance_scale=request.guidance_scale,
            )
            data = encode_image(image, request.image_format, provenance)
        now = self._clock()
        job.timings.decode = now - began
        job.worked(now)
        self._denoiser.finished(self._clock() - job.waiting_since_s)
        own = run.member.latents.shape == self._model.latent_shape
        if self._live is not None and own:
            self._live.decoded(share.seconds)
        skipped = job.start.skipped_steps
        self._ledger.end(job, Finished(data, image.width, image.height, skipped, job.timings))

    def _failed(self, doing: str, job: Job, error: Exception) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            self._ledger.fail(job, FailureReason.OUT_OF_MEMORY)
            return
        with about(job.request.subject):
            told = {"request": job.request.request_id} if not subject().request else {}
            logger.error(f"{doing} failed", exc_info=error, extra=told)
        message = f"{doing} failed: {type(error).__name__}"
        self._ledger.fail(job, FailureReason.INTERNAL, message)
