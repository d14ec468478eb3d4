"""Bounds for a fleet that grows and shrinks: least worker-hours at a quality, and the converse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .frontier import hull
from .instance import BoundInstance, Elastic, Floats, Ints
from .program import Program, Terms
from .slots import Slots, typical_slopes, upgrade_lines

#: Tangents of each slot's frontier.
_TANGENTS = 20


@dataclass(frozen=True)
class ElasticBound:
    """What an elastic fleet can reach at best; not `feasible` where its largest size cannot reach the aim."""

    feasible: bool
    worker_hours: float
    violation_ratio: float
    relative_quality: float


def least_worker_hours(instance: BoundInstance, *, informed: bool) -> ElasticBound:
    """The fewest worker-hours at which any policy reaches `elastic.min_quality` and `elastic.max_violations`.

    The linear programme, over slots t: paid workers n, starts u, stops d, work executed x, work left b,
    upgrade work per price g, shed requests y:

        n_t = n_{t-1} + u_t - d_t,              min <= n_t <= max
        x_t <= slot x (n_t - u_t - ... - u_{t-L+1})            L: whole slots of the start-up time
        b_t = b_{t-1} + base_t + sum g_t - dearest_t y_t - x_t,        b_t <= x_{t+1} + ... + x_{t+reach-1}
        sum of qualities >= min_quality x served,              sum y <= max_violations x requests

    Relaxed: workers are divisible and work is spread over them at will; the first fleet is free to choose; a
    slot's requests have all its windows together; frontiers are replaced by tangents above them; what is shed
    costs its slot's least quality and frees its slot's dearest work. A start in the middle of a slot is a
    mixture of starts at both its ends, and so within the programme.
    """
    _, bound = _solve(instance, informed, None)
    return bound


def best_quality_within(
    instance: BoundInstance, worker_hours: float, *, informed: bool
) -> ElasticBound:
    """The converse: the best mean quality at that many worker-hours, and at most `elastic.max_violations`.

    The mean over the served is a ratio: found by Dinkelbach's iteration, which ends at the programme's optimum.
    """
    quality = 1.0
    best = ElasticBound(False, worker_hours, 0.0, 0.0)
    for _ in range(6):
        surplus, bound = _solve(instance, informed, (worker_hours, quality))
        if not bound.feasible:
            return bound
        best = bound
        if abs(surplus) < 1e-6 * max(1, instance.arrivals_s.size):
            break
        quality = bound.relative_quality
    return best


def _solve(
    instance: BoundInstance, informed: bool, within: tuple[float, float] | None
) -> tuple[float, ElasticBound]:
    elastic = instance.elastic
    if elastic is None:
        raise ValueError("elastic: None is not allowed: the fleet's bounds and aim")
    service = instance.service_s[0]
    cost = np.where(service <= instance.slo_s, service, np.inf)
    segments = hull(instance.curves(informed=informed), cost, None)
    slots = Slots.cover(
        instance.arrivals_s, instance.slo_s, elastic.slot_seconds, instance.horizon_s
    )
    n = instance.arrivals_s.size
    served = segments.work[:, 0] > 0
    lost = n - int(served.sum())
    base_work = slots.sum(segments.work[:, 0])
    base_quality = slots.sum(segments.quality[:, 0])
    can = np.flatnonzero(served)
    held = Slots(slots.seconds, slots.count, slots.of_request[can], slots.reach)
    dearest = held.extreme(segments.work[can, 0], largest=True)
    poorest = held.extreme(segments.quality[can, 0], largest=False)
    lengths, slopes = upgrade_lines(segments, slots, typical_slopes(segments, _TANGENTS))

    program = Program()
    workers = _fleet(program, slots, elastic, instance.horizon_s)
    shed = program.variables(slots.count, upper=slots.sum(served.astype(np.float64)))
    used = np.flatnonzero(lengths.ravel() > 0)
    gain = slopes.ravel()[used]
    upgrade = program.variables(used.size, upper=lengths.ravel()[used])
    _work(
        program, slots, workers.ready, base_work, shed, dearest, upgrade, used // lengths.shape[1]
    )
    program.total([(shed, 1.0)], elastic.max_violations * n - lost)

    floor = elastic.min_quality if within is None else within[1]
    surplus = [(upgrade, -gain), (shed, poorest - floor)]
    spare = float(base_quality.sum() - floor * (n - lost))
    if within is None:
        program.total(surplus, spare)
        value, x = _least(program, [(workers.paid, workers.hours)])
        over = 0.0
    else:
        program.total([(workers.paid, workers.hours)], within[0])
        value, x = _least(program, surplus)
        over = spare - value
    if not np.isfinite(value):
        return 0.0, ElasticBound(False, np.inf, 1.0, 0.0)
    dropped = float(x[shed].sum())
    taken = n - lost - dropped
    quality = float(base_quality.sum() - poorest @ x[shed] + gain @ x[upgrade])
    return over, ElasticBound(
        True,
        float((x[workers.paid] * workers.hours).sum()),
        (lost + dropped) / n if n else 0.0,
        quality / taken if taken > 0 else 0.0,
    )


@dataclass(frozen=True)
class _Fleet:
    paid: Ints
    hours: Floats
    ready: Terms


def _fleet(program: Program, slots: Slots, elastic: Elastic, end_s: float) -> _Fleet:
    """Paid workers with their starts and stops; the terms whose sum is the ready ones, slot by slot."""
    count = slots.count
    start = np.arange(count) * slots.seconds
    whole = start + slots.seconds <= end_s + 1e-9
    hours = np.where(start < end_s, slots.seconds, 0.0) / 3600
    # In a slot that is paid for in part only, the average may be less than the fewest workers.
    paid = program.variables(
        count, lower=np.where(whole, elastic.min_workers, 0.0), upper=float(elastic.max_workers)
    )
    starts, stops = program.variables(count), program.variables(count)
    program.rows(
        [(paid[1:], 1.0), (paid[:-1], -1.0), (starts[1:], -1.0), (stops[1:], 1.0)], 0.0, equal=True
    )
    nowhere = program.variables(1, upper=0.0)
    ready: list[tuple[Ints, Floats | float]] = [(paid, 1.0)]
    for ago in range(math.floor(elastic.start_seconds / slots.seconds + 1e-9)):
        earlier = np.concatenate(
            (np.repeat(nowhere, min(ago, count)), starts[: max(count - ago, 0)])
        )
        ready.append((earlier, -1.0))
    return _Fleet(paid, hours, ready)


def _work(
    program: Program,
    slots: Slots,
    ready: Terms,
    base_work: Floats,
    shed: Ints,
    dearest: Floats,
    upgrade: Ints,
    slot_of_upgrade: Ints,
) -> None:
    """Work done within capacity, and before its deadline."""
    count = slots.count
    done, left = program.variables(count), program.variables(count)
    program.rows([(done, 1.0), *((v, -slots.seconds * c) for v, c in ready)], 0.0)
    chosen = program.variables(count)
    sums = program.rows([(chosen, 1.0), (shed, dearest)], base_work, equal=True)
    program.also(sums[slot_of_upgrade], upgrade, -1.0)
    before = np.concatenate((program.variables(1, upper=0.0), left[:-1]))
    program.rows([(left, 1.0), (before, -1.0), (chosen, -1.0), (done, 1.0)], 0.0, equal=True)
    # The last slots lie after every deadline: what is left there is not held to one.
    last = count - (slots.reach - 1)
    program.rows(
        [(left[:last], 1.0), *((done[k : last + k], -1.0) for k in range(1, slots.reach))], 0.0
    )


def _least(program: Program, objective: Terms) -> tuple[float, Floats]:
    program.aim(objective)
    solution = program.solve()
    return solution.cost, solution.x
