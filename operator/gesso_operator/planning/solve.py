"""Solves for the mix by counts per device class and variant, exactly (scipy's HiGHS).

Variables: n[d,v] workers of class d at variant v (integers), x[c,d,v] images/s of prompt class c served
there, shed[c] images/s refused; s[d,v] workers that leave variant v, a[d,m] workers that come to model m,
o[d,v] worker-seconds of work beyond what the workers assigned to v provide, b[d] workers to be started.

    maximise  sum q[c,v] x[c,d,v] - penalty sum shed[c] + sum stray[v] n[d,v]
              - level_cost sum s - sum load_cost[d,m] a[d,m] - mismatch_cost sum o
              - start_cost sum b - worker_cost sum n
    with      sum_dv x[c,d,v] + shed[c] = rate[c]                            for each prompt class
              sum_cv need[d,v] x[c,d,v] <= slack sum_v n[d,v]                for each pool (d, m), v of m
              o[d,v] >= sum_c need[d,v] x[c,d,v] - slack n[d,v],  s[d,v] >= current[d,v] - n[d,v]
              a[d,m] >= sum_v n[d,v] - held[d,m] (- b[d] for the own model),  b[d] >= sum_v n[d,v] - held[d]
              least[d] <= sum_v n[d,v] <= most[d]

A worker serves any level of the model that it holds, so capacity is per pool; a level assigned to a worker is a
preference, which `mismatch_cost` and `stray` (idle workers go back to K = 0) express. The number of
variables does not grow with the fleet. Levels whose quality is below the floor for a class are left out for
it, K = 0 never is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from gesso_operator.planning.problem import Counts, Problem

Served = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Solution:
    """Workers and images/s by [device class][variant], summed quality of these images, images/s refused, the
    objective, and how many workers change their variant or model.
    """

    workers: Counts
    served: Served
    quality_sum: float
    shed: float
    objective: float
    switches: int

    @property
    def total_served(self) -> float:
        """Images per second."""
        return sum(map(sum, self.served))


class SolverError(RuntimeError):
    """HiGHS gave no solution within its limit."""


def solve(problem: Problem, limit_s: float = 2.0) -> Solution:
    """The exact best mix. Raises SolverError where HiGHS finds none in `limit_s` seconds."""
    model = _Model(problem)
    known = problem.keep and not problem.elastic and _total(problem.current) == _total(problem.held)
    # Where every worker stays, the counts are known and a linear program is left.
    result = milp(
        -model.value,
        integrality=np.where(model.counts, 0 if known else 1, 0),
        bounds=Bounds(model.low, model.high),
        constraints=LinearConstraint(model.matrix, model.least, model.most),
        options={"time_limit": limit_s, "mip_rel_gap": 0.0},
    )
    if result.x is None:
        raise SolverError(str(result.message))
    return model.solution(np.asarray(result.x, dtype=np.float64), -float(result.fun))


def held(problem: Problem, limit_s: float = 2.0) -> Solution:
    """The best that the current mix gives, workers without a level being put where they help most."""
    fixed = tuple(map(sum, problem.held))
    return solve(replace(problem, keep=True, keep_models=True, least=fixed, most=fixed), limit_s)


def best(problem: Problem, stay: Solution, bound: float, limit_s: float = 2.0) -> Solution:
    """The best mix, without a search where `stay` (from `held`) reaches what no mix can exceed.

    `bound` is the objective of the linear program without assigned levels (`pooled.relaxed`); with the best
    stray term added no mix gives more.
    """
    if not problem.elastic:
        most = bound + problem.workers * max(problem.stray_values)
        if stay.objective >= most - 1e-7 * (1.0 + abs(most)):
            return stay
    return solve(problem, limit_s)


class _Model:
    """Variables and rows of one instance, dense: they are few."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        devices, variants = range(len(problem.devices)), range(len(problem.variants))
        models, classes = range(len(problem.models)), range(len(problem.classes))
        self.cells = [(d, v) for d in devices for v in variants if problem.possible(d, v)]
        self.pairs = [(c, d, v) for c in classes for d, v in self.cells if problem.allowed(c, d, v)]
        loads = [(d, m) for d in devices for m in models]
        sizes = (
            len(self.cells),
            len(self.pairs),
            len(classes),
            len(self.cells),
            len(loads),
            len(self.cells),
            len(devices),
        )
        starts = np.concatenate(([0], np.cumsum(sizes)))
        self.n0, self.x0, self.shed0, self.leave0, self.come0, self.over0, self.start0 = (
            int(i) for i in starts[:-1]
        )
        size = int(starts[-1])
        self.counts = np.arange(size) < self.x0
        self._rows: list[NDArray[np.float64]] = []
        self._least: list[float] = []
        self._most: list[float] = []
        self._size = size
        self._set_value(loads)
        self._set_bounds()
        at = {cell: self.n0 + i for i, cell in enumerate(self.cells)}
        for c in classes:
            row = self._row(problem.class_rate(c), problem.class_rate(c))
            row[self.shed0 + c] = 1.0
            for p, (pc, _, _) in enumerate(self.pairs):
                row[self.x0 + p] = float(pc == c)
        for i, (d, m) in enumerate(loads):
            mine = [v for v in variants if problem.model_of[v] == m and (d, v) in at]
            capacity = self._row(-math.inf, 0.0)
            come = self._row(-float(problem.held[d][m]), math.inf)
            come[self.come0 + i] = 1.0
            if m == 0:
                come[self.start0 + d] = 1.0
            stay = self._row(problem.held[d][m], problem.held[d][m]) if self._fixed(d) else None
            for v in mine:
                capacity[at[d, v]] = -problem.slack
                come[at[d, v]] = -1.0
                if stay is not None:
                    stay[at[d, v]] = 1.0
            for p, (_, pd, pv) in enumerate(self.pairs):
                if pd == d and problem.model_of[pv] == m:
                    capacity[self.x0 + p] = problem.need_s(d, pv)
        for i, (d, v) in enumerate(self.cells):
            leave = self._row(problem.current[d][v], math.inf)
            leave[self.leave0 + i] = leave[at[d, v]] = 1.0
            over = self._row(-math.inf, 0.0)
            over[at[d, v]], over[self.over0 + i] = -problem.slack, -1.0
            for p, (_, pd, pv) in enumerate(self.pairs):
                if (pd, pv) == (d, v):
                    over[self.x0 + p] = problem.need_s(d, v)
        for d in devices:
            size_row = self._row(problem.least[d], problem.most[d])
            begun = self._row(-sum(problem.held[d]), math.inf)
            begun[self.start0 + d] = 1.0
            for (cd, _), i in at.items():
                if cd == d:
                    size_row[i], begun[i] = 1.0, -1.0
        self.matrix = np.array(self._rows)
        self.least, self.most = np.array(self._least), np.array(self._most)

    def solution(self, x: NDArray[np.float64], objective: float) -> Solution:
        """Reads the solver's vector."""
        problem = self.problem
        workers = [[0] * len(problem.variants) for _ in problem.devices]
        served = [[0.0] * len(problem.variants) for _ in problem.devices]
        for i, (d, v) in enumerate(self.cells):
            workers[d][v] = round(float(x[self.n0 + i]))
        for p, (_, d, v) in enumerate(self.pairs):
            served[d][v] += max(0.0, float(x[self.x0 + p]))
        counts = tuple(map(tuple, workers))
        gained = self.quality @ x[self.x0 : self.shed0]
        comers = sum(map(sum, problem.arrivals(counts)))
        return Solution(
            counts,
            tuple(map(tuple, served)),
            float(gained),
            cut(float(x[self.shed0 : self.leave0].sum()), problem.rate),
            objective,
            max(problem.leavers(counts), comers),
        )

    def _fixed(self, d: int) -> bool:
        problem = self.problem
        return problem.keep_models and problem.least[d] == problem.most[d] == sum(problem.held[d])

    def _row(self, least: float, most: float) -> NDArray[np.float64]:
        row = np.zeros(self._size)
        self._rows.append(row)
        self._least.append(float(least))
        self._most.append(float(most))
        return row

    def _set_value(self, loads: list[tuple[int, int]]) -> None:
        problem = self.problem
        value = np.zeros(self._size)
        stray = problem.stray_values
        for i, (_, v) in enumerate(self.cells):
            value[self.n0 + i] = stray[v] - (problem.worker_cost if problem.elastic else 0.0)
        self.quality = np.array([problem.classes[c].curve.quality[v] for c, _, v in self.pairs])
        value[self.x0 : self.shed0] = self.quality
        value[self.shed0 : self.leave0] = -problem.shed_penalty
        value[self.leave0 : self.come0] = -problem.level_cost
        if problem.load_cost:
            value[self.come0 : self.over0] = [-problem.load_cost[d][m] for d, m in loads]
        value[self.over0 : self.start0] = -problem.mismatch_cost
        value[self.start0 :] = -problem.start_cost
        self.value = value

    def _set_bounds(self) -> None:
        problem = self.problem
        self.low, self.high = np.zeros(self._size), np.full(self._size, np.inf)
        for i, (d, v) in enumerate(self.cells):
            self.low[i] = problem.current[d][v] if problem.keep else 0
            self.high[i] = max(problem.most[d], problem.current[d][v])
        for d in range(len(problem.devices)):
            self.high[self.start0 + d] = max(0, problem.most[d] - sum(problem.held[d]))


def cut(shed: float, rate: float) -> float:
    """The solver's tolerance is not a refusal."""
    return shed if shed > 1e-6 * max(rate, 1e-6) else 0.0


def _total(counts: Counts) -> int:
    return sum(map(sum, counts))
