"""The worth of a worker-second: the linear program in which any worker serves any level of the model that it
holds.

Its duals, one for each pool (a device class with a model), are the prices. For one pool it is the frontier (see
`frontier`), for more it is given to HiGHS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from gesso_operator.planning.frontier import Frontier, frontier
from gesso_operator.planning.problem import Problem
from gesso_operator.planning.solve import Served, SolverError, cut

_TINY = 1e-9


@dataclass(frozen=True)
class Pooled:
    """What the pools give at best, and what a second of each is worth.

    `price` is the worth of an average worker-second of work of the service's own model, `worth` that of each
    pool by (device class, model), both in relative quality; `dual` the average own worker-second's as
    provided, idle time included (refusals at their penalty). `served` images/s by [device][variant],
    `quality_sum` their summed quality, `shed` images/s refused, `objective` without costs, `utilisation` the
    share of the provided worker-seconds that is work.
    """

    price: float
    dual: float
    worth: tuple[tuple[tuple[str, str], float], ...]
    served: Served
    quality_sum: float
    shed: float
    objective: float
    utilisation: float

    @property
    def quality(self) -> float:
        """Mean relative quality of what is served; 0 where nothing is."""
        total = sum(map(sum, self.served))
        return self.quality_sum / total if total > 0 else 0.0


def pooled(problem: Problem) -> Pooled:
    """The best with the models that are held; prices are 0 where capacity does not bind.

    A dual counts provided worker-seconds; divided by the utilisation that they run at it counts work, which
    is what a request is charged for. Where images must be refused, the dual is the made-up penalty's; then a
    worker-second buys the quality of a refused image, or of the dearest step to a slower level, whichever is
    more: at that price each prompt takes its fastest level. Raises SolverError where HiGHS fails.
    """
    pools = problem.pools
    usable = [p for p in pools if _pairs(problem, [p])]
    if not usable or problem.rate <= 0 or problem.slack <= 0:
        nothing = tuple((0.0,) * len(problem.variants) for _ in problem.devices)
        shed = problem.rate if problem.rate > 0 else 0.0
        return Pooled(0.0, 0.0, (), nothing, 0.0, shed, -problem.shed_penalty * shed, 0.0)
    if len(usable) == 1:
        x, duals = _by_frontier(problem, usable[0])
    else:
        x, duals = _by_program(problem, usable)
    return _read(problem, usable, x, duals)


def pool_frontier(problem: Problem, pool: tuple[int, int]) -> Frontier:
    """The frontier of one pool, in provided worker-seconds."""
    d, m = pool
    variants = range(len(problem.variants))
    allowed = [
        [problem.model_of[v] == m and problem.allowed(c, d, v) for v in variants]
        for c in range(len(problem.classes))
    ]
    seconds = [
        problem.need_s(d, v) if problem.possible(d, v) and problem.bound[d][v] > 0 else math.inf
        for v in variants
    ]
    return frontier(problem.classes, seconds, allowed, problem.shed_penalty)


def relaxed(problem: Problem) -> float:
    """What no mix of models of the workers that are there can exceed, costs and stray term left out."""
    pools = [
        (d, m)
        for d in range(len(problem.devices))
        for m in range(len(problem.models))
        if sum(problem.held[d]) > 0
    ]
    return _program(problem, pools, free=True)[0]


def _by_frontier(
    problem: Problem, pool: tuple[int, int]
) -> tuple[dict[tuple[int, int, int], float], dict[tuple[int, int], float]]:
    d, m = pool
    line = pool_frontier(problem, pool)
    seconds = problem.held[d][m] * problem.slack / problem.rate
    split = line.split(seconds)
    x = {
        (c, d, v): problem.rate * share
        for c, row in enumerate(split)
        for v, share in enumerate(row)
        if share > 0
    }
    return x, {pool: line.dual(seconds)}


def _by_program(
    problem: Problem, pools: Sequence[tuple[int, int]]
) -> tuple[dict[tuple[int, int, int], float], dict[tuple[int, int], float]]:
    _, pairs, x, marginals = _program(problem, pools, free=False)
    found = {pair: max(0.0, float(x[p])) for p, pair in enumerate(pairs)}
    return found, {pool: max(0.0, -float(marginals[i])) for i, pool in enumerate(pools)}


def _program(
    problem: Problem, pools: Sequence[tuple[int, int]], free: bool
) -> tuple[float, list[tuple[int, int, int]], NDArray[np.float64], NDArray[np.float64]]:
    """Objective, pairs, solution, duals of the pools. `free`: a class's workers may hold any of its models."""
    pairs = _pairs(problem, pools)
    classes = len(problem.classes)
    size = len(pairs) + classes + (len(pools) if free else 0)
    value = np.zeros(size)
    value[: len(pairs)] = [problem.classes[c].curve.quality[v] for c, _, v in pairs]
    value[len(pairs) : len(pairs) + classes] = -problem.shed_penalty
    place = {pool: i for i, pool in enumerate(pools)}
    capacity = np.zeros((len(pools), size))
    provided = np.zeros(len(pools))
    demand = np.zeros((classes, size))
    for p, (c, d, v) in enumerate(pairs):
        capacity[place[d, problem.model_of[v]], p] = problem.need_s(d, v)
        demand[c, p] = 1.0
    for c in range(classes):
        demand[c, len(pairs) + c] = 1.0
    rows, right = [demand], [problem.class_rate(c) for c in range(classes)]
    for (d, m), i in place.items():
        if free:
            capacity[i, len(pairs) + classes + i] = -problem.slack
        else:
            provided[i] = problem.held[d][m] * problem.slack
    if free:
        for d in sorted({d for d, _ in pools}):
            row = np.zeros((1, size))
            for (pd, _), i in place.items():
                row[0, len(pairs) + classes + i] = float(pd == d)
            rows.append(row)
            right.append(sum(problem.held[d]))
    result = linprog(
        -value,
        A_ub=capacity,
        b_ub=provided,
        A_eq=np.concatenate(rows),
        b_eq=np.array(right),
        method="highs",
    )
    if result.x is None or result.fun is None:
        raise SolverError(str(result.message))
    x: NDArray[np.float64] = np.asarray(result.x, dtype=np.float64)
    duals: NDArray[np.float64] = np.asarray(result.ineqlin.marginals, dtype=np.float64)
    return -float(result.fun), pairs, x, duals


