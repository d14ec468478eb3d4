"""Predicts relative quality over K for one prompt from the similarity of its nearest cached entries.

Similarity is the cosine between prompt embeddings. The level really used at a wanted K is the
largest held level <= K, so quality and cost follow the held level; without an entry only K = 0 can
be served.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from gesso.plan import QualityCurve

MISS = "miss"
#: Quality of a level that no held latent can serve, in curves made for planning.
UNSERVABLE = 0.0


@dataclass(frozen=True)
class Match:
    """An entry of the cache near a prompt: where it lies, how near, and the levels K > 0 held, ascending."""

    entry_id: str
    worker: str
    similarity: float
    held_levels: tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """One way to serve a prompt: K, its predicted relative quality (0 to 1), and the entry it starts from."""

    skipped_steps: int
    quality: float
    match: Match | None = None


class QualityPredictor(Protocol):
    """Similarity in, relative quality over the ladder out."""

    @property
    def ladder(self) -> tuple[int, ...]:
        """The levels, ascending, from 0."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every prompt class there is, `miss` first, then by rising similarity."""

    def quality(self, similarity: float) -> tuple[float, ...]:
        """Relative quality at each K of the ladder with all levels held: 1 first, never rising, 0 to 1."""

    def prompt_class(self, similarity: float | None) -> str:
        """The class of a prompt whose nearest entry has this similarity; None: no entry."""


def held_at(skipped_steps: int, held_levels: Iterable[int]) -> int:
    """The level really used at K: the largest held level <= K, 0 if there is none."""
    return max((k for k in held_levels if k <= skipped_steps), default=0)


def predicted_curve(predictor: QualityPredictor, match: Match | None) -> QualityCurve:
    """Quality over the ladder, each K served at the largest held level <= K."""
    ladder = predictor.ladder
    if match is None:
        return QualityCurve(ladder, (1.0,) * len(ladder))
    by_level = dict(zip(ladder, predictor.quality(match.similarity), strict=True))
    held = [k for k in match.held_levels if k in by_level]
    return QualityCurve(ladder, tuple(by_level[held_at(k, held)] for k in ladder))


def serving_options(predictor: QualityPredictor, matches: Sequence[Match]) -> tuple[Option, ...]:
    """Every K that can be served, ascending; at each the match with the highest predicted quality."""
    best: dict[int, Option] = {0: Option(0, 1.0)}
    for match in matches:
        by_level = dict(zip(predictor.ladder, predictor.quality(match.similarity), strict=True))
        for k in match.held_levels:
            quality = by_level.get(k)
            if quality is None or k == 0:
                continue
            known = best.get(k)
            if known is None or quality > known.quality:
                best[k] = Option(k, quality, match)
    return tuple(best[k] for k in sorted(best))


def planning_curve(options: Sequence[Option], ladder: Sequence[int]) -> QualityCurve:
    """Best quality when at least K steps are to be skipped: what a planner of capacity may count on.

    0 where nothing held saves that much: a planner that took the curve by held level at its word
    would count work as saved that is not.
    """
    return QualityCurve(
        tuple(ladder),
        tuple(
            max((o.quality for o in options if o.skipped_steps >= k), default=UNSERVABLE)
            for k in ladder
        ),
    )


@dataclass(frozen=True)
class SimilarityPredictor:
    """Quality measured by similarity, smoothed over neighbouring bins, linear between the bins' centres.

    Below the lowest centre and above the highest the end's curve holds: nothing is extrapolated.
    """

    ladder: tuple[int, ...]
    bounds: tuple[
        tuple[float, float], ...
    ]  # (similarity_min, similarity_max) of each bin, ascending
    curves: tuple[tuple[float, ...], ...]  # one for each bin, over the ladder

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
            falling = _never_rising(smooth, weights)
            top = falling[0] if measured[0] == 0 else 1.0
            relative = [min(1.0, max(0.0, q / top)) if top > 0 else 0.0 for q in falling]
            points = list(zip(measured, relative, strict=True))
            if measured[0] > 0:
                points.insert(0, (0, 1.0))
            curves.append(tuple(_interpolate(points, k * scale) for k in ladder))
        return cls(tuple(ladder), tuple(bounds), tuple(curves))

    @property
    def class_names(self) -> tuple[str, ...]:
        """See QualityPredictor."""
        return (MISS, *(_bin_name(low, high) for low, high in self.bounds))

    def quality(self, similarity: float) -> tuple[float, ...]:
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

    def prompt_class(self, similarity: float | None) -> str:
        """See QualityPredictor."""
        if similarity is None:
            return MISS
        j = bisect_right([low for low, _ in self.bounds], similarity)
        return self.class_names[max(1, j)]


#: NIRVANA's thresholds on cosine similarity, for 50 steps: above the first, K up to the second
#: loses nothing that its authors would mind (NSDI'24; the same in three sources).
NIRVANA_THRESHOLDS = ((0.65, 5), (0.75, 10), (0.85, 15), (0.90, 20), (0.95, 25))
NIRVANA_STEPS = 50
#: Mean loss of relative quality at K of 50 steps, SD-XL, as published with Argus (Middleware'25).
PUBLISHED_LOSS = ((0, 0.0), (5, 0.02954), (10, 0.04192), (15, 0.05622), (20, 0.06765), (25, 0.0848))


@dataclass(frozen=True)
class ThresholdPredictor:
    """For models without a measured table: NIRVANA's thresholds.

    Up to the K of its threshold a prompt loses nothing; beyond, as much as SD-XL loses on average
    between the two K, extended at its last slope. The second part is a prior, not a measurement of
    this model.
    """

    ladder: tuple[int, ...]
    steps: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """See QualityPredictor."""
        return (MISS, *(f"optimal-k-{k}" for k in self._tolerated))

    @property
    def _tolerated(self) -> tuple[int, ...]:
        return (0, *(self._snap(k) for _, k in NIRVANA_THRESHOLDS))

    def _snap(self, skipped_steps: int) -> int:
        return round(skipped_steps * self.steps / NIRVANA_STEPS)

    def _index(self, similarity: float) -> int:
        return sum(similarity > threshold for threshold, _ in NIRVANA_THRESHOLDS)

    def quality(self, similarity: float) -> tuple[float, ...]:
        """See QualityPredictor."""
        free = self._loss(self._tolerated[self._index(similarity)])
        return tuple(max(0.0, 1.0 - max(0.0, self._loss(k) - free)) for k in self.ladder)

    def _loss(self, skipped_steps: float) -> float:
        k = skipped_steps * NIRVANA_STEPS / self.steps
        (k0, l0), (k1, l1) = PUBLISHED_LOSS[-2:]
        if k > k1:
            return l1 + (k - k1) * (l1 - l0) / (k1 - k0)
        return _interpolate(PUBLISHED_LOSS, k)

    def prompt_class(self, similarity: float | None) -> str:
        """See QualityPredictor."""
        if similarity is None:
            return MISS
        return self.class_names[1 + self._index(similarity)]


def _interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * max(0.0, x - x0) / (x1 - x0)
    return points[-1][1]


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


def _never_rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Weighted isotonic regression, falling, by pooling adjacent violators."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        mean, total, length = value, weight, 1
        while blocks and blocks[-1][0] < mean:
            m, w, n = blocks.pop()
            mean, total, length = (mean * total + m * w) / (total + w), total + w, length + n
        blocks.append((mean, total, length))
    return [mean for mean, _, length in blocks for _ in range(length)]


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
