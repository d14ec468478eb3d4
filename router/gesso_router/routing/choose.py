"""Chooses K and worker for one prompt by price.

The pair (K, worker) that maximises q(K) - price x work(K) among those that make the deadline. Every
worker serves every K of the model it holds. Below the price come, in quality units too small to
overrule it: an early finish, the worker's assigned level. A pair makes the deadline if its estimate
times the margin does; if none does, the request is refused at once, with the time after which it is
worth trying again.

Workers of one device class that hold one model form a pool. All levels are weighed on the worker of
each pool with the least backlog; which worker of the pool then serves is decided for the chosen
level alone, between that one, the next, the holder of the latents and the least loaded worker
assigned to the level. So the cost of a decision hardly grows with the fleet.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from gesso_router.routing.estimate import NO_ARRIVALS, Arrivals, estimate
from gesso_router.routing.price import (
    Price,
    PricePolicy,
    backlog_price,
    current_price,
    plan_price_at,
    plan_price_now,
)
from gesso_router.routing.quality import Option
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal, WorkerView

__all__ = [
    "Ask",
    "Choice",
    "ChoicePolicy",
    "FleetView",
    "Refusal",
    "WorkerView",
    "choose",
    "fleet_backlog_seconds",
    "fleet_price",
]


@dataclass(frozen=True)
class ChoicePolicy:
    """Constants of the choice, besides those of the price."""

    price: PricePolicy = field(default_factory=PricePolicy)
    #: Whether the plan's prices count; without them only the live backlog does.
    use_plan_price: bool = True
    #: Where workers batch, the share of the backlog's own price that the plan's curve does not fall below: a
    #: batch holds many seconds of work, so that a rate that rises is known late (docs/decisions/0005).
    batch_share: float = 0.5
    #: Whether the prompt's own quality curve counts; without it all prompts count as the mean one.
    prompt_aware: bool = True
    #: Quality that finishing a whole deadline earlier is worth: spreads load, and breaks ties
    #: between workers.
    finish_weight: float = 0.004
    #: Quality that staying on the worker assigned to K is worth.
    assigned_weight: float = 0.0004
    #: Seconds between router and worker, both ways, that no estimate holds.
    overhead_seconds: float = 0.01
    #: Quality that refusing an image costs beyond its own, as the planner reckons it. Where seconds are so dear
    #: that refusing is the better trade, the prompts that lose most are refused first.
    refusal_cost: float = 10.0
    #: How much more must be lost before a prompt is refused, by the share of its time that is left: an overload
    #: ends, and what waits then is what was not refused. So the queue fills while the worst are refused.
    refusal_tilt: float = 2.0
    #: An idle worker whose profile is not proven is tried with a request that would take up to so
    #: many times its deadline: a profile measured at a bad moment must not refuse everyone for
    #: ever.
    probe_factor: float = 3.0
    #: Bounds of retry-after, seconds.
    retry_after_bounds: tuple[float, float] = (0.2, 60.0)


_backlog_of = attrgetter("backlog_seconds")


class _Pool:
    """Workers of one device class that hold one model: how many, their backlog in sum, the least loaded.

    `charge` is what a second of one of the workers costs, in relative quality.
    """

    __slots__ = ("backlog", "charge", "count", "device", "least", "members", "model")

    def __init__(self, device: str, model: str, members: Sequence[WorkerView]) -> None:
        self.device = device
        self.model = model
        self.members = members
        self.count = len(members)
        self.backlog: float = sum([w.backlog_seconds for w in members])
        self.least: WorkerView = min(members, key=_backlog_of)
        self.charge = 0.0

    def second(self) -> WorkerView | None:
        """The least loaded but one."""
        return min([w for w in self.members if w is not self.least], key=_backlog_of, default=None)

    def assigned(self, level: int) -> WorkerView | None:
        """The least loaded worker assigned to a level."""
        mine = [w for w in self.members if w.assigned_skipped_steps == level]
        return min(mine, key=_backlog_of, default=None)


class _Pair(NamedTuple):
    worker: WorkerView
    option: Option
    start: float
    finish: float
    utility: float
    pool: _Pool


def fleet_backlog_seconds(workers: Collection[WorkerView]) -> float:
    """Worker-seconds of accepted work per worker; 0 without workers."""
    if not workers:
        return 0.0
    return sum(w.backlog_seconds for w in workers) / len(workers)


def fleet_price(fleet: FleetView, policy: ChoicePolicy) -> Price:
    """The price of an average second of the workers that hold the service's own model, as the fleet stands."""
    pools = [p for p in _pools(fleet.workers) if not p.model]
    return _price("", pools, fleet, policy)


