"""One bound for any instance: which programme applies, how long it took, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from .elastic import least_worker_hours
from .family import least_violations_of_family
from .fixed import best_quality_at, least_violations
from .instance import BoundInstance


@dataclass(frozen=True)
class Bound:
    """What no policy beats: the least violation ratio, and the best mean relative quality (0..1) over the
    served there.

    Of an elastic fleet, the least worker-hours at its aim, and the violations and quality of that optimum: it
    is infinite where the aim is out of reach. `how` names the programme.
    """

    violation_ratio: float
    relative_quality: float
    worker_hours: float
    solve_seconds: float
    how: str


def bound(instance: BoundInstance, *, informed: bool) -> Bound:
    """The informed or the clairvoyant bound of an instance."""
    start = perf_counter()
    if instance.elastic is not None:
        found = least_worker_hours(instance, informed=informed)
        violations, quality, hours = (
            found.violation_ratio,
            found.relative_quality,
            found.worker_hours,
        )
        how = f"programme over slots of {instance.elastic.slot_seconds:g} s"
    else:
        violations, quality, how = least_violations(instance, informed=informed)
        hours = _worker_hours(instance)
        if instance.models is not None and instance.arrivals_s.size:
            violations, quality, how = _with_switches(instance, violations, quality, informed)
    return Bound(violations, quality, hours, perf_counter() - start, how)


def _with_switches(
    instance: BoundInstance, violations: float, quality: float, informed: bool
) -> tuple[float, float, str]:
    """The tighter of two relaxations: free switches in fine windows, and paid ones in slots."""
    paid = least_violations_of_family(instance, informed=informed)
    how = "tighter of fluid queue (free switches) and programme over slots (paid switches)"
    close = 1e-6
    if paid.violation_ratio >= 1:
        return 1.0, 0.0, how
    if paid.violation_ratio > violations + close:
        at_more = best_quality_at(instance, paid.violation_ratio, informed=informed)
        return paid.violation_ratio, min(paid.relative_quality, at_more), how
    if violations > paid.violation_ratio + close:
        # The slots' optimum serves more than can be served: its quality says nothing of the rest.
        return violations, quality, how
    return violations, min(quality, paid.relative_quality), how


def _worker_hours(instance: BoundInstance) -> float:
    every = np.ones(instance.service_s.shape[0])
    seconds = instance.workers.worker_seconds(np.array([instance.horizon_s]), every)
    return float(seconds[0]) / 3600
