"""What a user would otherwise run: every image in full, behind a plain load balancer.

Neither policy looks at deadlines: the bound on the router's queue is all that refuses, and what is
late is late.
"""

from __future__ import annotations

from gesso_router.routing.baselines.common import (
    FULL,
    NO_WORKER,
    candidates,
    least_outstanding,
    placed,
)
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal


def route_round_robin(ask: Ask, fleet: FleetView, draw: float) -> Choice | Refusal:
    """K = 0, the workers in turn."""
    workers = candidates(ask, fleet)
    if not workers:
        return NO_WORKER
    return placed(workers[fleet.dispatched % len(workers)], FULL, ask, fleet)


def route_least_outstanding(ask: Ask, fleet: FleetView, draw: float) -> Choice | Refusal:
    """K = 0, the worker with the fewest requests; of equals the next in turn."""
    workers = candidates(ask, fleet)
    if not workers:
        return NO_WORKER
    return placed(least_outstanding(workers, fleet.dispatched), FULL, ask, fleet)
