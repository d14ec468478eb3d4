"""Relative quality measured by similarity: the table `quality.json` of a model's folder."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gesso_router.routing.predictors.classing import Classing
from gesso_router.routing.predictors.curves import interpolate, never_rising
from gesso_router.routing.quality import MISS, Vector


@dataclass(frozen=True)
class SimilarityPredictor(Classing):
    """Quality measured by similarity, smoothed over neighbouring bins, linear between the bins' centres.

    Below the lowest centre and above the highest the end's curve holds: nothing is extrapolated.
    """

    ladder: tuple[int, ...]
    bounds: tuple[
        tuple[float, float], ...
    ]  # (similarity_min, similarity_max) of each bin, ascending
    curves: tuple[tuple[float, ...], ...]  # one for each bin, over the ladder
    counts: tuple[float, ...] = ()  # prompts measured in each bin; empty: not told

    @classmethod
    def from_table(
        cls, table: Mapping[str, Any], ladder: Sequence[int], steps: int
    ) -> SimilarityPredictor:
        """From a model folder's `quality.json`.

        `skipped_steps` are the K measured, out of `total_steps` (absent: of the service's); each of
        `by_similarity` has `similarity_min`, `similarity_max`, `n`, `mean` and `sem` (standard
        error), the last two one value for each K. Raises ValueError, naming the field, on a
        malformed table or a ladder that goes beyond what was measured.
        """
        measured = tuple(int(k) for k in _field(table, "skipped_steps"))
        if not measured or list(measured) != sorted(set(measured)) or measured[0] < 0:
            raise ValueError(f"skipped_steps: {list(measured)} is not allowed: ascending, from 0")
        scale = float(table.get("total_steps", steps)) / steps
        if max(ladder) * scale > measured[-1] + 1e-9:
            raise ValueError(
                f"skipped_steps: K = {max(ladder)} of the ladder was not measured: at most "
                f"{measured[-1] / scale:g}"
            )
        rows = sorted(
            _field(table, "by_similarity"), key=lambda row: _number(row, "similarity_min")
        )
        rows = [row for row in rows if _number(row, "n") > 0]
        if not rows:
            raise ValueError("by_similarity: empty is not allowed: at least one bin with n > 0")
        bounds, means, precisions = [], [], []
        for row in rows:
            low, high = _number(row, "similarity_min"), _number(row, "similarity_max")
            if low > high:
                raise ValueError(
                    f"similarity_min: {low} is not allowed: at most similarity_max, {high}"
                )
            bounds.append((low, high))
            means.append(_per_level(row, "mean", measured))
            sems = _per_level(row, "sem", measured) if "sem" in row else (0.02,) * len(measured)
            # A sem of 0 (one sample, or no spread) must not swallow its neighbours.
            precisions.append(tuple(1.0 / max(s, 0.003) ** 2 for s in sems))
        for a, b in pairwise(bounds):
            if a == b:
                raise ValueError(f"similarity_min: {b[0]} is not allowed: two bins are the same")
        curves = []
        for i in range(len(rows)):
            smooth, weights = _smoothed(means, precisions, i)
            falling = never_rising(smooth, weights)
            top = falling[0] if measured[0] == 0 else 1.0
            relative = [min(1.0, max(0.0, q / top)) if top > 0 else 0.0 for q in falling]
            points = list(zip(measured, relative, strict=True))
            if measured[0] > 0:
                points.insert(0, (0, 1.0))
            curves.append(tuple(interpolate(points, k * scale) for k in ladder))
        counts = tuple(_number(row, "n") for row in rows)
        return cls(tuple(ladder), tuple(bounds), tuple(curves), counts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """See QualityPredictor."""
        return (MISS, *(_bin_name(low, high) for low, high in self.bounds))

    def quality(
        self, similarity: float, prompt: Vector | None = None, neighbour: Vector | None = None
    ) -> tuple[float, ...]:
        """See QualityPredictor."""
        centres = _centres(self.bounds)
        j = bisect_right(centres, similarity)
        if j == 0 or math.isnan(similarity):
            return self.curves[0]
        if j == len(centres):
            return self.curves[-1]
        t = (similarity - centres[j - 1]) / (centres[j] - centres[j - 1])
        return tuple(
            a + (b - a) * t for a, b in zip(self.curves[j - 1], self.curves[j], strict=True)
        )

    def _rank(self, similarity: float, prompt: Vector | None, neighbour: Vector | None) -> int:
        return max(1, bisect_right([low for low, _ in self.bounds], similarity))


def _centres(bounds: Sequence[tuple[float, float]]) -> list[float]:
    """Where each bin's prompts lie: its middle.

    An end bin is open, as far as prompts go: one wider than its neighbour counts as wide as that.
    """
    centres = [(low + high) / 2 for low, high in bounds]
    if len(bounds) > 1:
        (low, high), (_, second) = bounds[0], bounds[1]
        centres[0] = high - min(high - low, second - high) / 2
        (last_but_one, _), (low, high) = bounds[-2], bounds[-1]
        centres[-1] = low + min(high - low, low - last_but_one) / 2
    return centres


def _bin_name(low: float, high: float) -> str:
    if low <= -1.0:
        return f"similarity-below-{high:.4g}"
    return f"similarity-{low:.4g}-{high:.4g}"


def _smoothed(
    means: Sequence[Sequence[float]], precisions: Sequence[Sequence[float]], i: int
) -> tuple[list[float], list[float]]:
    """Bin i averaged with its neighbours by precision, a neighbour at a quarter: noise falls, slopes stay."""
    near = [(j, 1.0 if j == i else 0.25) for j in (i - 1, i, i + 1) if 0 <= j < len(means)]
    values, weights = [], []
    for k in range(len(means[i])):
        parts = [share * precisions[j][k] for j, share in near]
        values.append(
            sum(p * means[j][k] for p, (j, _) in zip(parts, near, strict=True)) / sum(parts)
        )
        weights.append(sum(parts))
    return values, weights


def _field(table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise ValueError(f"{name}: missing")
    return table[name]


def _number(row: Mapping[str, Any], name: str) -> float:
    value = _field(row, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is not allowed: a finite number")
    return float(value)


def _per_level(row: Mapping[str, Any], name: str, measured: Sequence[int]) -> tuple[float, ...]:
    values = _field(row, name)
    if not isinstance(values, Sequence) or len(values) != len(measured):
        raise ValueError(
            f"{name}: {values!r} is not allowed: {len(measured)} values, one for each K"
        )
    numbers = tuple(float(v) for v in values)
    if any(not math.isfinite(v) for v in numbers):
        raise ValueError(f"{name}: {values!r} is not allowed: finite numbers")
    return numbers