def choose(ask: Ask, fleet: FleetView, policy: ChoicePolicy) -> Choice | Refusal:
    """K and worker for one prompt, or why it is refused."""
    workers: Sequence[WorkerView] = fleet.workers
    if ask.exclude:
        workers = [w for w in workers if w.name not in ask.exclude]
    if not workers:
        return Refusal("no-worker", "no worker is ready", 1.0)
    pools = _pools(workers)
    prices = _charged(pools, fleet, policy)
    arrivals = _arrivals(fleet)
    floor = ask.min_quality
    allowed = [
        o for o in ask.options if o.quality >= floor or (o.skipped_steps == 0 and not o.model)
    ]
    pairs: list[_Pair] = []
    for pool in pools:
        pairs += _pairs(pool, pool.least, ask, allowed, fleet, policy, arrivals)
    limit = (ask.deadline_seconds - policy.overhead_seconds) / fleet.margin
    best = in_time = None
    for pair in pairs:
        # Most lose clearly: there is no call for these.
        utility = pair.utility
        if best is None or (utility >= best.utility and _better(pair, best)):
            best = pair
        if pair.finish <= limit and (
            in_time is None or (utility >= in_time.utility and _better(pair, in_time))
        ):
            in_time = pair
    if in_time is not None and best is not None:
        room = 1.0 - in_time.finish / limit
        worth = -policy.refusal_cost - policy.refusal_tilt * room
        if in_time.utility < worth and not ask.accept_late:
            wait = max(policy.retry_after_bounds[0], in_time.start)
            told = "more prompts come than can be served, and others lose less by being served fast"
            return Refusal("overload", told, min(wait, policy.retry_after_bounds[1]))
        reason = "price"
        if in_time is not best and in_time.option.skipped_steps > best.option.skipped_steps:
            reason = "deadline"
        chosen = _placed(in_time, ask, fleet, policy, arrivals)
        return _choice(chosen, prices[chosen.pool.model], reason)
    if not pairs:
        return Refusal("no-worker", "no ready worker holds a model that may serve it", 1.0)
    fastest = min(pairs, key=lambda p: (p.finish, p.worker.name))
    probe = _probe(ask, workers, allowed, fleet, policy, arrivals)
    if probe is not None:
        return _choice(probe, prices[probe.pool.model], "probe")
    if ask.accept_late:
        return _choice(fastest, prices[fastest.pool.model], "late")
    return _refusal(ask, fleet, policy, pools, fastest, allowed, arrivals)


def _pools(workers: Sequence[WorkerView]) -> list[_Pool]:
    """The pools, in passes that do little: at a thousand workers they are most of a decision's time."""
    if not workers:
        return []
    device, model = workers[0].profile.device, workers[0].model
    if all(w.model == model and w.profile.device == device for w in workers):
        return [_Pool(device, model, workers)]
    members: dict[tuple[str, str], list[WorkerView]] = {}
    for worker in workers:
        members.setdefault((worker.profile.device, worker.model), []).append(worker)
    return [_Pool(device, model, mine) for (device, model), mine in members.items()]