def _read(
    problem: Problem,
    pools: Sequence[tuple[int, int]],
    x: dict[tuple[int, int, int], float],
    duals: dict[tuple[int, int], float],
) -> Pooled:
    """Prices and figures from a solution."""
    served = [[0.0] * len(problem.variants) for _ in problem.devices]
    by_class = [0.0] * len(problem.classes)
    quality = 0.0
    for (c, d, v), images in x.items():
        served[d][v] += images
        by_class[c] += images
        quality += images * problem.classes[c].curve.quality[v]
    missing = [max(0.0, problem.class_rate(c) - n) for c, n in enumerate(by_class)]
    shed = cut(sum(missing), problem.rate)
    refused = [c for c, n in enumerate(missing) if n > 1e-6 * problem.rate]
    worth = {}
    for pool in pools:
        dual = duals[pool] if duals[pool] > _TINY else 0.0
        if shed:
            worth[pool] = _scarcity_price(problem, pool, refused)
        else:
            worth[pool] = dual / _mean_bound(problem, pool, served) if dual else 0.0
    own = [p for p in pools if p[1] == 0]
    count = sum(problem.held[d][m] for d, m in own)

    def average(values: dict[tuple[int, int], float]) -> float:
        return sum(problem.held[d][m] * values[d, m] for d, m in own) / count if count else 0.0

    provided = sum(problem.held[d][m] for d, m in problem.pools) * problem.slack
    work = sum(
        images * problem.work_s[d][v]
        for d, row in enumerate(served)
        for v, images in enumerate(row)
        if images > 0
    )
    dual = average(duals)
    return Pooled(
        price=average(worth),
        dual=dual if dual > _TINY else 0.0,
        worth=tuple(((problem.devices[d], problem.models[m]), w) for (d, m), w in worth.items()),
        served=tuple(map(tuple, served)),
        quality_sum=quality,
        shed=shed,
        objective=quality - problem.shed_penalty * sum(missing),
        utilisation=work / provided if provided > 0 else 0.0,
    )


def _pairs(problem: Problem, pools: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(class, device, variant) that may be served in these pools."""
    return [
        (c, d, v)
        for c in range(len(problem.classes))
        for d, m in pools
        for v in range(len(problem.variants))
        if problem.model_of[v] == m and problem.allowed(c, d, v)
    ]


def _mean_bound(problem: Problem, pool: tuple[int, int], served: list[list[float]]) -> float:
    """The utilisation that a pool's provided seconds run at."""
    d, m = pool
    mine = [v for v, n in enumerate(served[d]) if problem.model_of[v] == m and n > 0]
    work = sum(served[d][v] * problem.work_s[d][v] for v in mine)
    spent = sum(served[d][v] * problem.need_s(d, v) for v in mine)
    if spent > _TINY:
        return work / spent
    return max(b for v, b in enumerate(problem.bound[d]) if problem.model_of[v] == m)


def _scarcity_price(problem: Problem, pool: tuple[int, int], refused: list[int]) -> float:
    """What a worker-second of work of a pool buys where images are refused."""
    ladders: dict[int, list[tuple[float, float]]] = {}
    for c, d, v in _pairs(problem, [pool]):
        quality = problem.classes[c].curve.quality[v]
        ladders.setdefault(c, []).append((problem.work_s[d][v], quality))
    buys = [quality / work for c in refused for work, quality in ladders.get(c, [])]
    for ladder in ladders.values():
        work, quality = min(ladder)
        buys += [(q - quality) / (w - work) for w, q in ladder if w > work]
    return max(buys, default=0.0)
