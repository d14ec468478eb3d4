"""What more work buys each request: the upper concave hull of quality over work, segment by segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .instance import Floats


@dataclass(frozen=True)
class Segments:
    """Each request's hull from no work at all to its best variant, in falling order of what work buys.

    All arrays are (n, segments). The first segment takes a request from shed to served, the others raise its
    quality; `work` is 0 where a request has no such segment.
    """

    work: Floats
    quality: Floats

    @property
    def slope(self) -> Floats:
        """Quality per unit of work; 0 where there is no segment."""
        return np.divide(self.quality, self.work, out=np.zeros_like(self.work), where=self.work > 0)


def hull(curves: Floats, cost: Floats, bonus: float | None) -> Segments:
    """Upper concave hulls of the points (0, 0) and (cost, bonus + quality) of each request, up to the best
    quality.

    `curves` is (n, variants) with NaN where a variant is not to be had, `cost` (variants) the work of each.
    `bonus` is what serving a request is worth beside its quality; None is infinite: serving comes first, so
    that the hull starts at the cheapest variant. The bonus itself is left out of `Segments.quality`.
    """
    n, variants = curves.shape
    usable = ~np.isnan(curves) & np.isfinite(cost)
    gain = np.where(usable, curves, -np.inf)
    work = np.zeros((n, variants))
    quality = np.zeros((n, variants))
    at_work, at_gain, at_quality = np.zeros(n), np.zeros(n), np.zeros(n)
    for segment in range(variants):
        first = segment == 0
        if first and bonus is None:
            # The cheapest one; of equals, the best.
            dearness = np.where(usable, cost, np.inf)
            ties = dearness == dearness.min(axis=1, keepdims=True)
            chosen = np.argmax(np.where(ties, gain, -np.inf), axis=1)
            better = usable.any(axis=1)
        else:
            reached = gain + (bonus or 0.0)
            run = cost - at_work[:, None]
            ahead = usable & (run > 0) & (reached > at_gain[:, None])
            rise = np.where(ahead, reached - at_gain[:, None], -np.inf)
            slope = np.where(ahead, rise / np.where(ahead, run, 1.0), -np.inf)
            # Of equal slopes the longest, or the next segment would run on the same line.
            ties = slope == slope.max(axis=1, keepdims=True)
            chosen = np.argmax(np.where(ties & ahead, cost, -1.0), axis=1)
            better = ahead.any(axis=1)
        rows = np.flatnonzero(better)
        picked = chosen[rows]
        work[rows, segment] = cost[picked] - at_work[rows]
        quality[rows, segment] = curves[rows, picked] - at_quality[rows]
        at_work[rows] = cost[picked]
        at_quality[rows] = curves[rows, picked]
        at_gain[rows] = curves[rows, picked] + (bonus or 0.0)
    return Segments(work, quality)
