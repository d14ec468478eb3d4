"""Argus (Middleware'25): optimal K by similarity, redirected by the route plan, served by hard partitions.

A prompt's optimal K leads to K' by the plan's redirection matrix, drawn at random, and only workers
assigned to K' may serve it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gesso.plan import Plan
from gesso_router.routing.baselines.common import (
    NO_WORKER,
    allowed,
    at_most,
    candidates,
    in_time,
    least_outstanding,
    pick,
)
from gesso_router.routing.baselines.nirvana import nearest_similarity, tolerated_k
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal, WorkerView


def redirected(index: int, rows: Sequence[Sequence[float]], draw: float) -> int:
    """The level to which a prompt of level `index` goes: after a move to a slower level it is drawn again.

    `rows` is row-stochastic, levels ascending in K; all draws are made of the one given.
    """
    while True:
        target, draw = pick(rows[index], draw)
        if target >= index:
            return target
        index = target


def route_argus(ask: Ask, fleet: FleetView, draw: float) -> Choice | Refusal:
    """K' by the plan, on a worker assigned to K'; where none is, of the nearest slower level, then faster."""
    workers = candidates(ask, fleet)
    if not workers:
        return NO_WORKER
    wanted = _planned_level(tolerated_k(nearest_similarity(ask), ask.steps), fleet.plan, draw)
    level = _manned_level(wanted, workers)
    mine = [w for w in workers if w.assigned_skipped_steps == level]
    option = at_most(allowed(ask), level)
    return in_time(_filled(mine, fleet.dispatched), option, ask, fleet)


def _planned_level(tolerated: int, plan: Plan | None, draw: float) -> int:
    """K' of a prompt; its optimal K without a route plan."""
    if plan is None:
        return tolerated
    ladder = sorted({level.skipped_steps for level in plan.levels if not level.model})
    if not ladder or len(plan.route) != len(ladder):
        return tolerated
    index = max(0, sum(k <= tolerated for k in ladder) - 1)
    return ladder[redirected(index, plan.route, draw)]


def _manned_level(wanted: int, workers: Sequence[WorkerView]) -> int:
    levels = {w.assigned_skipped_steps for w in workers}
    slower = [k for k in levels if k <= wanted]
    return max(slower) if slower else min(levels)


def _filled(workers: Sequence[WorkerView], turn: int) -> WorkerView:
    """Spread evenly while someone is idle; then the fullest batch that has room; then the least load."""
    if any(not w.outstanding for w in workers):
        return least_outstanding(workers, turn)
    room = [w for w in workers if w.outstanding < w.profile.max_batch]
    if room:
        return max(room, key=lambda w: w.outstanding)
    return min(workers, key=lambda w: w.backlog_seconds)
