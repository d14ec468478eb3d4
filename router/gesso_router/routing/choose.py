"""Chooses K and worker for one prompt by price.

The pair (K, worker) that maximises q(K) - price x work(K) among those that make the deadline. Every
worker serves every K. Below the price come, in quality units too small to overrule it: an early
finish, the worker's assigned level. A pair makes the deadline if its estimate times the margin
does; if none does, the request is refused at once, with the time after which it is worth trying
again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from gesso.profile import Profile
from gesso_router.routing.estimate import (
    NO_ARRIVALS,
    Arrivals,
    backlog_seconds,
    estimate,
    work_seconds,
)
from gesso_router.routing.price import (
    Price,
    PricePolicy,
    backlog_price,
    current_price,
    plan_price_now,
)
from gesso_router.routing.quality import Option


@dataclass(frozen=True)
class WorkerView:
    """A worker that may take a request now.

    `profile` is cut to the largest batch allowed; `active` and `queued` are remaining steps, the
    queue in order.
    """

    name: str
    profile: Profile
    assigned_skipped_steps: int = 0
    active: tuple[int, ...] = ()
    queued: tuple[int, ...] = ()
    #: Whether an image has lately shown that the profile holds.
    proven: bool = True


@dataclass(frozen=True)
class FleetView:
    """What the router knows of its fleet at one moment."""

    workers: tuple[WorkerView, ...]
    slo_seconds: float
    plan_price: float = 0.0
    #: Requests a second that the whole fleet takes, and the steps they take on average: who will
    #: follow.
    arrivals_per_second: float = 0.0
    mean_steps: float = 1.0
    #: Seconds to fetch latents from another worker.
    fetch_seconds: float = 0.005
    #: Actual over estimated latency that is exceeded 5 % of the time.
    margin: float = 1.25


@dataclass(frozen=True)
class Ask:
    """One prompt: how it may be served, and by when."""

    options: tuple[Option, ...]
    steps: int
    deadline_seconds: float  # from now
    min_quality: float = 0.0
    exclude: frozenset[str] = frozenset()  # workers that failed it
    #: Take the fastest pair if none makes the deadline: for a retry, where late beats lost.
    accept_late: bool = False


@dataclass(frozen=True)
class ChoicePolicy:
    """Constants of the choice, besides those of the price."""

    price: PricePolicy = field(default_factory=PricePolicy)
    #: Quality that finishing a whole deadline earlier is worth: spreads load, and breaks ties
    #: between workers.
    finish_weight: float = 0.004
    #: Quality that staying on the worker assigned to K is worth.
    assigned_weight: float = 0.0004
    #: Seconds between router and worker, both ways, that no estimate holds.
    overhead_seconds: float = 0.01
    #: An idle worker whose profile is not proven is tried with a request that would take up to so
    #: many times its deadline: a profile measured at a bad moment must not refuse everyone for
    #: ever.
    probe_factor: float = 3.0
    #: Bounds of retry-after, seconds.
    retry_after_bounds: tuple[float, float] = (0.2, 60.0)


@dataclass(frozen=True)
class Choice:
    """What is to be done.

    `reason` is `price` (the best trade), `deadline` (only a larger K makes it), `probe` (to find
    out whether an idle worker is as slow as it says) or `late`.
    """

    worker: str
    option: Option
    start_seconds: float
    finish_seconds: float
    price: Price
    reason: str

    @property
    def skipped_steps(self) -> int:
        """K."""
        return self.option.skipped_steps


@dataclass(frozen=True)
class Refusal:
    """Why not: `no-worker`, `quality-floor` (only a K below the floor would make it) or `deadline`."""

    reason: str
    message: str
    retry_after_seconds: float


@dataclass(frozen=True)
class _Pair:
    worker: WorkerView
    option: Option
    start: float
    finish: float
    utility: float


def fleet_backlog_seconds(workers: Collection[WorkerView]) -> float:
    """Worker-seconds of accepted work per worker; 0 without workers."""
    if not workers:
        return 0.0
    return sum(backlog_seconds(w.profile, w.active, w.queued) for w in workers) / len(workers)


def fleet_price(fleet: FleetView, policy: ChoicePolicy) -> Price:
    """The price of a worker-second for the fleet as it stands."""
    if not fleet.workers:
        return current_price(fleet.plan_price, 0.0)
    full_work = _mean_work_seconds(fleet.workers, 0)
    backlog = fleet_backlog_seconds(fleet.workers)
    live = backlog_price(policy.price, backlog, fleet.slo_seconds, full_work)
    batch = sum(w.profile.max_batch for w in fleet.workers) / len(fleet.workers)
    return current_price(plan_price_now(fleet.plan_price, backlog, batch * full_work), live)


def choose(ask: Ask, fleet: FleetView, policy: ChoicePolicy) -> Choice | Refusal:
    """K and worker for one prompt, or why it is refused."""
    workers = [w for w in fleet.workers if w.name not in ask.exclude]
    if not workers:
        return Refusal("no-worker", "no worker is ready", 1.0)
    price = fleet_price(fleet, policy)
    allowed = [o for o in ask.options if o.quality >= ask.min_quality or o.skipped_steps == 0]
    pairs = _pairs(ask, fleet, policy, workers, allowed, price)
    best = max(pairs, key=_rank)
    if _makes(best, ask, fleet, policy):
        return _choice(best, price, "price")
    in_time = [p for p in pairs if _makes(p, ask, fleet, policy)]
    if in_time:
        chosen = max(in_time, key=_rank)
        skips_more = chosen.option.skipped_steps > best.option.skipped_steps
        return _choice(chosen, price, "deadline" if skips_more else "price")
    fastest = min(pairs, key=lambda p: (p.finish, p.worker.name))
    probes = [p for p in pairs if _may_probe(p, ask, fleet, policy)]
    if probes:
        return _choice(min(probes, key=lambda p: (p.finish, p.worker.name)), price, "probe")
    if ask.accept_late:
        return _choice(fastest, price, "late")
    return _refusal(ask, fleet, policy, workers, fastest, allowed)


def _mean_work_seconds(workers: Collection[WorkerView], skipped_steps: int) -> float:
    """Worker-seconds of an image at K on the average worker.

    The price is per second of that one, whoever serves: a second of a faster worker is dearer by as
    much as it does more, else every prompt would crowd onto the fastest.
    """
    return sum(work_seconds(w.profile, skipped_steps) for w in workers) / len(workers)


def _arrivals(fleet: FleetView) -> Arrivals:
    rate = fleet.arrivals_per_second / len(fleet.workers)
    return Arrivals(1 / rate, max(1, round(fleet.mean_steps))) if rate > 0 else NO_ARRIVALS


def _pairs(
    ask: Ask,
    fleet: FleetView,
    policy: ChoicePolicy,
    workers: Sequence[WorkerView],
    options: Sequence[Option],
    price: Price,
) -> list[_Pair]:
    arrivals = _arrivals(fleet)
    steps = [ask.steps - o.skipped_steps for o in options]
    costs = [price.value * _mean_work_seconds(fleet.workers, o.skipped_steps) for o in options]
    pairs = []
    for worker in workers:
        times = estimate(worker.profile, worker.active, worker.queued, steps, arrivals)
        for option, cost, finish in zip(options, costs, times.finish_seconds, strict=True):
            away = option.match is not None and option.match.worker != worker.name
            fetch = fleet.fetch_seconds if away else 0.0
            utility = (
                option.quality - cost - policy.finish_weight * (finish + fetch) / fleet.slo_seconds
            )
            if worker.assigned_skipped_steps == option.skipped_steps:
                utility += policy.assigned_weight
            pairs.append(
                _Pair(worker, option, times.start_seconds + fetch, finish + fetch, utility)
            )
    return pairs


def _rank(pair: _Pair) -> tuple[float, float, str]:
    return (pair.utility, -pair.finish, pair.worker.name)


def _makes(pair: _Pair, ask: Ask, fleet: FleetView, policy: ChoicePolicy) -> bool:
    return pair.finish * fleet.margin + policy.overhead_seconds <= ask.deadline_seconds


def _may_probe(pair: _Pair, ask: Ask, fleet: FleetView, policy: ChoicePolicy) -> bool:
    worker = pair.worker
    idle = not worker.active and not worker.queued
    needed = pair.finish * fleet.margin + policy.overhead_seconds
    return idle and not worker.proven and needed <= ask.deadline_seconds * policy.probe_factor


def _choice(pair: _Pair, price: Price, reason: str) -> Choice:
    return Choice(pair.worker.name, pair.option, pair.start, pair.finish, price, reason)


def _refusal(
    ask: Ask,
    fleet: FleetView,
    policy: ChoicePolicy,
    workers: Sequence[WorkerView],
    fastest: _Pair,
    allowed: Sequence[Option],
) -> Refusal:
    low, high = policy.retry_after_bounds
    needed = fastest.finish * fleet.margin + policy.overhead_seconds
    wait = min(high, max(low, needed - ask.deadline_seconds))
    told = f"the earliest finish is in {needed:.2f} s, the deadline in {max(0.0, ask.deadline_seconds):.2f} s"
    barred = [o for o in ask.options if o not in allowed]
    if barred:
        pairs = _pairs(ask, fleet, policy, workers, barred, Price(0.0, "idle"))
        if any(_makes(p, ask, fleet, policy) for p in pairs):
            return Refusal(
                "quality-floor",
                f"{told}; skipping more steps falls below quality {ask.min_quality:g}",
                wait,
            )
    return Refusal("deadline", told, wait)
