"""The figures of a policy's run: counts, ratios and means, and the distance to the bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gesso_simulator.reports.result import LATE, LOST, SERVED, SHED, PolicyResult


@dataclass(frozen=True)
class Figures:
    """One policy in figures. Ratios and qualities are shares, 0 to 1; means are over what was served in time.

    `violation_ratio` counts late, shed and lost requests among those offered. Means are None where nothing
    was served, the ratio 0 where nothing was offered.
    """

    offered: int
    served_in_slo: int
    late: int
    shed: int
    lost: int
    violation_ratio: float
    relative_quality: float | None
    mean_skipped_steps: float | None
    plan_changes: int
    switches: int
    worker_hours: float
    latency_p50_s: float | None
    latency_p95_s: float | None
    #: Figures that only some runs have, such as those of a simulated cache, by name.
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BoundFigures:
    """What no policy with the same knowledge can beat; `worker_hours` where the fleet's size is part of it."""

    violation_ratio: float
    relative_quality: float | None
    worker_hours: float | None = None


#: The bounds of a scenario by name: `informed`, which knows all arrivals and of each prompt the prediction, and
#: `clairvoyant`, which knows the true curves too.
Bounds = Mapping[str, BoundFigures]


@dataclass(frozen=True)
class Distance:
    """How much more a policy violates than a bound, and how much less quality it gives, in points."""

    violation_points: float
    quality_points: float | None


def summarise(result: PolicyResult, slo_s: float) -> Figures:
    """The figures of a run. Raises ValueError where an outcome contradicts the SLO: served, but too late."""
    count = np.bincount(result.outcome, minlength=4)
    served = result.outcome == SERVED
    latency = (result.finish_s - result.arrival_s)[served]
    if len(latency) and not float(latency.max()) <= slo_s * (1 + 1e-9):
        raise ValueError(
            f"outcome: served after {float(latency.max()):g} s is not allowed: within {slo_s:g} s"
        )
    offered = len(result)

    def mean(values: NDArray[np.float64] | NDArray[np.int64]) -> float | None:
        return float(values[served].mean()) if served.any() else None

    return Figures(
        offered=offered,
        served_in_slo=int(count[SERVED]),
        late=int(count[LATE]),
        shed=int(count[SHED]),
        lost=int(count[LOST]),
        violation_ratio=float(offered - count[SERVED]) / offered if offered else 0.0,
        relative_quality=mean(result.relative_quality),
        mean_skipped_steps=mean(result.served_k),
        plan_changes=result.plan_changes,
        switches=result.switches,
        worker_hours=result.worker_hours,
        latency_p50_s=float(np.percentile(latency, 50)) if len(latency) else None,
        latency_p95_s=float(np.percentile(latency, 95)) if len(latency) else None,
        extra=result.extra,
    )


def distance(figures: Figures, bound: BoundFigures) -> Distance:
    """How far a policy is from a bound."""
    quality = None
    if figures.relative_quality is not None and bound.relative_quality is not None:
        quality = 100 * (bound.relative_quality - figures.relative_quality)
    return Distance(100 * (figures.violation_ratio - bound.violation_ratio), quality)


@dataclass(frozen=True)
class Series:
    """A run over time, in bins (b,) of `bin_s` seconds that begin at `starts_s`; rates are per minute.

    `quality` is NaN in bins where nothing was served. A request counts in the bin of its arrival.
    """

    bin_s: float
    starts_s: NDArray[np.float64]
    offered: NDArray[np.float64]
    served: NDArray[np.float64]
    violations: NDArray[np.float64]
    quality: NDArray[np.float64]


def over_time(result: PolicyResult, duration_s: float, bin_s: float) -> Series:
    """The run in bins of equal length; a last one that reaches beyond the end counts up to there."""
    bins = max(1, int(np.ceil(duration_s / bin_s - 1e-9)))
    starts = np.arange(bins, dtype=np.float64) * bin_s
    lengths = np.minimum(bin_s, duration_s - starts) / 60.0
    place = np.minimum((result.arrival_s / bin_s).astype(np.int64), bins - 1)
    ok = result.outcome == SERVED
    offered = np.bincount(place, minlength=bins)
    served = np.bincount(place[ok], minlength=bins)
    total = np.bincount(place[ok], result.relative_quality[ok], minlength=bins)
    quality = np.where(served > 0, total / np.maximum(served, 1), np.nan)
    return Series(
        bin_s, starts, offered / lengths, served / lengths, (offered - served) / lengths, quality
    )
