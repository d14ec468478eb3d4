"""The mix that gives the most quality at a demand: the MILP that Argus and Proteus share.

Counts of workers and load by device class and variant; throughput has to carry the demand, waiting is not
reckoned with. A small fleet's mixes are few enough to be tried one and all, which takes a tenth of the solver's
time; larger ones go to HiGHS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, prod

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from gesso_operator.planning.solve import SolverError

Table = Sequence[Sequence[float]]

#: What the variant of a worker that has no load is worth, against what is served.
_IDLE_WORTH = 1e-5
_GAP = 1e-7
_TOLERANCE = 1e-9
#: Up to so many mixes are all tried: 16 workers at 6 levels have 20,349.
_MOST_MIXES = 25_000


@dataclass(frozen=True)
class Split:
    """Workers and images/s by [device class][variant]."""

    workers: tuple[tuple[int, ...], ...]
    served: tuple[tuple[float, ...], ...]


def most_throughput(rates: Table, workers: Sequence[int]) -> float:
    """Images/s with every worker at the fastest variant of its class."""
    return sum(n * max(row) for n, row in zip(workers, rates, strict=True))


def fastest_split(rates: Table, workers: Sequence[int]) -> Split:
    """Every worker at the fastest variant of its class, busy all the time."""
    counts = []
    for n, row in zip(workers, rates, strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        counts.append(tuple(n if v == best else 0 for v in range(len(row))))
    served = tuple(
        tuple(n * r for n, r in zip(count, row, strict=True))
        for count, row in zip(counts, rates, strict=True)
    )
    return Split(tuple(counts), served)


def best_split(
    rates: Table, quality: Sequence[float], workers: Sequence[int], demand: float, limit_s: float
) -> Split | None:
    """The split that serves all of a demand at the most quality; None where none carries it.

    `rates` are images/s of one worker by [device class][variant] (0: it cannot), `quality` by variant. Of equal
    splits the one whose workers are at the better variants. Raises SolverError when the solver gives up within
    `limit_s`.
    """
    if demand > most_throughput(rates, workers) * (1 + _TOLERANCE):
        return None
    usable = [[v for v, r in enumerate(row) if r > 0] for row in rates]
    empty = any(n and not row for n, row in zip(workers, usable, strict=True))
    if not empty and _mix_count(workers, usable) <= _MOST_MIXES:
        return tried(rates, quality, workers, demand)
    return solved(rates, quality, workers, demand, limit_s)


def tried(
    rates: Table, quality: Sequence[float], workers: Sequence[int], demand: float
) -> Split | None:
    """`best_split` by trying every mix: for fleets that have few."""
    rate, worth = np.asarray(rates, dtype=float), np.asarray(quality, dtype=float)
    variants = len(worth)
    idle = _idle_worth(demand, workers)
    carried, bonus = np.zeros((1, variants)), np.zeros(1)
    mixes = []
    for n, row in zip(workers, rate, strict=True):
        usable = np.flatnonzero(row > 0)
        counts = np.zeros((1, variants), dtype=np.int64)
        if len(usable):
            few = _mixes(n, len(usable))
            counts = np.zeros((len(few), variants), dtype=np.int64)
            counts[:, usable] = few
        mixes.append(counts)
        carried = (carried[:, None] + (counts * row)[None]).reshape(-1, variants)
        bonus = (bonus[:, None] + (counts @ worth * idle)[None]).ravel()
    # Given the counts, the best variants are filled first.
    order = np.argsort(-worth, kind="stable")
    upto = np.cumsum(carried[:, order], axis=1)
    served = np.diff(np.minimum(upto, demand), axis=1, prepend=0.0)
    value = np.where(
        upto[:, -1] >= demand * (1 - _TOLERANCE), served @ worth[order] + bonus, -np.inf
    )
    best = int(value.argmax())
    if value[best] == -np.inf:
        return None
    places = np.unravel_index(best, [len(m) for m in mixes])
    chosen = [m[int(p)] for m, p in zip(mixes, places, strict=True)]
    load = np.zeros(variants)
    load[order] = served[best]
    split = []
    for count, row in zip(chosen, rate, strict=True):
        mine = np.minimum(load, count * row)
        load = load - mine
        split.append(tuple(mine.tolist()))
    return Split(tuple(tuple(c.tolist()) for c in chosen), tuple(split))


def solved(
    rates: Table, quality: Sequence[float], workers: Sequence[int], demand: float, limit_s: float
) -> Split | None:
    """`best_split` by HiGHS. Raises SolverError."""
    classes, variants = len(rates), len(quality)
    size = classes * variants
    rate = np.array(rates, dtype=float).reshape(size)
    worth = np.tile(np.asarray(quality, dtype=float), classes)
    idle = _idle_worth(demand, workers)
    n = np.arange(size)
    constraints = [
        # Load within what the workers of a variant carry.
        LinearConstraint(
            coo_array(
                (np.r_[np.ones(size), -rate], (np.r_[n, n], np.r_[n + size, n])),
                shape=(size, 2 * size),
            ).tocsr(),
            -np.inf,
            0.0,
        ),
        LinearConstraint(
            coo_array((np.ones(size), (n // variants, n)), shape=(classes, 2 * size)).tocsr(),
            np.asarray(workers, dtype=float),
            np.asarray(workers, dtype=float),
        ),
        LinearConstraint(
            coo_array(
                (np.ones(size), (np.zeros(size, int), n + size)), shape=(1, 2 * size)
            ).tocsr(),
            demand,
            demand,
        ),
    ]
    most = np.repeat(np.asarray(workers, dtype=float), variants) * (rate > 0)
    found = milp(
        -np.r_[idle * worth, worth],
        integrality=np.r_[np.ones(size), np.zeros(size)],
        bounds=Bounds(0.0, np.r_[most, np.full(size, np.inf)]),
        constraints=constraints,
        options={"time_limit": limit_s, "mip_rel_gap": _GAP},
    )
    if found.x is None:
        if found.status == 2:  # infeasible by the solver's own tolerance
            return None
        raise SolverError(str(found.message))
    counts = np.rint(found.x[:size]).astype(int).reshape(classes, variants)
    served = np.maximum(0.0, found.x[size:]).reshape(classes, variants)
    return Split(
        tuple(tuple(row) for row in counts.tolist()), tuple(tuple(row) for row in served.tolist())
    )


def _idle_worth(demand: float, workers: Sequence[int]) -> float:
    return _IDLE_WORTH * max(demand, 1.0) / max(1, sum(workers))


def _mix_count(workers: Sequence[int], usable: Sequence[Sequence[int]]) -> int:
    return prod(comb(n + len(u) - 1, n) for n, u in zip(workers, usable, strict=True) if u)


@lru_cache(maxsize=64)
def _mixes(workers: int, variants: int) -> NDArray[np.int64]:
    """Every way to place workers on variants, one a row (stars and bars)."""
    bars = list(combinations(range(workers + variants - 1), variants - 1))
    inner = np.array(bars, dtype=np.int64).reshape(len(bars), variants - 1)
    edges = np.pad(inner, ((0, 0), (1, 1)), constant_values=-1)
    edges[:, -1] = workers + variants - 1
    return np.diff(edges, axis=1) - 1
