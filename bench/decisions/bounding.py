"""The bounds of a run, and of the time in which workers are missing."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from gesso_simulator.bounds import Workers, bound
from gesso_simulator.engine.bounding import bounds_of, instance_of
from gesso_simulator.scenarios.spec import ScenarioRun


def bounds_with_loss(run: ScenarioRun) -> dict[str, Any]:
    """Both bounds in figures; where workers are lost, also those of the time without them."""
    found = {name: asdict(figures) for name, figures in bounds_of(run).items()}
    if run.events:
        lost, back = run.events[0].at_s, max(event.at_s for event in run.events)
        instance = instance_of(run)
        inside = (instance.arrivals_s >= lost + 30) & (instance.arrivals_s < back)
        fewer = len(run.workers) - sum(event.kind == "lost" for event in run.events)
        alone = replace(
            instance,
            arrivals_s=instance.arrivals_s[inside],
            quality=instance.quality[inside],
            class_of=instance.class_of[inside],
            workers=Workers(np.zeros(1), np.array([[float(fewer)]])),
        )
        for name, informed in (("informed", True), ("clairvoyant", False)):
            best = bound(alone, informed=informed)
            found[name]["after_loss_violation_ratio"] = best.violation_ratio
            found[name]["after_loss_relative_quality"] = best.relative_quality
    return found
