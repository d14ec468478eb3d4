"""What time slots see of the requests: how many came in each, and what their work can buy at a price."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .frontier import Segments
from .instance import Floats, Ints


@dataclass(frozen=True)
class Slots:
    """Equal slots from 0 on: each request's, and how many (`reach`) a window touches, its own included."""

    seconds: float
    count: int
    of_request: Ints
    reach: int

    @staticmethod
    def cover(arrivals_s: Floats, slo_s: float, seconds: float, end_s: float) -> Slots:
        """Slots of that length to `end_s` and to the last deadline, whichever is later."""
        last = float(arrivals_s[-1]) if arrivals_s.size else 0.0
        reach = math.ceil(1 + slo_s / seconds - 1e-9)
        of_request = np.floor_divide(arrivals_s, seconds).astype(np.int64)
        count = max(math.ceil(end_s / seconds - 1e-9), int(last / seconds) + reach)
        return Slots(seconds, count, of_request, reach)

    def sum(self, per_request: Floats) -> Floats:
        """Per slot, the sum over the requests that came in it."""
        total = np.bincount(self.of_request, weights=per_request, minlength=self.count)
        return total.astype(np.float64)

    def extreme(self, per_request: Floats, *, largest: bool) -> Floats:
        """Per slot, the largest or the least over its requests; 0 where none came."""
        found: Floats = np.full(self.count, -np.inf if largest else np.inf)
        (np.maximum if largest else np.minimum).at(found, self.of_request, per_request)
        return np.where(np.isfinite(found), found, 0.0)


def upgrade_lines(segments: Segments, slots: Slots, prices: Floats) -> tuple[Floats, Floats]:
    """Lengths and slopes of a concave function over each slot's upgrade work that lies nowhere under its true
    frontier.

    The frontier is what the slot's requests gain beyond their first segment. For each price p, its tangent of
    slope p bounds it: the function is the least of these tangents, so exact where `prices` holds every slope.
    Both results are (slots, prices + 1), slopes falling; their segments are filled from the left.
    """
    slope = segments.slope[:, 1:]
    work, quality = segments.work[:, 1:], segments.quality[:, 1:]
    steepest = float(slope.max(initial=0.0))
    inner = np.unique(prices[(prices > 0) & (prices < steepest)])[::-1]
    tangents = np.concatenate(([steepest], inner, [0.0]))
    height = np.column_stack(
        [slots.sum((quality - p * work).clip(min=0).sum(axis=1)) for p in tangents]
    )
    gaps = tangents[:-1] - tangents[1:]
    ends = np.diff(height, axis=1) / np.where(gaps > 0, gaps, 1.0)
    lengths = np.diff(ends, axis=1, prepend=0.0).clip(min=0.0)
    return lengths, np.broadcast_to(tangents[:-1], lengths.shape)


def typical_slopes(segments: Segments, most: int) -> Floats:
    """The slopes of all upgrades if there are at most `most`, else that many quantiles of them by work."""
    slope, work = segments.slope[:, 1:].ravel(), segments.work[:, 1:].ravel()
    slope, work = slope[work > 0], work[work > 0]
    distinct = np.unique(slope)
    if distinct.size <= most:
        return distinct
    order = np.argsort(slope)
    rank = np.cumsum(work[order])
    at = np.searchsorted(rank, rank[-1] * (np.arange(most) + 0.5) / most)
    return np.unique(slope[order][np.minimum(at, order.size - 1)])
