"""The accepted jobs: bounded, each ended exactly once, behind the one lock that the engine's threads share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from gesso_worker.engine.job import (
    Event,
    Failed,
    FailureReason,
    Finished,
    ImageRequest,
    Job,
    Sink,
    Stage,
    Start,
)

logger = logging.getLogger(__name__)


class QueueFullError(Exception):
    """The bound on accepted jobs is reached."""


class ClosedError(Exception):
    """The engine is draining or stopped, or broken."""


class Ledger:
    """`lock` guards the jobs' fields and what the stages share; it is notified whenever either changes."""

    def __init__(self, max_accepted: int, clock: Callable[[], float]) -> None:
        self.lock = threading.Condition()
        self.clock = clock
        self.images_done = 0
        self._idle_since_s = clock()
        self._max_accepted = max_accepted
        self._jobs: dict[int, Job] = {}
        self._next_key = 0
        self._telling = 0
        self._closed = ""

    @property
    def accepting(self) -> bool:
        """Whether `accept` may succeed."""
        return not self._closed

    @property
    def idle_seconds(self) -> float:
        """For how long there has been no accepted job; 0 while there is one, and when closed."""
        with self.lock:
            busy = self._jobs or self._closed
            return 0.0 if busy else max(0.0, self.clock() - self._idle_since_s)

    def __contains__(self, job: Job) -> bool:
        return job.key in self._jobs

    def jobs(self) -> Sequence[Job]:
        """The accepted jobs that have not ended, oldest first."""
        with self.lock:
            return list(self._jobs.values())

    def accept(self, request: ImageRequest, sink: Sink) -> Job:
        """Takes a job in. Raises QueueFullError at the bound, ClosedError when closed."""
        with self.lock:
            if self._closed:
                raise ClosedError(self._closed)
            if len(self._jobs) >= self._max_accepted:
                raise QueueFullError(f"{len(self._jobs)} requests accepted: the bound is reached")
            now = self.clock()
            job = Job(request, sink, self._next_key, now, waiting_since_s=now)
            self._next_key += 1
            self._jobs[job.key] = job
            return job

    def begin(self, job: Job, start: Start) -> bool:
        """Gives a job its start; False if it ended meanwhile."""
        with self.lock:
            if job not in self:
                return False
            job.stage = Stage.QUEUED
            job.start = start
            job.stage_began_s = self.clock()
            job.timings.fetch = start.fetch_seconds
            return True

    def cancel(self, job: Job) -> None:
        """Dooms a job; one that has not begun ends at once, since nobody else would look at it again."""
        with self.lock:
            job.cancelled = True
            unbegun = job.stage is Stage.ACCEPTED
            self.lock.notify_all()
        if unbegun:
            self.fail(job, FailureReason.CANCELLED)

    def claim(self, job: Job, stage: Stage) -> bool:
        """Moves a job to a stage unless it ended or is doomed: checked again here, since it waited."""
        with self.lock:
            if job not in self:
                return False
            now = self.clock()
            reason = job.doomed(now)
            if reason is None:
                job.waited(stage, now)
                job.stage = stage
                job.timings.queue += now - job.waiting_since_s
        if reason is not None:
            self.fail(job, reason)
        return reason is None

    def tell(self, job: Job, event: Event) -> None:
        """Hands an event to the job's sink, whose failure is its own affair."""
        try:
            job.sink(event)
        except Exception:
            logger.exception("a sink failed")

    def end(self, job: Job, event: Finished | Failed) -> None:
        """The last event of a job; only the first caller is heard."""
        with self.lock:
            if job not in self:
                return
            if isinstance(event, Failed):
                job.worked(self.clock(), failed=True)
            job.stage = Stage.DONE
            self.images_done += isinstance(event, Finished)
            # It stays counted until its sink was told, so that who drains waits for that too.
            ended = self._jobs.pop(job.key)
            self._telling += 1
            self._idle_since_s = self.clock()
        try:
            self.tell(ended, event)
        finally:
            with self.lock:
                self._telling -= 1
                self.lock.notify_all()

    def fail(self, job: Job, reason: FailureReason, message: str = "") -> None:
        """Ends a job without an image."""
        job.kept.clear()
        self.end(job, Failed(reason, message or reason.value))

    def close(self, reason: str) -> None:
        """Accepts nothing more; the first reason stays."""
        with self.lock:
            self._closed = self._closed or reason
            self.lock.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Waits until every job has ended and been told; False if some have not in time."""
        with self.lock:
            return self.lock.wait_for(lambda: not self._jobs and not self._telling, timeout_s)
