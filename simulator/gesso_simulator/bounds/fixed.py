"""Bounds for a fleet whose size is given: constant, or a step function where workers are lost and return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .fluid import Accepted, accept, releases_and_limits
from .frontier import hull
from .instance import BoundInstance, Floats

#: Evaluations of the dual of "so many are served", each one a pass over the arrivals.
_ROUNDS = 8
#: Mean quality that another evaluation has to be able to take off.
_CLOSE = 1e-5


@dataclass(frozen=True)
class Relaxation:
    """The fleet as one pool: a worker-second counts its class's weight, a request the least that it costs.

    For one device class, or several that differ by one factor, this is the programme itself; for others it is
    a surrogate of it (one constraint, the weighted sum of each class's), valid for any weights.
    """

    curves: Floats
    cost: Floats
    release: Floats
    limit: Floats

    def solve(self, bonus: float | None) -> Accepted:
        """The optimum of bonus x served + quality; served first where `bonus` is None."""
        return accept(hull(self.curves, self.cost, bonus), self.release, self.limit, bonus)


def least_violations(instance: BoundInstance, *, informed: bool) -> tuple[float, float, str]:
    """The least violation ratio that any policy reaches, the best mean quality there, and how it was found.

    The quality is over the requests served in time, and is 0 where none can be.
    """
    pools = [_relax(instance, weights, informed) for weights in _weights(instance)]
    n = instance.arrivals_s.size
    if n == 0:
        return 0.0, 0.0, "no requests"
    found = [pool.solve(None) for pool in pools]
    served = min(accepted.served for accepted in found)
    if served <= 1e-9:
        return 1.0, 0.0, "fluid queue"
    quality = [
        accepted.quality / accepted.served
        if accepted.served <= served + 1e-6
        # These weights let more be served than others do: their mean is asked for at what those leave.
        else np.inf
        for accepted in found
    ]
    best = min(quality)
    spare = [i for i, q in enumerate(quality) if np.isinf(q)]
    if spare:
        likely = min(spare, key=lambda i: found[i].quality / found[i].served)
        best = min(best, best_mean(pools[likely].solve, served, found[likely]))
    how = (
        "fluid queue, exact" if len(pools) == 1 else f"fluid queue, best of {len(pools)} surrogates"
    )
    return max(0.0, 1.0 - served / n), best, how


def best_quality_at(instance: BoundInstance, violation_ratio: float, *, informed: bool) -> float:
    """The best mean relative quality over the served, for any policy whose violation ratio is at most this.

    Raises ValueError where the ratio is below the least possible, or not below 1.
    """
    n = instance.arrivals_s.size
    served = (1.0 - violation_ratio) * n
    pools = [_relax(instance, weights, informed) for weights in _weights(instance)]
    found = [pool.solve(None) for pool in pools]
    most = min(accepted.served for accepted in found)
    if not 0 < served <= most + 1e-6 * n:
        raise ValueError(
            f"violation_ratio: {violation_ratio} is not allowed: "
            f"{1.0 - most / max(n, 1)} or more, and below 1"
        )
    # Any surrogate bounds; the tightest at its own least is most likely the tightest here.
    tightest = min(range(len(pools)), key=lambda i: found[i].quality / found[i].served)
    if served >= found[tightest].served - 1e-9:
        return found[tightest].quality / found[tightest].served
    return best_mean(pools[tightest].solve, served, found[tightest])


def best_mean(solve: Callable[[float | None], Accepted], served: float, most: Accepted) -> float:
    """The best mean quality of exactly `served` requests, by the dual of that constraint.

    `solve(bonus)` maximises bonus x served + quality; `most` is its optimum where serving comes first. For
    every bonus, optimum - bonus x `served` bounds the sum of qualities; the least of them over the bonus is
    the optimum. It is convex and piecewise linear in the bonus: each step goes to where the tangents of both
    sides meet. Any number of steps leaves a valid bound.
    """
    # Nothing served at a bonus low enough, as many as can be at one high enough.
    under, over = Accepted(0.0, 0.0), most
    best = np.inf
    for _ in range(_ROUNDS):
        bonus = (under.quality - over.quality) / (over.served - under.served)
        point = solve(bonus)
        value = point.quality + bonus * (point.served - served)
        best = min(best, value)
        # Where the tangents meet on the curve, that is the least.
        meeting = under.quality + bonus * (under.served - served)
        if value <= meeting + _CLOSE * served:
            break
        if point.served < served:
            under = point
        else:
            over = point
    return best / served


def _relax(instance: BoundInstance, weights: Floats, informed: bool) -> Relaxation:
    curves = instance.curves(informed=informed)
    in_time = np.where(instance.service_s <= instance.slo_s, instance.service_s, np.inf)
    cost: Floats = (weights[:, None] * in_time).min(axis=0)
    release, limit = releases_and_limits(
        instance.arrivals_s,
        instance.slo_s,
        instance.workers,
        weights,
        one_each=instance.at_once == 1,
    )
    return Relaxation(curves, cost, release, limit)


def _weights(instance: BoundInstance) -> list[Floats]:
    """Weights of the device classes to try: each class's speed relative to the first, at two variants.

    At the fastest variant, which decides how many can be served, and at the slowest, which decides what spare
    work buys. Variants at which some class cannot serve in time are left out; classes that differ by one
    factor give one.
    """
    in_time = np.where(instance.service_s <= instance.slo_s, instance.service_s, np.inf)
    common = np.flatnonzero(np.isfinite(in_time).all(axis=0))
    if in_time.shape[0] == 1 or common.size == 0:
        return [np.ones(in_time.shape[0])]
    fastest = common[np.argmin(in_time[0, common])]
    slowest = common[np.argmax(in_time[0, common])]
    first, second = (in_time[0, k] / in_time[:, k] for k in (fastest, slowest))
    alike = np.abs(first / second - 1).max() <= 1e-3
    return [first] if alike else [first, second]
