"""What each number of workers of one profile is good for, at a rate or a spread of rates."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gesso.profile import Profile
from gesso_operator.planning.capacity import level_bound
from gesso_operator.planning.frontier import Frontier, frontier
from gesso_operator.planning.problem import Problem
from gesso_operator.planning.settings import Settings

Floats = NDArray[np.float64]

_MOST_SIZES = 96


class Sizes:
    """What each number of workers of one profile is good for.

    `sizes` are the numbers that there may be, `seconds` the worker-seconds of work per second that they do
    within the deadline.
    """

    def __init__(self, problem: Problem, profile: Profile, settings: Settings) -> None:
        least, most = settings.workers_min or 1, settings.workers_max or 1
        sizes = np.unique(np.round(np.linspace(least, most, min(_MOST_SIZES, most - least + 1))))
        own = [v for v, m in enumerate(problem.model_of) if m == 0]
        self.sizes: Floats = sizes
        allowed = [
            [v in own and problem.allowed(c, 0, v) for v in range(len(problem.variants))]
            for c in range(len(problem.classes))
        ]
        self.line: Frontier = frontier(
            problem.classes, problem.work_s[0], allowed, problem.shed_penalty
        )
        fastest = max(
            (problem.variants[v][1] for v in own if any(row[v] for row in allowed)), default=0
        )
        bounds = [level_bound(profile, fastest, int(n), settings) for n in sizes]
        self.seconds: Floats = sizes * np.array(bounds)
        served = np.array(self.line.served)
        self._served: Floats = served
        # Summed quality per offered image: the value without the penalty.
        self._quality: Floats = np.array(self.line.value) + problem.shed_penalty * (1.0 - served)

    def place(self, workers: int) -> int:
        """The place in `sizes` of a number of workers, or of the next larger."""
        return min(len(self.sizes) - 1, int(np.searchsorted(self.sizes, workers)))

    def expected(self, rates: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Quality gained and images refused per second by each number of workers, expected over rates.

        The last axis of the weights (they sum to 1) belongs to the rates; the others are kept.
        """
        rates = np.maximum(rates, 1e-9)
        spent = self.seconds[None, :] / rates[:, None]
        quality = rates[:, None] * np.interp(spent, self.line.seconds, self._quality)
        refused = rates[:, None] * (1.0 - np.interp(spent, self.line.seconds, self._served))
        return weights @ quality, weights @ refused

    def needed(self, rate: float) -> int:
        """The fewest that serve everything; all there may be where even they do not."""
        fastest = self.line.fastest_s
        if not math.isfinite(fastest):
            # Some classes cannot be served at all: what can be.
            fastest = self.line.seconds[self.line.served.index(max(self.line.served))]
        enough = np.flatnonzero(self.seconds >= rate * fastest)
        return int(self.sizes[enough[0]] if len(enough) else self.sizes[-1])

    def enough(self, rate: float, target: float) -> int:
        """The fewest that serve everything at a mean quality of the target; all there may be otherwise."""
        gained, _ = self.expected(np.array([max(0.0, rate)]), np.ones(1))
        reached = gained >= target * rate - 1e-12
        places = np.flatnonzero(reached & (self.sizes >= self.needed(rate)))
        return int(self.sizes[places[0]] if len(places) else self.sizes[-1])

    @property
    def steepest(self) -> float:
        """The most quality that a worker-second of work may buy: no price above it changes anything."""
        bought = np.diff(self._quality) / np.maximum(np.diff(np.array(self.line.seconds)), 1e-12)
        return float(max(bought.max(initial=0.0), 1e-12))
