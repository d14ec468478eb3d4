"""Arrival times of a Poisson process whose rate follows a piecewise-linear shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class RateShape:
    """A rate over time: straight lines between the points `(at_s, rate)`, rates in any one unit.

    Raises ValueError unless the points start at 0, ascend in time and hold no negative rate.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [t for t, _ in self.points]
        if len(times) < 2 or times[0] != 0 or any(b <= a for a, b in pairwise(times)):
            raise ValueError(
                f"points: times {times} are not allowed: ascending from 0, two at least"
            )
        if any(rate < 0 for _, rate in self.points):
            raise ValueError("points: a rate below 0 is not allowed")

    @property
    def seconds(self) -> float:
        """The span of the shape."""
        return self.points[-1][0]

    def rate(self, at_s: float) -> float:
        """The rate at a time; outside the span, that of the nearer end."""
        times, rates = zip(*self.points, strict=True)
        return float(np.interp(at_s, times, rates))

    def mean(self) -> float:
        """The mean rate over the span."""
        area = sum((r0 + r1) / 2 * (t1 - t0) for (t0, r0), (t1, r1) in pairwise(self.points))
        return area / self.seconds

    def scaled(self, seconds: float, unit_rate: float) -> RateShape:
        """The same shape over another span, its rates times `unit_rate`."""
        stretch = seconds / self.seconds
        return RateShape(tuple((t * stretch, rate * unit_rate) for t, rate in self.points))


#: A day in three minutes, in units of the fleet's capacity at K = 0: a quiet night, a steep morning, a plateau
#: that full generation cannot serve, a calm afternoon, a short evening peak, and the night again. Mean 0.72.
SWING = RateShape(
    (
        (0.0, 0.3),
        (30.0, 0.3),
        (58.0, 1.6),
        (72.0, 1.6),
        (88.0, 0.5),
        (130.0, 0.5),
        (142.0, 1.2),
        (149.0, 1.2),
        (162.0, 0.3),
        (180.0, 0.3),
    )
)


def poisson_arrivals(shape: RateShape, rng: np.random.Generator) -> list[float]:
    """Arrival times in seconds, ascending, of an inhomogeneous Poisson process (Lewis and Shedler's thinning).

    `shape` has rates in arrivals per second.
    """
    peak = max(rate for _, rate in shape.points)
    arrivals: list[float] = []
    at = 0.0
    while peak > 0:
        at += float(rng.exponential(1 / peak))
        if at >= shape.seconds:
            break
        if rng.random() * peak < shape.rate(at):
            arrivals.append(at)
    return arrivals
