"""Shapes of quality curves: straight lines between points, and curves that never rise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    """On the straight lines between points (x, y), x ascending; the end's y beyond."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * max(0.0, x - x0) / (x1 - x0)
    return points[-1][1]


def never_rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Weighted isotonic regression, falling, by pooling adjacent violators."""
    if all(a >= b for a, b in pairwise(values)):
        return list(values)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, total, length = value, weight, 1
        while blocks and blocks[-1][0] < mean:
            m, w, n = blocks.pop()
            mean, total, length = (mean * total + m * w) / (total + w), total + w, length + n
        blocks.append((mean, total, length))
    return [mean for mean, _, length in blocks for _ in range(length)]
