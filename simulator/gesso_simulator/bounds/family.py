"""Bounds for a fleet whose workers move between models, and pay for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from .frontier import hull
from .instance import BoundInstance, Floats, Ints, Models
from .program import Program
from .slots import Slots, typical_slopes

#: What serving a request is worth beside its quality: above what any request's work could buy others.
_BONUS = 5.0
_TANGENTS = 8
#: Prices per model that tangents with a price of its own per model are tried at.
_APART = 6
#: Slots are no more than about this, so that the programme stays small.
_MOST_SLOTS = 1500


@dataclass(frozen=True)
class FamilyBound:
    """Least violations, best mean quality there, and the (divisible) workers that the optimum moves."""

    violation_ratio: float
    relative_quality: float
    switches: float


def least_violations_of_family(
    instance: BoundInstance, *, informed: bool, slot_seconds: float | None = None
) -> FamilyBound:
    """The least violation ratio that any policy reaches with these models, and the best mean quality there.

    The linear programme, over slots t and models m: workers that hold m (n), that leave a for b (f), work
    chosen (w), done (x) and left (b), and the worth g of what is served:

        n_tm = n_{t-1,m} - sum_b f_{t,mb} + sum_a f_{t-L(a,m),am}              L: whole slots of the switch
        x_tm <= slot x n_tm,    b_tm = b_{t-1,m} + w_tm - x_tm <= x_{t+1,m} + ... + x_{t+reach-1,m}
        g_t <= A_t(p) + sum_m p_m w_tm                                             for prices p, with
        A_t(p) = sum over its requests of max(0, max_k bonus + quality_k - p_m(k) service_k)

    The last line says that the slot's frontier lies under its tangents, at a grid of prices.

    First the most that can be served (no quality, bonus 1); then quality, where serving is worth so much that
    it comes first: optimum - bonus x served bounds the sum of qualities whatever the bonus.

    Relaxed: workers are divisible, a slot's requests have all its windows together, the first workers choose
    their model unless `models.first` says. A switch in the middle of a slot is a mixture of switches at both
    its ends, and so within the programme.
    """
    models = instance.models
    if models is None:
        raise ValueError("models: None is not allowed: the models of the variants")
    n = instance.arrivals_s.size
    if n == 0:
        return FamilyBound(0.0, 0.0, 0.0)
    slots = Slots.cover(
        instance.arrivals_s,
        instance.slo_s,
        slot_seconds or slot_length(instance, models),
        float(instance.arrivals_s[-1]) + instance.slo_s,
    )
    curves = instance.curves(informed=informed)
    flat = np.where(np.isnan(curves), np.nan, 0.0)
    served, _ = _optimum(instance, models, slots, flat, 1.0)
    servable = int((~np.isnan(curves)).any(axis=1).sum())
    served = min(served, float(servable))
    if served <= 1e-6:
        return FamilyBound(1.0, 0.0, 0.0)
    if servable - served < 1e-5 * n:
        served = float(servable)
    worth, switches = _optimum(instance, models, slots, curves, _BONUS)
    quality = (worth - _BONUS * served) / served
    return FamilyBound(1.0 - served / n, quality, switches)


def slot_length(instance: BoundInstance, models: Models) -> float:
    """Slots that a switch takes a whole number of, and whose windows are as short as can be (seconds)."""
    costs = models.switch_seconds[models.switch_seconds > 0]
    span = float(instance.arrivals_s[-1]) + instance.slo_s
    least = max(instance.slo_s / 4, span / _MOST_SLOTS)
    if costs.size == 0 or costs.min() < least:
        return max(instance.slo_s / 2, least)
    whole = float(costs.min())
    lengths = [whole / parts for parts in range(1, math.floor(whole / least) + 1)]
    return min(lengths, key=lambda s: (round(s * math.ceil(1 + instance.slo_s / s - 1e-9), 6), -s))


def _optimum(
    instance: BoundInstance, models: Models, slots: Slots, curves: Floats, bonus: float
) -> tuple[float, float]:
    """The most of bonus x served + quality, and the switches made for it."""
    families = models.switch_seconds.shape[0]
    service = np.where(instance.service_s[0] <= instance.slo_s, instance.service_s[0], np.inf)
    usable = ~np.isnan(curves) & np.isfinite(service)
    worth = np.where(usable, curves + bonus, -np.inf)
    price_of = models.of_variant
    steep = np.array(
        [
            (worth[:, price_of == m] / service[price_of == m]).max(initial=0.0)
            for m in range(families)
        ]
    ).clip(min=0.0)
    slopes = typical_slopes(hull(curves, service, bonus), _TANGENTS)
    # Where a worker moves freely its time is worth the same on every model; a price of its own per model is
    # for the rest.
    common = [np.minimum(p, steep) for p in (*slopes, 0.0)]
    few = (0.0, *slopes[:: max(1, math.ceil(slopes.size / _APART))], np.inf)
    apart = [np.minimum(np.array(own), steep) for own in product(few, repeat=families)]
    tangents = np.unique([*common, *apart], axis=0)
    heights = []
    for tangent in tangents:
        paid = tangent[price_of] * np.where(np.isfinite(service), service, 0.0)
        heights.append(slots.sum((worth - paid).max(axis=1).clip(min=0.0)))
    return _solve(instance, models, slots, list(zip(heights, tangents, strict=True)))


def _solve(
    instance: BoundInstance, models: Models, slots: Slots, tangents: list[tuple[Floats, Floats]]
) -> tuple[float, float]:
    """The programme with these tangents (height by slot, price by model): its optimum and its switches."""
    count, families = slots.count, models.switch_seconds.shape[0]
    program = Program()
    flows = _fleet(program, slots, models, float(instance.workers.counts.sum()))
    none = program.variables(1, upper=0.0)
    value = program.variables(count, lower=-np.inf, cost=-1.0)
    last = count - (slots.reach - 1)
    work = []
    for model in range(families):
        chosen, done, left = (program.variables(count) for _ in range(3))
        program.rows([(done, 1.0), (flows.holding[model], -slots.seconds)], 0.0)
        before = np.concatenate((none, left[:-1]))
        program.rows([(left, 1.0), (before, -1.0), (chosen, -1.0), (done, 1.0)], 0.0, equal=True)
        program.rows(
            [(left[:last], 1.0), *((done[k : last + k], -1.0) for k in range(1, slots.reach))], 0.0
        )
        work.append(chosen)
    for height, price in tangents:
        terms = [(value, 1.0), *((chosen, -price[m]) for m, chosen in enumerate(work))]
        program.rows(terms, height)
    solution = program.solve()
    return -solution.cost, float(solution.x[flows.moving].sum())


@dataclass(frozen=True)
class _Flows:
    holding: list[Ints]
    moving: Ints


def _fleet(program: Program, slots: Slots, models: Models, workers: float) -> _Flows:
    """Workers by the model that they hold, and those that move."""
    count, families = slots.count, models.switch_seconds.shape[0]
    none = program.variables(1, upper=0.0)
    holding = [program.variables(count) for _ in range(families)]
    into: list[list[tuple[Ints, float]]] = [[] for _ in range(families)]
    at_first: list[list[tuple[Ints, float]]] = [[] for _ in range(families)]
    moving = []
    for a in range(families):
        for b in range(families):
            if a == b:
                continue
            flow = program.variables(count)
            delay = math.floor(models.switch_seconds[a, b] / slots.seconds + 1e-9)
            arriving = np.concatenate(
                (np.repeat(none, min(delay, count)), flow[: max(count - delay, 0)])
            )
            into[a].append((flow[1:], 1.0))
            into[b].append((arriving[1:], -1.0))
            at_first[a].append((flow[:1], 1.0))
            at_first[b].append((arriving[:1], -1.0))
            moving.append(flow)
    for model, now in enumerate(holding):
        program.rows([(now[1:], 1.0), (now[:-1], -1.0), *into[model]], 0.0, equal=True)
    if models.first is None:
        everyone = [term for terms in at_first for term in terms]
        program.total([*((now[:1], 1.0) for now in holding), *everyone], workers)
    else:
        for now, first, terms in zip(holding, models.first, at_first, strict=True):
            program.rows([(now[:1], 1.0), *terms], first)
    return _Flows(holding, np.concatenate(moving) if moving else none)