def _charged(pools: Sequence[_Pool], fleet: FleetView, policy: ChoicePolicy) -> dict[str, Price]:
    """Sets each pool's charge; gives the price of an average second by model.

    A second of a better device is dearer: by what the plan says it is worth, else by its speed, so
    that prompts do not crowd onto the fastest. Each pool is priced at its own backlog, so that none
    waits long beside another that idles.
    """
    worths = fleet.plan.device_worth if fleet.plan is not None and policy.use_plan_price else ()
    if len(pools) == 1:
        price = _price(pools[0].model, pools, fleet, policy)
        pools[0].charge = price.value
        return {pools[0].model: price}
    prices = {}
    for model in {p.model for p in pools}:
        mine = [p for p in pools if p.model == model]
        price = prices[model] = _price(model, mine, fleet, policy)
        if len(mine) == 1:
            mine[0].charge = price.value
            continue
        full_work = _mean_full_work(mine)
        by_device = {} if model else dict(worths)
        for pool in mine:
            by_speed = full_work / pool.least.profile.work_seconds(0)
            own = _price(model, [pool], fleet, policy)
            pool.charge = own.value * by_device.get(pool.device, by_speed)
    return prices


def _price(model: str, pools: Sequence[_Pool], fleet: FleetView, policy: ChoicePolicy) -> Price:
    """The price of an average second of the pools that hold a model."""
    count = sum([p.count for p in pools])
    if not count:
        return Price(0.0, "idle")
    backlog = sum([p.backlog for p in pools]) / count
    plan = fleet.plan if policy.use_plan_price else None
    curve = plan.price_curve if plan is not None and not model else ()
    batching = any(p.least.profile.max_batch > 1 for p in pools)
    if curve and not batching:
        return plan_price_at(curve, backlog)
    full_work = _mean_full_work(pools)
    live = backlog_price(policy.price, backlog, fleet.slo_seconds, full_work)
    if curve:
        return current_price(plan_price_at(curve, backlog).value, policy.batch_share * live)
    if plan is None:
        return current_price(0.0, live)
    worth = plan.price if not model else plan.price * dict(plan.device_worth).get(model, 0.0)
    batch = sum(p.count * p.least.profile.max_batch for p in pools) / count
    return current_price(plan_price_now(worth, backlog, batch * full_work), live)


def _mean_full_work(pools: Sequence[_Pool]) -> float:
    """Worker-seconds of an image in full on the average worker of some pools."""
    work = sum(p.count * p.least.profile.work_seconds(0) for p in pools)
    return work / sum(p.count for p in pools)


def _arrivals(fleet: FleetView) -> Arrivals:
    rate = fleet.arrivals_per_second / len(fleet.workers) if fleet.workers else 0.0
    return Arrivals(1 / rate, max(1, round(fleet.mean_steps))) if rate > 0 else NO_ARRIVALS


def _pairs(
    pool: _Pool,
    worker: WorkerView,
    ask: Ask,
    options: Sequence[Option],
    fleet: FleetView,
    policy: ChoicePolicy,
    arrivals: Arrivals,
) -> list[_Pair]:
    """The options that a worker of a pool can serve, each with its times and utility."""
    model = pool.model
    mine = [o for o in options if o.model == model]
    if not mine:
        return []
    full = worker.profile.steps if model else ask.steps
    steps = [full - o.skipped_steps for o in mine]
    if min(steps) < 1:
        steps = [max(1, n) for n in steps]
    times = estimate(worker.profile, worker.active, worker.queued, steps, arrivals)
    # Work by the pool's own worker: those of one pool differ by when they finish alone.
    reference = pool.least.profile
    fixed = pool.charge * reference.fixed_seconds
    step = pool.charge * reference.busy_step_seconds
    hurry = policy.finish_weight / fleet.slo_seconds
    name, assigned, fetch = worker.name, worker.assigned_skipped_steps, fleet.fetch_seconds
    prompt_aware, begins = policy.prompt_aware, times.start_seconds
    pairs = []
    for option, n, finish in zip(mine, steps, times.finish_seconds, strict=True):
        start, match, level = begins, option.match, option.skipped_steps
        if match is not None and match.worker != name:
            start += fetch
            finish += fetch
        quality = option.quality
        if not prompt_aware:
            quality = fleet.mean_quality.get((model, level), quality)
        utility = quality - fixed - n * step - hurry * finish
        if assigned == level:
            utility += policy.assigned_weight
        pairs.append(_Pair(worker, option, start, finish, utility, pool))
    return pairs


