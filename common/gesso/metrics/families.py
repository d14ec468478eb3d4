"""Prometheus' types for what the catalogue declares; what it does not declare cannot be exposed."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)

from gesso.metrics.catalogue import CATALOGUE, Kind, Spec

#: Values of a metric's labels, in their order.
L = TypeVar("L", bound=tuple[str, ...])


def _spec(name: str, kind: Kind) -> Spec:
    spec = CATALOGUE[name]
    if spec.kind != kind:
        raise TypeError(f"{name}: a {kind} is not allowed: it is declared as a {spec.kind}")
    return spec


def counter(name: str, rows: Mapping[L, float] | float) -> CounterMetricFamily:
    """A counter with a value, or with one for each tuple of labels."""
    spec = _spec(name, "counter")
    family = CounterMetricFamily(spec.name, spec.says, labels=spec.labels)
    for labels, value in _rows(rows):
        family.add_metric(labels, value)
    return family


def gauge(name: str, rows: Mapping[L, float] | float) -> GaugeMetricFamily:
    """A gauge with a value, or with one for each tuple of labels."""
    spec = _spec(name, "gauge")
    family = GaugeMetricFamily(spec.name, spec.says, labels=spec.labels)
    for labels, value in _rows(rows):
        family.add_metric(labels, value)
    return family


def summary(name: str, rows: Mapping[L, tuple[int, float]]) -> SummaryMetricFamily:
    """A summary: count and sum for each tuple of labels."""
    spec = _spec(name, "summary")
    family = SummaryMetricFamily(spec.name, spec.says, labels=spec.labels)
    for labels, (count, total) in rows.items():
        family.add_metric(labels, count, total)
    return family


class Histogram:
    """Counts by upper bound, ascending; the last bucket has none."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Raises ValueError if the bounds do not ascend."""
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"bounds: {bounds} is not allowed: ascending")
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value


def histogram(name: str, rows: Mapping[L, Histogram]) -> HistogramMetricFamily:
    """A histogram for each tuple of labels."""
    spec = _spec(name, "histogram")
    family = HistogramMetricFamily(spec.name, spec.says, labels=spec.labels)
    for labels, told in rows.items():
        running, buckets = 0, []
        for bound, count in zip((*map(str, told.bounds), "+Inf"), told.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        family.add_metric(labels, buckets, told.sum)
    return family


def _rows(rows: Mapping[L, float] | float) -> Sequence[tuple[tuple[str, ...], float]]:
    return list(rows.items()) if isinstance(rows, Mapping) else [((), rows)]
