"""Proteus (ASPLOS'24): prompts go to the plan's variants by share, whichever prompt it is.

Its batching waits until the first deadline less the time of a batch with one more, so that batches
fill. Workers here batch at step boundaries: a request joins at once and delays nobody's start, so
there is nothing to wait for. With batches of one the rule is the same as starting at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from gesso.plan import LevelPlan
from gesso_router.routing.baselines.common import NO_WORKER, allowed, at_most, in_time, pick
from gesso_router.routing.quality import Option
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal, WorkerView


def route_proteus(ask: Ask, fleet: FleetView, draw: float) -> Choice | Refusal:
    """A variant by the plan's shares among those that are manned, on its least loaded worker."""
    options = {model: allowed(ask, model) for model in {w.model for w in fleet.workers}}
    workers = [
        w for w in fleet.workers if w.name not in ask.exclude and (not w.model or options[w.model])
    ]
    if not workers:
        return NO_WORKER
    mine = _drawn(workers, fleet.plan.levels if fleet.plan is not None else (), draw)
    worker = min(mine, key=lambda w: w.backlog_seconds)
    return in_time(worker, _option(worker, options[worker.model]), ask, fleet)


def _drawn(
    workers: Sequence[WorkerView], levels: Sequence[LevelPlan], draw: float
) -> Sequence[WorkerView]:
    """The workers of the variant that was drawn; all, where the plan gives none of them a share."""
    manned = []
    for level in levels:
        mine = [w for w in workers if _serves(w, level)]
        if mine and level.share > 0:
            manned.append((level.share, mine))
    if not manned:
        return workers
    return manned[pick([share for share, _ in manned], draw)[0]][1]


def _serves(worker: WorkerView, level: LevelPlan) -> bool:
    if worker.model != level.model or (level.device and worker.profile.device != level.device):
        return False
    return bool(level.model) or worker.assigned_skipped_steps == level.skipped_steps


def _option(worker: WorkerView, options: Sequence[Option]) -> Option:
    """The worker's own variant, at the largest held level below where its level is not held."""
    return options[0] if worker.model else at_most(options, worker.assigned_skipped_steps)
