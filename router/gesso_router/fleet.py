"""What the router knows of its workers: their reports, filled up with its own requests in flight.

No I/O and no clock of its own. A request counts once: reports and flights are matched by request
id; what a report still shows though it has ended here is left out, what it does not show yet is
added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gesso.profile import Profile
from gesso_router.routing.breaker import CLOSED, Breaker
from gesso_router.routing.margin import Drift
from gesso_router.routing.view import WorkerView

#: Seconds for which the view of a worker is kept if nothing is heard of it: its requests grow older with the
#: clock, those of a worker that denoises nothing do not. At a thousand workers, making all views anew would
#: take longer than a decision may.
_VIEW_SECONDS = 0.05
_RESTING_VIEW_SECONDS = 1.0


@dataclass(frozen=True)
class Endpoint:
    """A worker as the plan names it."""

    name: str
    address: str
    assigned_skipped_steps: int


@dataclass(frozen=True)
class CacheReport:
    """What a worker's shard holds, and what went wrong on its disk since the worker started."""

    entries: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    corrupt: int = 0
    unwritten: int = 0
    failed: int = 0


@dataclass(frozen=True)
class WorkerReport:
    """One answer to `Stats`: `active` and `queued` are (request id, remaining steps).

    `model` is what it holds, and what the profile is of: empty for the service's own.
    """

    ready: bool
    draining: bool
    profile: Profile | None
    active: tuple[tuple[str, int], ...] = ()
    queued: tuple[tuple[str, int], ...] = ()
    fingerprint: str = ""
    model: str = ""
    cache: CacheReport = CacheReport()


@dataclass
class Flight:
    """A request of this router on a worker, at the address that the worker had when it was sent."""

    request_id: str
    steps: int
    sent_s: float
    remaining: int
    address: str = ""
    active: bool = False
    progress_s: float = 0.0
    started_s: float = 0.0
    #: Seconds that its steps so far should have taken, by the worker's profile and batch.
    expected_seconds: float = 0.0
    stalled_before: float = 0.0


@dataclass
class WorkerState:
    """One worker: where it is, its last report, and this router's requests on it."""

    endpoint: Endpoint
    report: WorkerReport | None = None
    asked_s: float = 0.0  # when the report was asked for
    misses: int = 0
    lost_s: float = -1.0  # reports asked for before this do not count
    flights: dict[str, Flight] = field(default_factory=dict)
    drift: Drift = field(default_factory=Drift)
    foreign: int = 0  # active requests of others, by the last report
    stalled: float = 0.0  # seconds of encoding and decoding, which hold up the whole batch
    ended: dict[str, float] = field(
        default_factory=dict
    )  # request id -> when, since the last report
    breaker: Breaker = CLOSED
    barred: bool = False  # its breaker was open when last looked at
    view: WorkerView | None = None  # as of view_s, until something changes
    view_s: float = 0.0

    @property
    def reachable(self) -> bool:
        """Whether it has answered, and not been lost since."""
        return self.report is not None

    @property
    def usable(self) -> bool:
        """Whether it may be given new requests."""
        report = self.report
        return (
            report is not None
            and report.ready
            and not report.draining
            and report.profile is not None
        )


