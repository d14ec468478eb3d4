"""The mix by trying every one: the oracle of the solver's tests, for small fleets.

For each way to spread the workers over device classes and variants the best service is a linear program in
images/s alone; the rest of the objective follows from the counts. Shares no code with `solve` beyond the
instance.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from scipy.optimize import linprog

from gesso_operator.planning.problem import Counts, Problem

MOST_MIXES = 20_000


def exhaustive(problem: Problem) -> tuple[float, Counts]:
    """The best objective over all mixes, and a mix that reaches it.

    Raises ValueError where there are more than `MOST_MIXES` mixes, or none.
    """
    best: tuple[float, Counts] | None = None
    for tried, counts in enumerate(mixes(problem)):
        if tried >= MOST_MIXES:
            raise ValueError(f"workers: {problem.most} are not allowed: {MOST_MIXES} mixes at most")
        value = served_value(problem, counts) - problem.change_cost(counts)
        for row in counts:
            value += sum(n * s for n, s in zip(row, problem.stray_values, strict=True))
        if best is None or value > best[0]:
            best = value, counts
    if best is None:
        raise ValueError("workers: no mix keeps the bounds")
    return best


def mixes(problem: Problem) -> Iterator[Counts]:
    """Every spread of the workers that keeps the bounds."""
    variants = range(len(problem.variants))
    rows = []
    for d in range(len(problem.devices)):
        mine = []
        for size in range(problem.least[d], problem.most[d] + 1):
            for chosen in itertools.combinations_with_replacement(variants, size):
                if all(problem.possible(d, v) for v in chosen):
                    mine.append(tuple(chosen.count(v) for v in variants))
        rows.append(mine)
    for counts in itertools.product(*rows):
        if problem.keep and any(
            now < was
            for before, after in zip(problem.current, counts, strict=True)
            for was, now in zip(before, after, strict=True)
        ):
            continue
        if problem.keep_models and any(n for row in problem.arrivals(counts) for n in row):
            continue
        yield counts


def served_value(problem: Problem, counts: Counts) -> float:
    """Quality served less refusals and work at other levels than its worker's, at its best for these counts."""
    cells = [
        (c, d, v)
        for c in range(len(problem.classes))
        for d in range(len(problem.devices))
        for v in range(len(problem.variants))
        if problem.allowed(c, d, v)
    ]
    spots = [(d, v) for d in range(len(problem.devices)) for v in range(len(problem.variants))]
    # Gain of serving an image over refusing it; then what is over at each device and variant.
    cost = [-(problem.classes[c].curve.quality[v] + problem.shed_penalty) for c, _, v in cells]
    cost += [problem.mismatch_cost] * len(spots)
    rows, limits = [], []
    for d, m in itertools.product(range(len(problem.devices)), range(len(problem.models))):
        rows.append(
            [
                problem.need_s(d, v) if pd == d and problem.model_of[v] == m else 0.0
                for _, pd, v in cells
            ]
            + [0.0] * len(spots)
        )
        mine = sum(n for v, n in enumerate(counts[d]) if problem.model_of[v] == m)
        limits.append(problem.slack * mine)
    for c in range(len(problem.classes)):
        rows.append([1.0 if pc == c else 0.0 for pc, _, _ in cells] + [0.0] * len(spots))
        limits.append(problem.class_rate(c))
    for d, v in spots:
        rows.append(
            [problem.need_s(d, v) if (pd, pv) == (d, v) else 0.0 for _, pd, pv in cells]
            + [-1.0 if spot == (d, v) else 0.0 for spot in spots]
        )
        limits.append(problem.slack * counts[d][v])
    result = linprog(np.array(cost), A_ub=np.array(rows), b_ub=np.array(limits), method="highs")
    if result.fun is None:
        raise ValueError(f"problem: not solved: {result.message}")
    weight = sum(c.weight for c in problem.classes)
    return -float(result.fun) - problem.shed_penalty * problem.rate * weight
