"""The fixed fleet's linear programme, solved exactly by one pass over the arrivals.

Request j, of arrival a_j and deadline d_j = a_j + slo, gets work w_j on its concave curve. Deadlines fall in
the order of the arrivals, so the work fits into its windows exactly if

    sum of w over i..j  <=  limit_j - release_i      for all i <= j,

where `release_i` is the capacity that had gone by when request i came and `limit_j` the capacity that will
have gone by at j's deadline. With U_j = max(U_{j-1}, release_j) + w_j (work in order, as a single fluid
queue) this reads U_j <= limit_j.

The most that can be gained up to j, as a function of U_j, is concave, and each step keeps it so: a request's
curve is added by merging its segments in order of slope; capacity that goes by takes the steepest segments
out (they are done, whatever comes); the deadline cuts the flattest ones off. So the programme's optimum is
what a double-ended priority queue accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from .frontier import Segments
from .instance import Floats, Ints, Workers

#: Workers beyond this rank are taken to find a request at once: leaving out a loss keeps the bound valid.
_RANKS = 64


@dataclass(frozen=True)
class Accepted:
    """What the fleet takes of all requests' segments: requests served, and the sum of their qualities."""

    served: float
    quality: float


def releases_and_limits(
    arrivals_s: Floats, slo_s: float, workers: Workers, weights: Floats, *, one_each: bool
) -> tuple[Floats, Floats]:
    """Capacity gone by at each arrival and at each deadline, in worker-seconds times the device class's weight.

    `one_each`: a request runs on one worker and a worker runs one request. Then, of the requests i.., only k
    can run before the (k+1)-th of them has come, and of those up to j only k after the (k+1)-th deadline from
    the end. The capacity lost by that within half an SLO after a_i, and within half an SLO before d_j, is
    taken off: the two never overlap, so both are true losses, for any window i..j.
    """
    deadlines = arrivals_s + slo_s
    release = workers.worker_seconds(arrivals_s, weights)
    limit = workers.worker_seconds(deadlines, weights)
    if one_each and arrivals_s.size:
        half = slo_s / 2
        order = np.argsort(-weights, kind="stable")
        at_start = _by_rank(workers.fewest(arrivals_s, arrivals_s + half), order)
        at_end = _by_rank(workers.fewest(deadlines - half, deadlines), order)
        ranks = min(_RANKS, int(workers.counts.sum(axis=1).max()))
        for rank in range(1, ranks):
            wait = np.full(arrivals_s.size, half)
            gap = arrivals_s[rank:] - arrivals_s[:-rank]
            wait[: gap.size] = np.minimum(gap, half)
            release += _weight_at(rank, at_start, weights[order]) * wait
            idle = np.full(arrivals_s.size, half)
            idle[rank:] = np.minimum(gap, half)
            limit -= _weight_at(rank, at_end, weights[order]) * idle
    return np.maximum.accumulate(release) if release.size else release, limit


def _by_rank(counts: Floats, order: Ints) -> Floats:
    ranked: Floats = np.cumsum(counts[:, order], axis=1)
    return ranked


def _weight_at(rank: int, ends: Floats, weights: Floats) -> Floats:
    """The weight of the worker of this rank (0 the heaviest); 0 where there are fewer workers."""
    column = (ends <= rank).sum(axis=1)
    found: Floats = np.append(weights, 0.0)[column]
    return found


def accept(segments: Segments, release: Floats, limit: Floats, bonus: float | None) -> Accepted:
    """The programme's optimum of `bonus` x served + quality, or of served first where `bonus` is None."""
    n, columns = segments.work.shape
    if n == 0:
        return Accepted(0.0, 0.0)
    total = segments.work.sum(axis=1)
    done = np.cumsum(total)
    full = done + np.maximum.accumulate(release - (done - total))
    # Where the fluid queue is empty even at everyone's most work, the horizon falls apart; what holds no late
    # request is all taken.
    tail = np.concatenate(([-np.inf], full[:-1]))
    block = np.cumsum(tail <= release) - 1
    late = np.bincount(block, weights=full > limit + 1e-9) > 0
    refused = np.zeros(n * columns)
    hot = np.flatnonzero(late[block])
    if hot.size:
        _refuse_flattest(segments, release, limit, bonus, hot, refused)
    share = 1.0 - np.divide(
        refused.reshape(n, columns),
        segments.work,
        out=np.zeros_like(segments.work),
        where=segments.work > 0,
    )
    share[segments.work == 0] = 0.0
    return Accepted(float(share[:, 0].sum()), float((share * segments.quality).sum()))


def _ranks(segments: Segments, bonus: float | None) -> Ints:
    """Each segment's place in the order of slopes, from the flattest; a request's own keep their order."""
    n, columns = segments.work.shape
    first = np.zeros((n, columns))
    first[:, 0] = 1.0
    work = np.where(segments.work > 0, segments.work, np.inf)
    position = np.broadcast_to(-np.arange(columns), (n, columns)).ravel()
    if bonus is None:
        order = np.lexsort((position, (segments.quality / work).ravel(), (first / work).ravel()))
    else:
        order = np.lexsort((position, ((segments.quality + bonus * first) / work).ravel()))
    rank = np.empty(n * columns, dtype=np.int64)
    rank[order] = np.arange(n * columns)
    return rank


def _refuse_flattest(
    segments: Segments,
    release: Floats,
    limit: Floats,
    bonus: float | None,
    hot: Ints,
    refused: Floats,
) -> None:
    """The pass over the requests `hot`: writes each segment's refused work to `refused`, flat."""
    columns = segments.work.shape[1]
    rank = _ranks(segments, bonus)
    flat_of = np.empty_like(rank)
    flat_of[rank] = np.arange(rank.size)
    left = segments.work.ravel()[flat_of].tolist()
    ranks = rank.reshape(-1, columns)[hot].tolist()
    works = segments.work[hot].tolist()
    cut: dict[int, float] = {}
    steepest: list[int] = []
    flattest: list[int] = []
    waiting, gone = 0.0, -np.inf
    for at, until, mine, work in zip(
        release[hot].tolist(), limit[hot].tolist(), ranks, works, strict=True
    ):
        passing = at - gone
        gone = at
        if passing >= waiting - 1e-12:
            steepest.clear()
            flattest.clear()
            waiting = 0.0
        else:
            waiting -= passing
            while passing > 0:
                top = -steepest[0]
                rest = left[top]
                if rest > passing:
                    left[top] = rest - passing
                    break
                passing -= rest
                left[top] = 0.0
                heappop(steepest)
                if not steepest:
                    break
        for key, length in zip(mine, work, strict=True):
            if length > 0:
                heappush(steepest, -key)
                heappush(flattest, key)
                waiting += length
        over = waiting - (until - at)
        while over > 1e-12 and flattest:
            low = flattest[0]
            rest = left[low]
            if rest > over:
                left[low] = rest - over
                cut[low] = cut.get(low, 0.0) + over
                waiting -= over
                break
            if rest > 0:
                over -= rest
                waiting -= rest
                left[low] = 0.0
                cut[low] = cut.get(low, 0.0) + rest
            heappop(flattest)
    if cut:
        keys = np.fromiter(cut.keys(), dtype=np.int64, count=len(cut))
        refused[flat_of[keys]] = np.fromiter(cut.values(), dtype=np.float64, count=len(cut))