class Fleet:
    """The workers of the plan in force."""

    def __init__(
        self,
        steps: int,
        max_batch: int,
        stats_misses: int,
        models: Mapping[str, int] | None = None,
    ) -> None:
        """`steps` of a full generation and `max_batch` are the service's; see RouterSettings for the third.

        `models` are the steps of other models, by name.
        """
        self._steps = {"": steps, **(models or {})}
        self._max_batch = max_batch
        self._misses_allowed = stats_misses
        self._workers: dict[str, WorkerState] = {}
        #: Losses of workers that were not about to go, since the start.
        self.losses = 0

    def apply(self, endpoints: Iterable[Endpoint]) -> tuple[list[str], list[str]]:
        """Takes the workers of a plan; returns names that came (or moved) and names that went (or moved)."""
        wanted = {e.name: e for e in endpoints}
        went = [
            n
            for n, w in self._workers.items()
            if n not in wanted or wanted[n].address != w.endpoint.address
        ]
        for name in went:
            del self._workers[name]
        came = [n for n in wanted if n not in self._workers]
        for name, endpoint in wanted.items():
            state = self._workers.setdefault(name, WorkerState(endpoint))
            if state.endpoint != endpoint:
                state.endpoint, state.view = endpoint, None
        return came, went

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every worker of the plan."""
        return tuple(w.endpoint for w in self._workers.values())

    @property
    def reachable(self) -> list[Endpoint]:
        """Workers whose shard can be asked, draining ones included: their latents are still there. Who has not
        answered the last poll would not answer in time.
        """
        return [w.endpoint for w in self._workers.values() if w.reachable and not w.misses]

    @property
    def usable(self) -> list[str]:
        """Workers that may be given new requests."""
        return [name for name, _ in _usable(self._workers)]

    def holding(self, model: str, tried: frozenset[str] = frozenset()) -> list[str]:
        """Workers that may be given new requests for a model."""
        holders = {n: w for n, w in self._workers.items() if w.report and w.report.model == model}
        return [name for name, _ in _usable(holders, tried)]

    def address(self, name: str) -> str | None:
        """Where a worker is; None if the plan does not name it."""
        state = self._workers.get(name)
        return state.endpoint.address if state else None

    def caches(self) -> dict[str, CacheReport]:
        """The shards of workers that can be reached, by name, as they last told."""
        return {n: w.report.cache for n, w in self._workers.items() if w.report is not None}

    def barred(self, now_s: float) -> dict[str, bool]:
        """Of each worker that can be reached, whether it is left alone for what failed on it."""
        return {n: w.breaker.open(now_s) for n, w in self._workers.items() if w.reachable}

    def in_flight(self, name: str) -> int:
        """This router's requests on a worker."""
        state = self._workers.get(name)
        return len(state.flights) if state else 0

    def reported(self, name: str, report: WorkerReport, asked_s: float) -> None:
        """A worker answered a poll that was sent at `asked_s`."""
        state = self._workers.get(name)
        if state is None or asked_s < max(state.asked_s, state.lost_s):
            return
        if report.profile is not None:
            report = self._cut(report)
        before = state.report
        if (
            before is None
            or before.profile is None
            or report.profile is None
            or before.model != report.model
        ):
            state.drift = Drift()
        elif before.profile != report.profile:
            state.drift = state.drift.carried(before.profile, report.profile)
        state.report, state.asked_s, state.misses = report, asked_s, 0
        state.barred = state.breaker.open(asked_s)
        state.foreign = sum(i not in state.flights for i, _ in report.active)
        # What ended before the poll was sent cannot be in the report.
        state.ended = {i: t for i, t in state.ended.items() if t >= asked_s}
        state.view = None

    def missed(self, name: str) -> bool:
        """A worker did not answer a poll in time; True if it counts as lost from now on."""
        state = self._workers.get(name)
        if state is None:
            return False
        state.misses += 1
        if state.misses < self._misses_allowed or state.report is None:
            return False
        self._lose(state, state.report)
        return True

    def lost(self, name: str, now_s: float) -> bool:
        """A worker cannot be reached: nothing new until it answers again; False if that was known."""
        state = self._workers.get(name)
        if state is None or state.report is None:
            return False
        self._lose(state, state.report)
        state.lost_s = now_s
        return True

    def _lose(self, state: WorkerState, report: WorkerReport) -> None:
        self.losses += not report.draining
        state.report = None

    def refused(self, name: str, flight: Flight, now_s: float) -> None:
        """A worker takes nothing more, or holds another model: nothing new until it tells how it is now."""
        state = self._carrying(name, flight)
        if state is not None and state.report is not None:
            state.report = replace(state.report, ready=False)
            state.lost_s, state.view = now_s, None

    def failed(self, name: str, flight: Flight, now_s: float) -> bool:
        """A request failed on a worker; True if nothing new goes there for a while from now on."""
        state = self._carrying(name, flight)
        if state is None:
            return False
        before, state.breaker = state.breaker, state.breaker.failed(now_s)
        state.barred = state.breaker.open(now_s)
        return state.breaker.opened > before.opened

    def sent(self, name: str, request_id: str, steps: int, now_s: float) -> Flight:
        """A request goes to a worker."""
        flight = Flight(request_id, steps, now_s, steps)
        state = self._workers.get(name)
        if state is not None:
            flight.address = state.endpoint.address
            state.flights[request_id] = flight
            state.view = None
        return flight

    def done(self, name: str, request_id: str, now_s: float) -> None:
        """A request is no longer on a worker, whatever became of it."""
        state = self._workers.get(name)
        if state is not None and state.flights.pop(request_id, None) is not None:
            state.ended[request_id] = now_s
            state.view = None

    def started(self, name: str, flight: Flight, remaining: int, now_s: float) -> None:
        """A request is in the denoising batch."""
        flight.active, flight.remaining = True, max(1, remaining)
        flight.started_s = flight.progress_s = now_s
        state, profile = self._of(name, flight)
        if state is not None:
            state.view = None
        if state is not None and profile is not None:
            state.stalled += profile.encode_seconds
            flight.stalled_before = state.stalled

    def progressed(self, name: str, flight: Flight, remaining: int, now_s: float) -> None:
        """Steps of a request are done."""
        state, profile = self._of(name, flight)
        if state is not None and profile is not None:
            batch = state.foreign + sum(f.active for f in state.flights.values())
            steps = flight.remaining - remaining
            flight.expected_seconds += steps * profile.tick_seconds(max(1, batch))
        if state is not None:
            state.view = None
        flight.active, flight.remaining, flight.progress_s = True, max(1, remaining), now_s

    def finished(self, name: str, flight: Flight) -> None:
        """An image came: what its steps took, against what they should have, tells the drift."""
        state, profile = self._of(name, flight)
        if state is not None:
            state.breaker, state.barred = CLOSED, False
        if state is None or profile is None or not flight.active:
            return
        held_up = state.stalled - flight.stalled_before
        took = flight.progress_s - flight.started_s
        state.drift = state.drift.observe(
            flight.expected_seconds + held_up, took, flight.progress_s
        )
        state.stalled += profile.decode_seconds
        state.view = None

    def image_seconds(self, name: str, skipped_steps: int, batch: int) -> float:
        """Seconds of an image at K in a batch on a worker as it is now; 0 while its profile is unknown."""
        profile = self._of(name)[1]
        return profile.latency_seconds(skipped_steps, batch) if profile is not None else 0.0

    def _carrying(self, name: str, flight: Flight) -> WorkerState | None:
        """A worker with a flight; None if it has moved since: what becomes of that says nothing of it now."""
        state = self._workers.get(name)
        return state if state is not None and state.endpoint.address == flight.address else None

    def _of(
        self, name: str, flight: Flight | None = None
    ) -> tuple[WorkerState | None, Profile | None]:
        """A worker, with a flight if one is told, and its profile as it is now."""
        state = self._carrying(name, flight) if flight is not None else self._workers.get(name)
        if state is None or state.report is None or state.report.profile is None:
            return state, None
        return state, state.drift.applied(state.report.profile)

    def views(self, now_s: float, tried: frozenset[str] = frozenset()) -> tuple[WorkerView, ...]:
        """The usable workers with their work, each request once, for one that was `tried` on some."""
        return tuple([self._kept(w, now_s) for _, w in _usable(self._workers, tried)])

    def _kept(self, state: WorkerState, now_s: float) -> WorkerView:
        view = state.view
        if view is not None:
            lasts = _VIEW_SECONDS if view.active else _RESTING_VIEW_SECONDS
            if 0.0 <= now_s - state.view_s < lasts:
                return view
        state.view, state.view_s = self._view(state, now_s), now_s
        return state.view

    def _view(self, state: WorkerState, now_s: float) -> WorkerView:
        report = state.report
        assert report is not None
        assert report.profile is not None
        profile = state.drift.applied(report.profile)
        active: list[tuple[int, float]] = []  # remaining steps, as of when
        queued: list[int] = []
        seen: set[str] = set()
        for request_id, remaining in report.active:
            seen.add(request_id)
            flight = state.flights.get(request_id)
            if flight is not None and flight.progress_s > state.asked_s:
                active.append((flight.remaining, flight.progress_s))
            elif request_id not in state.ended:
                active.append((remaining, state.asked_s))
        for request_id, remaining in report.queued:
            seen.add(request_id)
            flight = state.flights.get(request_id)
            if flight is not None and flight.active:
                active.append((flight.remaining, flight.progress_s))
            elif request_id not in state.ended:
                queued.append(remaining)
        for request_id, flight in state.flights.items():
            if request_id in seen:
                continue
            if flight.active:
                active.append((flight.remaining, flight.progress_s))
            else:
                queued.append(flight.steps)
        tick = profile.tick_seconds(max(1, min(len(active), profile.max_batch)))
        aged = (max(1, r - int(max(0.0, now_s - at) / tick)) for r, at in active)
        return WorkerView(
            name=state.endpoint.name,
            profile=profile,
            assigned_skipped_steps=state.endpoint.assigned_skipped_steps,
            active=tuple(aged),
            queued=tuple(queued),
            proven=state.drift.proven(now_s),
            model=report.model,
        )

    def _cut(self, report: WorkerReport) -> WorkerReport:
        """With the profile cut to the batch that the service allows; one of other steps than its model's is
        none.
        """
        profile = report.profile
        assert profile is not None
        kept: Profile | None = None
        if profile.steps == self._steps.get(report.model):
            kept = replace(profile, step_seconds=profile.step_seconds[: self._max_batch])
        return replace(report, profile=kept)


def _usable(
    workers: Mapping[str, WorkerState], tried: frozenset[str] = frozenset()
) -> list[tuple[str, WorkerState]]:
    """Without those that keep failing, or have not answered the last poll in time, unless no other is left to
    try: better than to refuse. A worker that hangs would else be sent requests until it counts as lost.
    """
    usable = [(name, w) for name, w in workers.items() if w.usable]
    good = [(name, w) for name, w in usable if not w.barred and not w.misses]
    return good if any(name not in tried for name, _ in good) else usable
