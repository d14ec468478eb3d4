"""NIRVANA (NSDI'24): K from the similarity of the nearest cached prompt alone, whatever the load."""

from __future__ import annotations

from collections.abc import Sequence

from gesso_router.routing.baselines.common import (
    NO_WORKER,
    allowed,
    at_most,
    candidates,
    in_time,
    least_outstanding,
)
from gesso_router.routing.predictors.thresholds import NIRVANA_STEPS, NIRVANA_THRESHOLDS
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal


def tolerated_k(similarity: float, steps: int) -> int:
    """The K up to which the thresholds let a prompt skip, scaled to `steps`; 0 for a miss, NaN included."""
    passed = [k for threshold, k in NIRVANA_THRESHOLDS if similarity > threshold]
    return round(max(passed, default=0) * steps / NIRVANA_STEPS)


def optimal_k(similarity: float, ladder: Sequence[int], steps: int) -> int:
    """The optimal K of a prompt: the largest level of the ladder that the thresholds let it skip."""
    most = tolerated_k(similarity, steps)
    return max((k for k in ladder if k <= most), default=0)


def nearest_similarity(ask: Ask) -> float:
    """Similarity of the nearest entry that a prompt may start from; -1 without one."""
    return max((o.match.similarity for o in ask.options if o.match is not None), default=-1.0)


def route_nirvana(ask: Ask, fleet: FleetView, draw: float) -> Choice | Refusal:
    """The wanted K, or the largest held level below it, on the worker with the fewest requests.

    Of several entries each counts by its own similarity.
    """
    workers = candidates(ask, fleet)
    if not workers:
        return NO_WORKER
    fit = [
        o
        for o in allowed(ask)
        if o.match is None or o.skipped_steps <= tolerated_k(o.match.similarity, ask.steps)
    ]
    option = at_most(fit, ask.steps)
    return in_time(least_outstanding(workers, fleet.dispatched), option, ask, fleet)
