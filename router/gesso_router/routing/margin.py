"""How much longer than estimated things take: an estimate times this is kept 95 % of the time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Margin:
    """Tracks a quantile of (actual / estimated) latency by stochastic approximation.

    After each image the factor moves up by `rate * quantile` if it was exceeded, else down by
    `rate * (1 - quantile)`, relative to itself: it settles where the share `quantile` of the images
    stays below (Robbins and Monro, 1951). Bounded, so that one stall cannot close the service, nor
    luck open it.
    """

    factor: float = 1.25
    quantile: float = 0.95
    rate: float = 0.05
    lowest: float = 1.05
    highest: float = 2.5

    def observe(self, estimated_seconds: float, actual_seconds: float) -> Margin:
        """After an image; an estimate or a time that is not above 0 teaches nothing."""
        if not (estimated_seconds > 0 and actual_seconds > 0):
            return self
        ratio = actual_seconds / estimated_seconds
        if not math.isfinite(ratio):
            return self
        step = self.quantile if ratio > self.factor else self.quantile - 1
        factor = self.factor * (1 + self.rate * step)
        return replace(self, factor=min(self.highest, max(self.lowest, factor)))