def _placed(
    pair: _Pair,
    ask: Ask,
    fleet: FleetView,
    policy: ChoicePolicy,
    arrivals: Arrivals,
) -> _Pair:
    """The same option on the worker of the pool that suits it best."""
    pool, option = pair.pool, pair.option
    holder = option.match.worker if option.match is not None else pair.worker.name
    others = []
    if pair.worker.assigned_skipped_steps != option.skipped_steps:
        others.append(pool.assigned(option.skipped_steps))
    if pair.worker.profile.max_batch > 1:
        # Where requests share a batch, the least backlog need not be the earliest finish.
        others.append(pool.second())
    if holder and holder != pair.worker.name:
        others += [w for w in fleet.workers if w.name == holder and w.model == pool.model]
    if not others:
        return pair
    seen = {pair.worker.name, *ask.exclude}
    best = pair
    limit = (ask.deadline_seconds - policy.overhead_seconds) / fleet.margin
    for worker in others:
        if worker is None or worker.name in seen:
            continue
        seen.add(worker.name)
        for other in _pairs(pool, worker, ask, (option,), fleet, policy, arrivals):
            if other.finish <= limit and _better(other, best):
                best = other
    return best


def _better(pair: _Pair, other: _Pair) -> bool:
    """By utility; of equals the one that finishes first, then by name: equal input gives equal output."""
    if pair.utility != other.utility:
        return pair.utility > other.utility
    return (-pair.finish, pair.worker.name) > (-other.finish, other.worker.name)


def _probe(
    ask: Ask,
    workers: Sequence[WorkerView],
    options: Sequence[Option],
    fleet: FleetView,
    policy: ChoicePolicy,
    arrivals: Arrivals,
) -> _Pair | None:
    """An idle worker that may be faster than its unproven profile says."""
    most = ask.deadline_seconds * policy.probe_factor
    pairs = [
        pair
        for w in workers
        if not w.proven and not w.active and not w.queued
        for pair in _pairs(
            _Pool(w.profile.device, w.model, (w,)), w, ask, options, fleet, policy, arrivals
        )
        if pair.finish * fleet.margin + policy.overhead_seconds <= most
    ]
    return min(pairs, key=lambda p: (p.finish, p.worker.name), default=None)


def _choice(pair: _Pair, price: Price, reason: str) -> Choice:
    return Choice(pair.worker.name, pair.option, pair.start, pair.finish, price, reason)


def _refusal(
    ask: Ask,
    fleet: FleetView,
    policy: ChoicePolicy,
    pools: Sequence[_Pool],
    fastest: _Pair,
    allowed: Sequence[Option],
    arrivals: Arrivals,
) -> Refusal:
    low, high = policy.retry_after_bounds
    needed = fastest.finish * fleet.margin + policy.overhead_seconds
    wait = min(high, max(low, needed - ask.deadline_seconds))
    told = f"the earliest finish is in {needed:.2f} s, the deadline in {max(0.0, ask.deadline_seconds):.2f} s"
    barred = [o for o in ask.options if o not in allowed]
    limit = (ask.deadline_seconds - policy.overhead_seconds) / fleet.margin
    for pool in pools if barred else ():
        pairs = _pairs(pool, pool.least, ask, barred, fleet, policy, arrivals)
        if any(p.finish <= limit for p in pairs):
            return Refusal(
                "quality-floor",
                f"{told}; skipping more steps falls below quality {ask.min_quality:g}",
                wait,
            )
    return Refusal("deadline", told, wait)
