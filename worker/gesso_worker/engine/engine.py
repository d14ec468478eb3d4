"""The engine: encode, denoise and decode, each in its own thread, off each other's critical path.

Only the denoising thread touches the batch; everything that threads share lies behind the ledger's lock,
which no thread holds while it computes. Accepted jobs are bounded by `max_accepted`, and so are the queues
between the stages. A job that was cancelled or is past its deadline is dropped when a stage claims it and at
each step boundary.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gesso_worker.engine.batch import Member
from gesso_worker.engine.conditioning import encode_prompt
from gesso_worker.engine.decoding import decode_latents
from gesso_worker.engine.denoiser import Denoiser, Run
from gesso_worker.engine.images import Provenance, encode_image
from gesso_worker.engine.job import FailureReason, Finished, ImageRequest, Job, Sink, Stage, Start
from gesso_worker.engine.ledger import Ledger
from gesso_worker.engine.live_profile import LiveProfile
from gesso_worker.engine.model import Model
from gesso_worker.logs import line, prompt_hash

logger = logging.getLogger(__name__)


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


Keep = Callable[[Job, dict[int, Tensor]], None]


class Engine:
    """Serves one model. `start` it, `accept` and `begin` jobs, `drain` and `stop` it. Thread-safe."""

    def __init__(
        self,
        model: Model,
        settings: EngineSettings,
        keep: Keep | None = None,
        clock: Callable[[], float] = time.monotonic,
        live: LiveProfile | None = None,
    ) -> None:
        """`keep` gets the kept latents of each finished run, before its image event; must be quick.

        `live` is told what each stage takes.
        """
        self._model = model
        self._settings = settings
        self._keep = keep
        self._clock = clock
        self._live = live
        self._ledger = Ledger(settings.max_accepted, clock)
        self._encode_queue: queue.Queue[Job | None] = queue.Queue(settings.max_accepted + 1)
        self._decode_queue: queue.Queue[Run | None] = queue.Queue(settings.max_accepted + 1)
        self._denoiser = Denoiser(
            model,
            self._ledger,
            settings.max_batch,
            settings.step_seconds,
            settings.decode_seconds,
            hand_over=self._decode_queue.put_nowait,
            on_tick=live.ticked if live is not None else None,
        )
        stages = (
            ("encode", self._encode_loop),
            ("denoise", self._denoiser.loop),
            ("decode", self._decode_loop),
        )
        self._threads = [
            threading.Thread(target=self._run, args=(loop,), name=name, daemon=True)
            for name, loop in stages
        ]

    def start(self) -> None:
        """Starts the three threads."""
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

    def _run(self, loop: Callable[[], None]) -> None:
        # Each thread of the process has a setting of its own.
        torch.set_num_threads(self._settings.threads)
        loop()

    def _steps(self, job: Job) -> int:
        """Steps of a job that is not encoded: of the K asked for until its start is found."""
        begun = job.stage is not Stage.ACCEPTED
        skipped = job.start.skipped_steps if begun else job.request.skipped_steps
        return self._model.settings.steps - skipped

    def _encode_loop(self) -> None:
        while (job := self._encode_queue.get()) is not None:
            if not self._ledger.claim(job, Stage.ENCODING):
                continue
            # The fetch happened while the job waited for its start.
            job.timings.queue = max(0.0, job.timings.queue - job.timings.fetch)
            began = self._clock()
            try:
                member = self._member(job)
            except Exception as error:
                self._failed("encoding", job, error)
                continue
            with self._ledger.lock:
                now = self._clock()
                job.timings.encode = now - began
                job.waiting_since_s = now
                job.stage = Stage.READY
            if self._live is not None:
                self._live.encoded(job.timings.encode)
            self._denoiser.add(Run(job, member))

    @torch.inference_mode()
    def _member(self, job: Job) -> Member:
        request, start = job.request, job.start
        trajectory = self._model.trajectory(start.skipped_steps)
        if start.latents is None:
            latents = self._model.noise(request.seed, trajectory)
        else:
            latents = start.latents.to(self._model.device, self._model.dtype)
        conditioning = encode_prompt(
            self._model, request.prompt, request.negative_prompt, request.guidance_scale
        )
        return Member(trajectory, conditioning, request.guidance_scale, latents)

    def _decode_loop(self) -> None:
        while (run := self._decode_queue.get()) is not None:
            if not self._ledger.claim(run.job, Stage.DECODING):
                continue
            try:
                self._finish(run)
            except Exception as error:
                self._failed("decoding", run.job, error)

    def _finish(self, run: Run) -> None:
        job, request, settings = run.job, run.job.request, self._model.settings
        began = self._clock()
        image = decode_latents(self._model, run.member.latents)
        if self._keep is not None and job.kept:
            self._keep(job, job.kept)
        provenance = Provenance(
            model=settings.source,
            scheduler=settings.scheduler,
            steps=settings.steps,
            skipped_steps=job.start.skipped_steps,
            seed=request.seed,
            guidance_scale=request.guidance_scale,
        )
        data = encode_image(image, request.image_format, provenance)
        job.timings.decode = self._clock() - began
        if self._live is not None:
            self._live.decoded(job.timings.decode)
        skipped = job.start.skipped_steps
        self._ledger.end(job, Finished(data, image.width, image.height, skipped, job.timings))

    def _failed(self, doing: str, job: Job, error: Exception) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            self._ledger.fail(job, FailureReason.OUT_OF_MEMORY)
            return
        request = job.request
        text = line(
            f"{doing} failed", request=request.request_id, prompt=prompt_hash(request.prompt)
        )
        logger.error(text, exc_info=error)
        message = f"{doing} failed: {type(error).__name__}"
        self._ledger.fail(job, FailureReason.INTERNAL, message)
