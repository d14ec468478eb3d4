"""Predicts a prompt's curve as the mean curve of the prompts about as similar: all that similarity can tell."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gesso_router.routing.predictors.classing import Classing
from gesso_router.routing.predictors.thresholds import NIRVANA_THRESHOLDS
from gesso_router.routing.quality import MISS, Vector
from gesso_simulator.inputs.quality_table import QualityTable

#: A mean over fewer curves says more of these than of their kind.
LEAST_IN_BIN = 30
MOST_BINS = 12


@dataclass(frozen=True)
class BinnedPredictor(Classing):
    """Mean curves by similarity (a `gesso_router.routing.quality.QualityPredictor`).

    Bin i holds similarities above `edges[i - 1]` and up to `edges[i]`; the outer two are open. `curves` has
    one for each bin, over the ladder. Without a similarity a prompt counts as in the lowest bin, under a
    class of its own.
    """

    ladder: tuple[int, ...]
    edges: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """See QualityPredictor."""
        names = [f"similarity-above-{edge:.4g}" for edge in self.edges]
        lowest = f"similarity-to-{self.edges[0]:.4g}" if self.edges else "all"
        return (MISS, lowest, *names)

    def quality(
        self, similarity: float, prompt: Vector | None = None, neighbour: Vector | None = None
    ) -> tuple[float, ...]:
        """See QualityPredictor."""
        return self.curves[self._bin(similarity)]

    def _rank(self, similarity: float, prompt: Vector | None, neighbour: Vector | None) -> int:
        return 1 + self._bin(similarity)

    def predicted(self, similarity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Curves (p, k) of prompts by their similarity (p,)."""
        bins = np.searchsorted(np.array(self.edges), similarity, side="left")
        bins[np.isnan(similarity)] = 0
        return np.array(self.curves)[bins]

    def _bin(self, similarity: float) -> int:
        # Not a number compares false with all: the lowest bin.
        return sum(similarity > edge for edge in self.edges)


def binned(table: QualityTable, edges: Sequence[float] | None = None) -> BinnedPredictor:
    """From a table's rows to learn from (all, where it does not tell), in bins between `edges`.

    Without `edges` there are up to 12 bins of equally many rows. A bin of fewer than 30 rows is joined with
    the next one above, or below at the top. Curves are made non-rising from the left, as predictors' are.
    """
    rows = table.learning if table.learning is not None and table.learning.any() else slice(None)
    similarity, quality = np.nan_to_num(table.similarity[rows], nan=-1.0), table.quality[rows]
    wanted = _quantile_edges(similarity) if edges is None else sorted(set(edges))
    kept = _joined(np.sort(similarity), wanted)
    bins = np.searchsorted(np.array(kept), similarity, side="left")
    means = [quality[bins == i].mean(axis=0) for i in range(len(kept) + 1)]
    curves = tuple(tuple(float(q) for q in np.minimum.accumulate(mean)) for mean in means)
    return BinnedPredictor(table.ladder, tuple(kept), curves)


def threshold_edges() -> tuple[float, ...]:
    """NIRVANA's thresholds as edges: for tables whose loss depends on nothing else."""
    return tuple(threshold for threshold, _ in NIRVANA_THRESHOLDS)


def _quantile_edges(similarity: NDArray[np.float64]) -> list[float]:
    count = max(1, min(MOST_BINS, len(similarity) // LEAST_IN_BIN))
    edges = np.quantile(similarity, np.arange(1, count) / count)
    return sorted({float(edge) for edge in edges})


def _joined(ascending: NDArray[np.float64], edges: Sequence[float]) -> list[float]:
    """The edges that leave every bin full enough."""
    kept: list[float] = []
    values = ascending.tolist()
    filled = 0
    for edge in edges:
        at = bisect_right(values, edge)
        if at - filled >= LEAST_IN_BIN and len(values) - at >= LEAST_IN_BIN:
            kept.append(edge)
            filled = at
    return kept
