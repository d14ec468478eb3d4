"""Solves for the mix by counts per level, exactly, and for the price of capacity (scipy's HiGHS).

Variables: n[K] workers at level K (integers), x[c,K] images/s of prompt class c served at K, shed[c]
images/s refused, s[K] workers that leave level K.

    maximise  sum q[c,K] x[c,K] - penalty sum shed[c] - switch_cost sum s[K] + stray (rate / N) sum q[K] n[K]
    with      sum_K x[c,K] + shed[c] = rate[c]              for each class
              sum_c work[K] x[c,K] <= bound[K] slack n[K]   for each level
              sum_K n[K] = N,  s[K] >= current[K] - n[K]

The number of variables does not grow with the fleet. Levels whose quality is below the floor for a class are
left out for it, K = 0 never is. The price is the dual of the pooled capacity row of the linear program in
which any worker serves any level, in relative quality per worker-second of work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import coo_array

from gesso.plan import PromptClass

_TINY = 1e-9


@dataclass(frozen=True)
class Problem:
    """One instance. Tuples indexed by level run along `ladder`.

    `work_s` is device seconds per image, `bound` the utilisation allowed at each level (0: the level cannot
    meet the deadline), `slack` the share of the capacity that is not spent on a backlog, `rate` in images/s,
    `workers` the ready workers, `current` those of them at each level (the rest have none yet), `keep`
    whether all of `current` must stay, `switch_cost` in relative quality per second for each worker that
    changes.
    """

    ladder: tuple[int, ...]
    work_s: tuple[float, ...]
    bound: tuple[float, ...]
    rate: float
    classes: tuple[PromptClass, ...]
    workers: int
    current: tuple[int, ...]
    min_quality: float = 0.0
    shed_penalty: float = 10.0
    switch_cost: float = 0.0
    stray_share: float = 0.0
    slack: float = 1.0
    keep: bool = False

    def allowed(self, c: int, i: int) -> bool:
        """Whether class c may be served at the i-th level: in time, and not below the floor."""
        quality = self.classes[c].curve.quality[i]
        if self.bound[i] <= 0:
            return False
        return i == 0 or (quality > 0 and quality >= self.min_quality)

    def stray_value(self, i: int) -> float:
        """Objective of one worker assigned to the i-th level, whatever is served there."""
        mean = sum(c.weight * _finite(c.curve.quality[i]) for c in self.classes)
        return self.stray_share * self.rate / self.workers * mean if self.workers else 0.0


@dataclass(frozen=True)
class Solution:
    """Workers at each level, images/s and summed quality served, images/s refused, the objective."""

    workers: tuple[int, ...]
    served: tuple[float, ...]
    quality_sum: float
    shed: float
    objective: float
    switches: int


@dataclass(frozen=True)
class Pooled:
    """The pooled linear program: price, dual of the capacity row (refusals at their penalty), refused images/s,
    objective (no switch cost, no stray term), and the share of the provided worker-seconds that is work.
    """

    price: float
    dual: float
    shed: float
    objective: float
    utilisation: float


class SolverError(RuntimeError):
    """HiGHS gave no solution within its limit."""


def solve(problem: Problem, limit_s: float = 2.0) -> Solution:
    """The exact best mix. Raises SolverError where HiGHS finds none in `limit_s` seconds."""
    levels, classes = len(problem.ladder), len(problem.classes)
    pairs = _pairs(problem)
    n0, x0, shed0 = 0, levels, levels + len(pairs)
    leave0 = shed0 + classes
    size = leave0 + levels

    value = np.zeros(size)
    value[n0:x0] = [problem.stray_value(i) for i in range(levels)]
    value[x0:shed0] = [_finite(problem.classes[c].curve.quality[i]) for c, i in pairs]
    value[shed0:leave0] = -problem.shed_penalty
    value[leave0:] = -problem.switch_cost

    rows = _Rows(size)
    for c in range(classes):
        rows.add(
            [(x0 + p, 1.0) for p, (pc, _) in enumerate(pairs) if pc == c] + [(shed0 + c, 1.0)],
            _rate(problem, c),
            _rate(problem, c),
        )
    for i in range(levels):
        used = [(x0 + p, problem.work_s[i]) for p, (_, pi) in enumerate(pairs) if pi == i]
        rows.add([*used, (n0 + i, -problem.bound[i] * problem.slack)], -math.inf, 0.0)
        rows.add([(leave0 + i, 1.0), (n0 + i, 1.0)], float(problem.current[i]), math.inf)
    rows.add([(n0 + i, 1.0) for i in range(levels)], problem.workers, problem.workers)

    least = np.zeros(size)
    most = np.full(size, np.inf)
    most[n0:x0] = problem.workers
    if problem.keep:
        least[n0:x0] = problem.current
    integral = np.zeros(size, dtype=np.int64)
    # Where every worker stays, the counts are known and a linear program is left.
    integral[n0:x0] = 0 if problem.keep and sum(problem.current) == problem.workers else 1
    result = milp(
        -value,
        integrality=integral,
        bounds=Bounds(least, most),
        constraints=rows.constraint(),
        options={"time_limit": limit_s, "mip_rel_gap": 0.0},
    )
    if result.x is None:
        raise SolverError(str(result.message))
    x: NDArray[np.float64] = np.asarray(result.x, dtype=np.float64)
    workers = tuple(round(float(v)) for v in x[n0:x0])
    served = [0.0] * levels
    for p, (_, i) in enumerate(pairs):
        served[i] += max(0.0, float(x[x0 + p]))
    return Solution(
        workers=workers,
        served=tuple(served),
        quality_sum=float(value[x0:shed0] @ x[x0:shed0]),
        shed=_cut(float(x[shed0:leave0].sum()), problem.rate),
        objective=-_number(result.fun),
        switches=sum(max(0, was - now) for was, now in zip(problem.current, workers, strict=True)),
    )


def best(problem: Problem, stay: Solution, pool: Pooled, limit_s: float = 2.0) -> Solution:
    """The best mix, without a search where `stay` (from `held`) reaches what no mix can exceed.

    Each mix's constraints sum up to the pooled program's, whose objective `pool` therefore bounds all of them,
    with the best stray term added.
    """
    levels = range(len(problem.ladder))
    bound = pool.objective + problem.workers * max(problem.stray_value(i) for i in levels)
    if stay.objective >= bound - 1e-7 * (1.0 + abs(bound)):
        return stay
    return solve(problem, limit_s)


def pooled(problem: Problem) -> Pooled:
    """The worth of a worker-second when any worker serves any level; 0 when capacity does not bind.

    The dual counts provided worker-seconds; divided by the utilisation that they run at it counts work,
    which is what a request is charged for. Where images must be refused, the dual is the made-up penalty's;
    then a worker-second buys the quality of a refused image, or of the dearest step to a slower level,
    whichever is more: at that price each prompt takes its fastest level. Raises SolverError where HiGHS
    fails.
    """
    pairs = _pairs(problem)
    classes = len(problem.classes)
    provided = problem.workers * problem.slack
    if not pairs or provided <= 0 or problem.rate <= 0:
        shed = problem.rate if not pairs or provided <= 0 else 0.0
        return Pooled(0.0, 0.0, shed, -problem.shed_penalty * shed, 0.0)
    size = len(pairs) + classes
    value = np.full(size, -problem.shed_penalty)
    value[: len(pairs)] = [_finite(problem.classes[c].curve.quality[i]) for c, i in pairs]
    capacity = np.zeros((1, size))
    capacity[0, : len(pairs)] = [problem.work_s[i] / problem.bound[i] for _, i in pairs]
    demand = np.zeros((classes, size))
    for p, (c, _) in enumerate(pairs):
        demand[c, p] = 1.0
    for c in range(classes):
        demand[c, len(pairs) + c] = 1.0
    result = linprog(
        -value,
        A_ub=capacity,
        b_ub=np.array([provided]),
        A_eq=demand,
        b_eq=np.array([_rate(problem, c) for c in range(classes)]),
        method="highs",
    )
    if result.x is None:
        raise SolverError(str(result.message))
    x: NDArray[np.float64] = np.asarray(result.x, dtype=np.float64)
    dual = max(0.0, -float(result.ineqlin.marginals[0]))
    work = sum(float(x[p]) * problem.work_s[i] for p, (_, i) in enumerate(pairs))
    spent = float(capacity[0] @ x)
    mean_bound = work / spent if spent > _TINY else max(problem.bound)
    shed = _cut(float(x[len(pairs) :].sum()), problem.rate)
    refused = [c for c in range(classes) if x[len(pairs) + c] > 1e-6 * problem.rate]
    price = dual / mean_bound if dual > _TINY else 0.0
    return Pooled(
        price=_scarcity_price(problem, pairs, refused) if shed else price,
        dual=dual if dual > _TINY else 0.0,
        shed=shed,
        objective=-_number(result.fun),
        utilisation=work / provided,
    )


def held(problem: Problem, limit_s: float = 2.0) -> Solution:
    """The best that the current mix gives, workers without a level being put where they help most."""
    return solve(replace(problem, keep=True), limit_s)


def _scarcity_price(problem: Problem, pairs: list[tuple[int, int]], refused: list[int]) -> float:
    """What a worker-second of work buys where images are refused."""
    ladders: dict[int, list[tuple[float, float]]] = {}
    for c, i in pairs:
        quality = _finite(problem.classes[c].curve.quality[i])
        ladders.setdefault(c, []).append((problem.work_s[i], quality))
    buys = [quality / work for c in refused for work, quality in ladders.get(c, [])]
    for ladder in ladders.values():
        work, quality = min(ladder)
        buys += [(q - quality) / (w - work) for w, q in ladder if w > work]
    return max(buys, default=0.0)


class _Rows:
    """Rows of a sparse constraint matrix."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._entries: list[tuple[int, int, float]] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def add(self, entries: list[tuple[int, float]], low: float, high: float) -> None:
        row = len(self._low)
        self._entries += [(row, column, value) for column, value in entries]
        self._low.append(low)
        self._high.append(high)

    def constraint(self) -> LinearConstraint:
        rows, columns, values = zip(*self._entries, strict=True)
        shape = (len(self._low), self._width)
        matrix = coo_array((values, (rows, columns)), shape=shape).tocsr()
        return LinearConstraint(matrix, np.array(self._low), np.array(self._high))


def _pairs(problem: Problem) -> list[tuple[int, int]]:
    return [
        (c, i)
        for c in range(len(problem.classes))
        for i in range(len(problem.ladder))
        if problem.allowed(c, i)
    ]


def _rate(problem: Problem, c: int) -> float:
    return problem.rate * problem.classes[c].weight


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _finite(quality: float) -> float:
    return quality if math.isfinite(quality) else 0.0


def _cut(shed: float, rate: float) -> float:
    """The solver's tolerance is not a refusal."""
    return shed if shed > 1e-6 * max(rate, 1e-6) else 0.0
