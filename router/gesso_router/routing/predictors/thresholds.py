"""Published thresholds on similarity, for models without a measurement of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gesso_router.routing.predictors.classing import Classing
from gesso_router.routing.predictors.curves import interpolate
from gesso_router.routing.quality import MISS, Vector

#: NIRVANA's thresholds on cosine similarity, for 50 steps: above the first, K up to the second
#: loses nothing that its authors would mind (NSDI'24; the same in three sources).
NIRVANA_THRESHOLDS = ((0.65, 5), (0.75, 10), (0.85, 15), (0.90, 20), (0.95, 25))
NIRVANA_STEPS = 50

#: Mean loss of relative quality at K of 50 steps, SD-XL, as published with Argus (Middleware'25).
PUBLISHED_LOSS = ((0, 0.0), (5, 0.02954), (10, 0.04192), (15, 0.05622), (20, 0.06765), (25, 0.0848))


@dataclass(frozen=True)
class ThresholdPredictor(Classing):
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

    def quality(
        self, similarity: float, prompt: Vector | None = None, neighbour: Vector | None = None
    ) -> tuple[float, ...]:
        """See QualityPredictor."""
        return self._curves[self._index(similarity)]

    @cached_property
    def _curves(self) -> tuple[tuple[float, ...], ...]:
        """Quality over the ladder, by how many thresholds a similarity is above."""
        return tuple(
            tuple(max(0.0, 1.0 - max(0.0, self._loss(k) - free)) for k in self.ladder)
            for free in map(self._loss, self._tolerated)
        )

    def _loss(self, skipped_steps: float) -> float:
        k = skipped_steps * NIRVANA_STEPS / self.steps
        (k0, l0), (k1, l1) = PUBLISHED_LOSS[-2:]
        if k > k1:
            return l1 + (k - k1) * (l1 - l0) / (k1 - k0)
        return interpolate(PUBLISHED_LOSS, k)

    def _rank(self, similarity: float, prompt: Vector | None, neighbour: Vector | None) -> int:
        return 1 + self._index(similarity)
