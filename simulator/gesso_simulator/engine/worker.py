"""One simulated worker: a FIFO queue before a batch that requests join and leave at step boundaries."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from gesso.profile import Profile
from gesso_router.routing.quality import Match
from gesso_router.routing.view import WorkerView


@dataclass(slots=True)
class Job:
    """A request on a worker: its place in the workload, how it is served, and what is left of it.

    `factor` is its service time over the profile's, `estimate_s` the latency that the router expected. `match`
    is the cache entry that it starts from, `keep` whether its own latents stay in the cache.
    """

    request: int
    variant: int
    skipped_steps: int
    steps: int
    factor: float
    sent_s: float = 0.0
    estimate_s: float = 0.0
    start_s: float = math.nan
    attempts: int = 1
    left: int = field(default=0)
    match: Match | None = None
    keep: bool = False


class SimulatedWorker:
    """Serves jobs by its profile; the caller keeps the clock and asks when something will happen next.

    `version` rises with every change, so that an event that was scheduled before it can be told to be stale.
    """

    __slots__ = (
        "_begin",
        "_busy",
        "_idle",
        "_queued",
        "_since",
        "_tick",
        "_ticks",
        "active",
        "assigned",
        "assigned_revision",
        "draining",
        "index",
        "max_batch",
        "model",
        "name",
        "paid_since",
        "profile",
        "queue",
        "ready",
        "ready_at",
        "target",
        "version",
    )

    def __init__(self, index: int, name: str, profile: Profile, model: str, max_batch: int) -> None:
        self.index = index
        self.name = name
        self.profile = _cut(profile, max_batch)
        self.max_batch = self.profile.max_batch
        self.model = model
        self.target = model
        self.ready = True
        self.ready_at = 0.0
        self.draining = False
        self.paid_since = 0.0
        self.assigned = 0
        self.assigned_revision = 0
        self.active: list[Job] = []
        self.queue: deque[Job] = deque()
        self.version = 0
        self._begin = 0.0
        self._since = 0.0
        self._busy = 0.0
        self._tick = 0.0
        self._ticks = 0
        self._queued: tuple[int, ...] = ()
        self._idle: WorkerView | None = None

    @property
    def in_flight(self) -> int:
        """Jobs on it."""
        return len(self.active) + len(self.queue)

    def holds(self, profile: Profile, model: str) -> None:
        """Another model is loaded."""
        self.profile, self.model = _cut(profile, self.max_batch), model
        self.changed()

    def assign(self, skipped_steps: int, revision: int) -> None:
        """Takes a level: a preference that the router sees."""
        self.assigned, self.assigned_revision = skipped_steps, revision
        self.changed()

    def changed(self) -> None:
        """What views show besides the jobs has changed."""
        self._idle = None

    def view(self, now_s: float) -> WorkerView:
        """The worker as the router sees it."""
        if not self.active and not self._queued:
            if self._idle is None:
                self._idle = WorkerView(self.name, self.profile, self.assigned, model=self.model)
            return self._idle
        # Below 0 the batch is still being encoded.
        done = int((now_s - self._begin) / self._tick) if now_s > self._begin else 0
        if done > self._ticks:
            done = self._ticks
        active = tuple([job.left - done if job.left - done > 1 else 1 for job in self.active])
        return WorkerView(
            self.name, self.profile, self.assigned, active, self._queued, True, self.model
        )

    def push(self, job: Job, now_s: float) -> float | None:
        """A job comes; the time of the worker's next event if that has changed."""
        job.left = job.steps
        self.queue.append(job)
        if self.active:
            if len(self.active) < self.max_batch:
                return self._shorten(now_s)
            self._queued = tuple([j.steps for j in self.queue])
            return None
        return self._next(now_s)

    def advance(self, now_s: float) -> tuple[list[Job], float, float | None]:
        """The batch reaches the end of its segment: jobs that are done, when they leave, the next event."""
        for job in self.active:
            job.left -= self._ticks
        done = [job for job in self.active if job.left <= 0]
        leaves = now_s
        if done:
            self.active = [job for job in self.active if job.left > 0]
            leaves += self.profile.decode_seconds * sum([job.factor for job in done])
        self._busy += leaves - self._since
        return done, leaves, self._next(leaves)

    def busy_s(self, now_s: float) -> float:
        """Seconds in which it served, up to now."""
        return self._busy + (max(0.0, now_s - self._since) if self.active else 0.0)

    def clear(self) -> list[Job]:
        """All jobs are taken off, in no state to go on."""
        jobs = [*self.active, *self.queue]
        self.active, self._queued = [], ()
        self.queue.clear()
        self.version += 1
        return jobs

    def _shorten(self, now_s: float) -> float | None:
        """Whoever waits joins at the end of the tick in progress."""
        passed = max(1, math.ceil((now_s - self._begin) / self._tick)) if now_s > self._begin else 0
        if passed >= self._ticks:
            self._queued = tuple([j.steps for j in self.queue])
            return None
        self._ticks = passed
        self._queued = tuple([j.steps for j in self.queue])
        self.version += 1
        return self._begin + passed * self._tick

    def _next(self, now_s: float) -> float | None:
        """Joins who fits, and starts the next segment; its end, None where there is nothing to do."""
        start = self._since = now_s
        while self.queue and len(self.active) < self.max_batch:
            job = self.queue.popleft()
            start += self.profile.encode_seconds * job.factor
            if math.isnan(job.start_s):
                job.start_s = start
            self.active.append(job)
        self._queued = tuple([j.steps for j in self.queue])
        self.version += 1
        if not self.active:
            return None
        batch = len(self.active)
        factor = sum([job.factor for job in self.active]) / batch
        self._begin = start
        self._tick = self.profile.step_seconds[batch - 1] * factor
        self._ticks = min([job.left for job in self.active])
        return start + self._ticks * self._tick


def _cut(profile: Profile, max_batch: int) -> Profile:
    if profile.max_batch <= max_batch:
        return profile
    return Profile(
        profile.device,
        profile.steps,
        profile.encode_seconds,
        profile.decode_seconds,
        profile.step_seconds[:max_batch],
    )
