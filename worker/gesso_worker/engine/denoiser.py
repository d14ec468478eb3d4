"""The denoising stage: one thread owns the batch; requests join and leave it between two ticks.

When a tick runs out of memory, the batch is halved and the rest waits; after many good ticks it grows by one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gesso_worker.engine.admission import Waiting, admit, swap
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.job import FailureReason, Job, Progress, Stage, Started
from gesso_worker.engine.ledger import Ledger
from gesso_worker.engine.model import Model
from gesso_worker.engine.preview import LatentProjection
from gesso_worker.engine.shared_time import SharedTime
from gesso_worker.engine.streams import finish

logger = logging.getLogger(__name__)

#: Steps between two progress events of a job that does not say: each costs worker, router and client some time,
#: which counts unless a step takes this long.
PROGRESS_STEPS = 10
_SLOW_STEP_S = 0.1
#: After running out of memory, the batch grows by one again each time so many ticks went well.
RECOVERY_TICKS = 256
#: So many ticks in a row that fail for another reason than memory: the device is lost.
BROKEN_AFTER = 3
#: A stage without work looks so often whether it should measure itself.
REST_POLL_S = 1.0
#: What is reckoned to be in time has this much to spare: of those with the least slack, every one would else be
#: a little late where steps take a little longer than thought.
_MARGIN = 1.25
#: Weight of the last tick in the running mean that slack is reckoned with.
_TICK_WEIGHT = 0.1


@dataclass(eq=False, slots=True)
class Run:
    """A job with what the denoising thread needs."""

    job: Job
    member: Member


class Denoiser:
    """`loop` is the thread's; `add` and the counters are for all, under the ledger's lock."""

    def __init__(
        self,
        model: Model,
        ledger: Ledger,
        max_batch: int,
        step_seconds: float,
        decode_seconds: float,
        hand_over: Callable[[Run], None],
        shared: SharedTime,
        on_tick: Callable[[int, float], None] | None = None,
        projection: LatentProjection | None = None,
        at_rest: Callable[[], None] | None = None,
    ) -> None:
        """`step_seconds` and `decode_seconds` are first guesses; `hand_over` takes runs without steps left.

        `on_tick` is told the batch of each tick of images of the model's own size, and the seconds of
        the device it took, by `shared`.
        `at_rest` is called now and then while there is nothing to do.
        """
        self._ledger = ledger
        self._max_batch = max_batch
        self._step_seconds = step_seconds
        self._finish_seconds = decode_seconds
        # Of one step, whatever the batch: what no request can beat.
        self._fastest_step_s = 0.0
        self._hand_over_run = hand_over
        self._shared = shared
        self._on_tick = on_tick
        self._projection = projection
        self._at_rest = at_rest
        self._device = model.device
        self._own_shape = model.latent_shape
        self._progress_steps = 1 if step_seconds >= _SLOW_STEP_S else PROGRESS_STEPS
        self._batch = DenoisingBatch(model.unet, model.device, model.dtype)
        self._stopping = False
        self._good_ticks = 0
        self._bad_ticks = 0
        self._beat_s = ledger.clock()
        # Claimed for the batch, not yet in it.
        self._joining: list[Run] = []
        self.ready: list[Run] = []
        self.active: list[Run] = []
        self.ticks = 0
        self.out_of_memory = 0
        self.swaps = 0
        self.limit = max_batch
        self.broken = ""

    def add(self, run: Run) -> None:
        """Lets an encoded job wait for a place in the batch."""
        with self._ledger.lock:
            if run.job in self._ledger:
                self.ready.append(run)
                self._ledger.lock.notify_all()

    def finished(self, seconds: float) -> None:
        """A run's image was there so long after its last step."""
        with self._ledger.lock:
            self._finish_seconds += _TICK_WEIGHT * (seconds - self._finish_seconds)

    def silent_seconds(self) -> float:
        """Seconds since the thread last came round; grows when the device hangs."""
        return self._ledger.clock() - self._beat_s

    def shrink(self, timeout_s: float) -> None:
        """Halves the batch for another stage that ran out of memory, and waits for that, so long at most."""
        with self._ledger.lock:
            self.out_of_memory += 1
            self.limit = max(1, min(self.limit, len(self.active)) // 2)
            self._good_ticks = 0
            logger.warning("out of memory outside of denoising", extra={"batch": self.limit})
            self._ledger.lock.wait_for(
                lambda: len(self.active) <= self.limit or self._stopping, timeout_s
            )

    def stop(self) -> None:
        """Ends the loop at the next step boundary."""
        with self._ledger.lock:
            self._stopping = True
            self._ledger.lock.notify_all()

    def loop(self) -> None:
        """Steps the batch until stopped."""
        while True:
            with self._ledger.lock:
                self._beat_s = self._ledger.clock()
                if self._stopping:
                    return
                if not self.ready and not self.active:
                    self._ledger.lock.wait(REST_POLL_S)
                rests = not self.ready and not self.active and not self._stopping
                if self.ready and not self.active:
                    self._gather()
            if rests:
                if self._at_rest is not None:
                    self._at_rest()
                continue
            try:
                try:
                    self._drop_doomed()
                    self._put_back_surplus()
                    self._join()
                    self._swap()
                    if self.active:
                        self._tick()
                except torch.OutOfMemoryError:
                    self._halve()
            except Exception as error:
                self._tick_failed(error)

    def _gather(self) -> None:
        """Waits a step at most for who is being encoded: whoever joins later costs a step of its own."""
        self._ledger.lock.wait_for(
            lambda: self._stopping or len(self.ready) >= self.limit or not self._coming(),
            self._step_seconds,
        )

    def _coming(self) -> bool:
        stages = (Stage.QUEUED, Stage.ENCODING)
        return any(job.stage in stages for job in self._ledger.jobs())

    def _drop_doomed(self) -> None:
        now = self._ledger.clock()
        with self._ledger.lock:
            gone = [
                run
                for run in (*self.active, *self.ready)
                if self._doomed(run, now) or run.job not in self._ledger
            ]
            if not gone:
                return
            self.ready = [run for run in self.ready if run not in gone]
            stay = [run for run in self.active if run not in gone]
        self._replace(stay)
        for run in gone:
            self._ledger.fail(run.job, self._doomed(run, now) or FailureReason.STOPPED)

    def _doomed(self, run: Run, now: float) -> FailureReason | None:
        """Why it is not worth another step: cancelled, or late even if every step is the fastest so far."""
        return run.job.doomed(now + run.member.trajectory.remaining * self._fastest_step_s)

    def _replace(self, runs: list[Run]) -> None:
        if runs == self.active:
            return
        self._batch.replace([run.member for run in runs])
        finish(self._device)
        with self._ledger.lock:
            self.active = runs
            self._ledger.lock.notify_all()

    def _join(self) -> None:
        free = self.limit - len(self.active)
        if free <= 0 or not self.ready:
            return
        with self._ledger.lock:
            runs = {run.job.key: run for run in self.ready}
            waiting = [_waiting(run) for run in self.ready]
            now = self._ledger.clock()
            chosen = admit(waiting, free, now, *self._reckoned())
            self._joining = [runs[admitted.key] for admitted in chosen]
            self.ready = [run for run in self.ready if run not in self._joining]
        self._take_in(self.active)

    def _swap(self) -> None:
        """Lets one that can wait make room, in a full batch, for one that cannot."""
        if len(self.active) < self.limit or not self.ready:
            return
        with self._ledger.lock:
            runs = {run.job.key: run for run in self.ready}
            active = [_waiting(run) for run in self.active]
            waiting = [_waiting(run) for run in self.ready]
            now = self._ledger.clock()
            chosen = swap(active, waiting, now, *self._reckoned())
            if chosen is None:
                return
            self._joining = [runs[chosen.joins]]
            self.ready = [run for run in self.ready if run not in self._joining]
            self.swaps += 1
        stay = [run for run in self.active if run.job.key != chosen.leaves]
        leaving = [run for run in self.active if run.job.key == chosen.leaves]
        self._take_in(stay)
        self._wait_again(leaving)

    def _reckoned(self) -> tuple[float, float]:
        """Seconds of a step, and from the last one to the image, with something to spare."""
        return _MARGIN * self._step_seconds, _MARGIN * self._finish_seconds

    def _take_in(self, stay: list[Run]) -> None:
        """Makes those who stay, and those who join and are not doomed, the batch."""
        self._joining = [
            run for run in self._joining if self._ledger.claim(run.job, Stage.DENOISING)
        ]
        joining = self._joining
        self._replace([*stay, *joining])
        self._joining = []
        for run in joining:
            now = self._ledger.clock()
            if run.job.denoise_began_s:
                # It was put back for want of memory: that wait counts as queueing.
                run.job.denoise_began_s += now - run.job.waiting_since_s
            else:
                run.job.denoise_began_s = now
                self._ledger.tell(run.job, Started(run.member.trajectory.begin))

    def _tick(self) -> None:
        for run in self.active:
            step = run.member.trajectory.step
            if step in run.job.request.keep_levels and step > run.member.trajectory.begin:
                run.job.kept[step] = self._batch.latents_of(run.member)
        began = self._ledger.clock()
        with self._shared.work() as share:
            self._batch.tick()
            # A GPU's work is waited for here: what is cancelled now must not step again, and times must be
            # true.
            finish(self._device)
        self._bad_ticks = 0
        took = self._ledger.clock() - began
        for run in self.active:
            run.job.stepped(len(self.active))
        self._step_seconds += _TICK_WEIGHT * (took - self._step_seconds)
        self._fastest_step_s = min(took, self._fastest_step_s or took)
        own = all(run.member.latents.shape == self._own_shape for run in self.active)
        if self._on_tick is not None and own:
            self._on_tick(len(self.active), share.seconds)
        with self._ledger.lock:
            self.ticks += 1
            self._recover()
        self._hand_over()
        for run in self.active:
            self._tell_progress(run)

    def _tell_progress(self, run: Run) -> None:
        request, trajectory = run.job.request, run.member.trajectory
        preview, every = b"", request.preview_steps
        if self._projection is not None and every and trajectory.step % every == 0:
            denoised = self._batch.denoised_of(run.member)
            preview = b"" if denoised is None else self._projection.preview(denoised)
        if preview or trajectory.step % (request.progress_steps or self._progress_steps) == 0:
            self._ledger.tell(run.job, Progress(trajectory.step, trajectory.steps, preview))

    def _hand_over(self) -> None:
        """Sends what has no steps left to the next stage."""
        done = [run for run in self.active if not run.member.trajectory.remaining]
        if not done:
            return
        with self._ledger.lock:
            now = self._ledger.clock()
            for run in done:
                run.job.timings.denoise = now - run.job.denoise_began_s
                run.job.worked(now)
                run.job.waiting_since_s = now
                run.job.stage = Stage.DECODING
        self._replace([run for run in self.active if run.member.trajectory.remaining])
        for run in done:
            self._hand_over_run(run)

    def _halve(self) -> None:
        """Goes on with half of the batch, the earliest; the others wait where they are. One alone fails."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        runs = [*self.active, *self._joining]
        self._joining = []
        half = len(runs) // 2
        with self._ledger.lock:
            self.out_of_memory += 1
            self.limit = max(1, half)
            self._good_ticks = 0
        logger.warning("out of memory", extra={"batch": len(runs), "going_on_with": half})
        self._replace(runs[:half])
        if len(runs) == 1:
            self._ledger.fail(runs[0].job, FailureReason.OUT_OF_MEMORY)
            return
        self._wait_again(runs[half:])

    def _put_back_surplus(self) -> None:
        """After another stage ran out of memory, the batch may be larger than it now may be."""
        surplus = self.active[self.limit :]
        if surplus:
            self._replace(self.active[: self.limit])
            self._wait_again(surplus)

    def _wait_again(self, runs: list[Run]) -> None:
        """Those who have left the batch before they are done wait where they are."""
        with self._ledger.lock:
            now = self._ledger.clock()
            for run in runs:
                if run.job.stage is Stage.DENOISING:
                    run.job.worked(now)
                run.job.waiting_since_s = now
                run.job.stage = Stage.READY
            self.ready = [*runs, *self.ready]

    def _recover(self) -> None:
        if self.limit == self._max_batch:
            return
        self._good_ticks += 1
        if self._good_ticks >= RECOVERY_TICKS:
            self.limit += 1
            self._good_ticks = 0

    def _tick_failed(self, error: Exception) -> None:
        """Fails the batch, since nobody can say whose fault it was; several times in a row break the engine."""
        self._bad_ticks += 1
        failed = [*self.active, *self._joining]
        about = [run.job.request.subject.request or run.job.request.request_id for run in failed]
        logger.exception("a denoising step failed", extra={"requests": about})
        self._joining = []
        self._batch.clear()
        with self._ledger.lock:
            self.active = []
            if self._bad_ticks >= BROKEN_AFTER:
                self.broken = f"denoising fails: {type(error).__name__}"
                self._ledger.close(self.broken)
        for run in failed:
            message = f"denoising failed: {type(error).__name__}"
            self._ledger.fail(run.job, FailureReason.INTERNAL, message)


def _waiting(run: Run) -> Waiting:
    key = run.job.key  # keys grow with arrival
    return Waiting(key, key, run.member.trajectory.remaining, run.job.request.deadline_s)
