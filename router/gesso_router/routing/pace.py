"""How many requests come, and how long they are: exponentially weighted over the last seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Rate of arrivals and mean steps, weighted by exp(-age / window)."""

    window_seconds: float = 5.0
    at_s: float = 0.0
    weight: float = 0.0  # arrivals, each decayed by its age
    steps: float = 0.0  # their steps, likewise

    def arrived(self, now_s: float, steps: int) -> Pace:
        """After an arrival of so many denoising steps."""
        decay = self._decay(now_s)
        return Pace(
            self.window_seconds,
            max(now_s, self.at_s),
            self.weight * decay + 1,
            self.steps * decay + steps,
        )

    def per_second(self, now_s: float) -> float:
        """Arrivals per second at `now_s`."""
        return self.weight * self._decay(now_s) / self.window_seconds

    @property
    def mean_steps(self) -> float:
        """Steps of the average recent arrival; 1 before the first."""
        return self.steps / self.weight if self.weight > 0 else 1.0

    def _decay(self, now_s: float) -> float:
        return math.exp(-max(0.0, now_s - self.at_s) / self.window_seconds)
