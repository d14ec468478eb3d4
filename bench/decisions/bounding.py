"""What a fleet that lost workers could have done at best with the work that it had by then."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gesso_simulator.bounds import Workers, bound
from gesso_simulator.engine.bounding import instance_of
from gesso_simulator.reports.result import SERVED, PolicyResult
from gesso_simulator.scenarios.spec import ScenarioRun

#: From the loss until a policy must be back at what the workers left can do.
RECOVERY_S = 30.0


@dataclass(frozen=True)
class AfterLoss:
    """A policy from `RECOVERY_S` after the loss until the workers are back, beside the informed bound for the
    workers left, which begins with the policy's own backlog and knows all arrivals.
    """

    after_loss_violation_ratio: float
    after_loss_relative_quality: float
    after_loss_bound_violation_ratio: float
    after_loss_bound_relative_quality: float


def after_loss(result: PolicyResult, run: ScenarioRun) -> AfterLoss:
    """`run` is one whose workers are lost all at once; its requests are those of `result`."""
    since = run.events[0].at_s + RECOVERY_S
    until = max(event.at_s for event in run.events)
    fewer = len(run.workers) - sum(event.kind == "lost" for event in run.events)
    arrived = result.arrival_s
    inside = (arrived >= since) & (arrived < until)
    under_way = (arrived < since) & np.isfinite(result.finish_s) & (result.finish_s > since)
    left = result.finish_s[under_way] - np.maximum(result.start_s[under_way], since)
    instance = instance_of(run)
    mine = (instance.arrivals_s >= since) & (instance.arrivals_s < until)
    # Workers that are busy with the backlog first are as good as absent so long.
    best = bound(
        replace(
            instance,
            arrivals_s=instance.arrivals_s[mine],
            quality=instance.quality[mine],
            class_of=instance.class_of[mine],
            workers=Workers(
                np.array([0.0, since + float(left.sum()) / fewer]),
                np.array([[0.0], [float(fewer)]]),
            ),
        ),
        informed=True,
    )
    return AfterLoss(
        float((result.outcome[inside] != SERVED).mean()),
        float(np.nanmean(result.relative_quality[inside])),
        best.violation_ratio,
        best.relative_quality,
    )
