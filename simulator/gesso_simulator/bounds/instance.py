"""What a bound is asked about: arrivals, curves, deadline and fleet, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ValueError(f"{name}: {value} is not allowed: {allowed}")


@dataclass(frozen=True)
class Workers:
    """Workers per device class, as a step function of time.

    `counts[j]` (one entry per device class) holds from `times_s[j]` (seconds, the first one 0, ascending) to
    the next; the last one holds for good.
    """

    times_s: Floats
    counts: Floats

    def __post_init__(self) -> None:
        times, counts = np.asarray(self.times_s), np.asarray(self.counts)
        if times.ndim != 1 or times.size == 0 or times[0] != 0 or not (np.diff(times) > 0).all():
            _refuse("workers.times_s", times, "ascending from 0")
        if counts.ndim != 2 or counts.shape[0] != times.size or counts.shape[1] == 0:
            _refuse("workers.counts", counts.shape, "one row per time, one column per device class")
        if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.rint(counts)).any():
            _refuse("workers.counts", counts, "whole numbers, 0 or more")

    @staticmethod
    def constant(*counts: int) -> Workers:
        """The same number of workers of each device class throughout."""
        return Workers(np.zeros(1), np.array([counts], dtype=np.float64))

    def worker_seconds(self, at_s: Floats, weights: Floats) -> Floats:
        """Worker-seconds from 0 to each time, those of device class d times `weights[d]`."""
        rate = self.counts @ weights
        before = np.concatenate(([0.0], np.cumsum(rate[:-1] * np.diff(self.times_s))))
        step = np.searchsorted(self.times_s, at_s, side="right") - 1
        result: Floats = before[step] + rate[step] * (at_s - self.times_s[step])
        return result

    def fewest(self, from_s: Floats, to_s: Floats) -> Floats:
        """The fewest workers at any time in [from, to]: an array (times, device classes)."""
        ends = np.append(self.times_s[1:], np.inf)
        least = np.full((from_s.size, self.counts.shape[1]), np.inf)
        for start, end, count in zip(self.times_s, ends, self.counts, strict=True):
            inside = (from_s < end) & (to_s >= start)
            least[inside] = np.minimum(least[inside], count)
        return least


@dataclass(frozen=True)
class Models:
    """The models that the variants belong to, and what it costs a worker to move between them.

    `of_variant[k]` is the model of variant k, numbered from 0. `switch_seconds[a, b]` is how long a worker
    serves nothing when it moves from model a to model b. `first` is the number of workers that hold each
    model at the start; None lets the bound choose.
    """

    of_variant: Ints
    switch_seconds: Floats
    first: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        count = self.switch_seconds.shape[0]
        if self.switch_seconds.shape != (count, count) or not (self.switch_seconds >= 0).all():
            _refuse("models.switch_seconds", self.switch_seconds, "a square of seconds, 0 or more")
        if not ((self.of_variant >= 0) & (self.of_variant < count)).all():
            _refuse("models.of_variant", self.of_variant, f"0 to {count - 1}")
        if self.first is not None and len(self.first) != count:
            _refuse("models.first", self.first, f"{count} numbers of workers")


@dataclass(frozen=True)
class Elastic:
    """A fleet that grows and shrinks between two numbers of workers, and what it has to reach.

    A worker is paid for from its start, and serves from `start_seconds` later on. The aim is the fewest
    worker-hours at a mean relative quality of at least `min_quality` over the served, with at most a share
    `max_violations` not served in time.
    """

    min_workers: int
    max_workers: int
    start_seconds: float
    min_quality: float
    max_violations: float
    slot_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_workers <= self.max_workers:
            _refuse("elastic.min_workers", self.min_workers, f"0 to {self.max_workers}")
        if not (self.start_seconds >= 0 and self.slot_seconds > 0):
            _refuse("elastic.slot_seconds", self.slot_seconds, "above 0, start_seconds 0 or more")
        if not 0 <= self.max_violations <= 1:
            _refuse("elastic.max_violations", self.max_violations, "0 to 1")


@dataclass(frozen=True)
class BoundInstance:
    """One workload on one fleet.

    - `arrivals_s` (n): arrival times in seconds, ascending, from 0.
    - `quality` (n, variants): true relative quality of each request at each variant; NaN or 0 where the
      variant cannot serve the request.
    - `class_of` (n): what the prediction tells of each request; the prediction is that class's mean curve.
    - `slo_s`: seconds from arrival to the deadline, the same for all.
    - `service_s` (device classes, variants): worker-seconds that one request takes; infinite where a device
      class cannot.
    - `workers`: the fleet; of an elastic one only the number of device classes counts.
    - `at_once`: requests that one worker runs at the same time; with more than one, `service_s` is per
      request of the best batch.
    - `end_s`: until when worker-hours are paid for; None is the last deadline.
    """

    arrivals_s: Floats
    quality: Floats
    class_of: Ints
    slo_s: float
    service_s: Floats
    workers: Workers
    at_once: int = 1
    end_s: float | None = None
    models: Models | None = None
    elastic: Elastic | None = None

    def __post_init__(self) -> None:
        n, variants = self.quality.shape
        a = self.arrivals_s
        if (
            a.shape != (n,)
            or not np.isfinite(a).all()
            or (n > 0 and a[0] < 0)
            or (np.diff(a) < 0).any()
        ):
            _refuse("arrivals_s", a.shape, f"{n} times, ascending from 0")
        if self.class_of.shape != (n,):
            _refuse("class_of", self.class_of.shape, f"one class for each of {n} requests")
        if np.isinf(self.quality).any() or (self.quality < 0).any():
            _refuse("quality", "a negative or infinite value", "0 or more, or NaN")
        if self.service_s.ndim != 2 or self.service_s.shape[1] != variants:
            _refuse("service_s", self.service_s.shape, f"device classes x {variants} variants")
        if not (self.service_s > 0).all():
            _refuse("service_s", self.service_s, "above 0")
        if self.workers.counts.shape[1] != self.service_s.shape[0]:
            _refuse("workers.counts", self.workers.counts.shape, "one column per row of service_s")
        if not (np.isfinite(self.slo_s) and self.slo_s > 0):
            _refuse("slo_s", self.slo_s, "above 0")
        if self.at_once < 1:
            _refuse("at_once", self.at_once, "1 or more")
        if self.models is not None and self.models.of_variant.shape != (variants,):
            _refuse("models.of_variant", self.models.of_variant.shape, f"({variants},)")
        if self.models is not None and self.elastic is not None:
            _refuse("elastic", "set", "None where models is set")
        if (self.models or self.elastic) and self.service_s.shape[0] != 1:
            _refuse("service_s", self.service_s.shape, "one device class with models or elastic")
        if self.models is not None and self.workers.times_s.size != 1:
            _refuse("workers.times_s", self.workers.times_s, "a constant fleet with models")

    @property
    def horizon_s(self) -> float:
        """Seconds that are paid for."""
        if self.end_s is not None:
            return self.end_s
        return float(self.arrivals_s[-1]) + self.slo_s if self.arrivals_s.size else 0.0

    def curves(self, *, informed: bool) -> Floats:
        """Relative quality (n, variants) as the bound may know it; NaN where a variant cannot serve a request
        in time.

        The clairvoyant one knows the true curves. The informed one knows which variants can serve a request,
        and of the rest the mean true curve over the requests of the same class for which the same variants
        can: a prediction that is perfectly calibrated at that resolution.
        """
        in_time = (self.service_s <= self.slo_s).any(axis=0)
        known = np.where((self.quality > 0) & in_time, self.quality, np.nan)
        if not informed:
            return known
        servable = ~np.isnan(known)
        keys = np.column_stack((self.class_of, servable.astype(np.int64)))
        _, group = np.unique(keys, axis=0, return_inverse=True)
        group = group.ravel()
        members = np.maximum(np.bincount(group), 1)
        means = np.column_stack(
            [np.bincount(group, weights=column) / members for column in np.nan_to_num(known).T]
        )
        return np.where(servable, means[group], np.nan)
