"""A quality table calibrated to published means: these hold exactly, the rest is assumed and said so.

Published: the mean relative quality of SD-XL at K = 0, 5, ..., 25 of 50 steps over the prompts of a query log
(Argus, Middleware'25), NIRVANA's thresholds, the similarity up to which a prompt tolerates each K (NSDI'24),
and, in the recorded log, each prompt's similarity. **Not published, hence assumed here**, is how the loss
divides between prompts:

- *by class*: of the loss that the population takes from one level to the next, a prompt that tolerates the
  level takes `TOLERATED` of what one takes that does not;
- *by prompt*: all of a prompt's losses are multiplied by a factor of its own, log-normal with spread `SPREAD`
  (standard deviation of its logarithm), cut at `MOST_FACTOR`. A router cannot know it;
- *beyond K = 25*: the mean goes on falling at its last published slope.

The means at each K hold exactly whatever the assumptions. `SPREAD` is chosen such that knowing each prompt's
true curve instead of its class's mean is worth 0.03 points of quality at the `twitter` load and about 0.10 at
`twitter-heavy` (fluid optimum), the order that simulations with these means have found; real spreads may be
larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gesso_router.routing.predictors.thresholds import NIRVANA_STEPS, NIRVANA_THRESHOLDS
from gesso_simulator.inputs.prompts import PromptLog
from gesso_simulator.inputs.quality_table import QualityTable
from gesso_simulator.scenarios.arrivals import CURVES, stream

F64 = NDArray[np.float64]

#: Mean relative quality at K of 50 steps, as published with Argus (Middleware'25).
PUBLISHED_QUALITY = (
    (0, 1.0),
    (5, 0.97046),
    (10, 0.95808),
    (15, 0.94378),
    (20, 0.93235),
    (25, 0.9152),
)
PUBLISHED_LADDER = tuple(k for k, _ in PUBLISHED_QUALITY)
TOLERATED = 0.25
SPREAD = 0.15
MOST_FACTOR = 2.0


def published_mean(skipped_steps: int, steps: int = NIRVANA_STEPS) -> float:
    """Mean relative quality at K: as published, on a line between levels, beyond them at the last slope."""
    k = skipped_steps * NIRVANA_STEPS / steps
    (k0, q0), (k1, q1) = PUBLISHED_QUALITY[-2:]
    if k > k1:
        return q1 + (k - k1) * (q1 - q0) / (k1 - k0)
    levels, means = zip(*PUBLISHED_QUALITY, strict=True)
    return float(np.interp(k, levels, means))


def tolerated_steps(similarity: F64, steps: int = NIRVANA_STEPS) -> F64:
    """The largest K (p,) that NIRVANA's thresholds let a prompt of each similarity skip; 0 for a miss (NaN)."""
    thresholds = np.array([t for t, _ in NIRVANA_THRESHOLDS])
    levels = np.array([0.0, *(k for _, k in NIRVANA_THRESHOLDS)])
    # A prompt is above a threshold, not at it.
    tolerated: F64 = levels[
        np.searchsorted(thresholds, np.nan_to_num(similarity, nan=-1.0), side="left")
    ]
    return tolerated * steps / NIRVANA_STEPS


@dataclass(frozen=True)
class Calibration:
    """What one level costs more than the one before: `drops` of the mean (k,), and the mean weight (k,) of the
    prompts that it was calibrated on, over `ladder`.
    """

    ladder: tuple[int, ...]
    steps: int
    drops: tuple[float, ...]
    mean_weights: tuple[float, ...]

    def quality(self, similarity: F64, factor: F64) -> F64:
        """True curves (n, k) of prompts (n,) by similarity and a prompt's own factor; not cut at 0."""
        weights = _weights(similarity, factor, self.ladder, self.steps)
        quality = np.ones((len(factor), len(self.ladder)))
        for i in range(1, len(self.ladder)):
            loss = self.drops[i] * weights[:, i] / self.mean_weights[i]
            quality[:, i] = quality[:, i - 1] - loss
        return quality


def prompt_factors(count: int, seed: int) -> F64:
    """The factor (count,) of each prompt of a log."""
    factor: F64 = np.exp(SPREAD * stream(seed, CURVES).standard_normal(count))
    return np.minimum(factor, MOST_FACTOR)


def calibration(
    log: PromptLog, ladder: tuple[int, ...], seed: int, steps: int = NIRVANA_STEPS
) -> Calibration:
    """Calibrated on a log: over its prompts the mean at each K is the published one.

    Raises ValueError on a log without similarities.
    """
    if log.similarity is None:
        raise ValueError("similarity: missing is not allowed: the curves are made from it")
    weights = _weights(log.similarity, prompt_factors(len(log), seed), ladder, steps)
    means = [published_mean(k, steps) for k in ladder]
    drops = [0.0, *(before - after for before, after in pairwise(means))]
    mean_weights = tuple(float(weights[:, i].mean()) for i in range(len(ladder)))
    return Calibration(ladder, steps, tuple(drops), mean_weights)


def _weights(similarity: F64, factor: F64, ladder: tuple[int, ...], steps: int) -> F64:
    bound = tolerated_steps(similarity, steps)
    weights: F64 = factor[:, None] * np.where(
        np.array(ladder)[None, :] <= bound[:, None], TOLERATED, 1.0
    )
    return weights


def calibrated_table(
    log: PromptLog, ladder: tuple[int, ...], seed: int, steps: int = NIRVANA_STEPS
) -> QualityTable:
    """Curves over a log's similarities, never rising, 0 to 1, whose mean at each K is the published one.

    Raises ValueError on a log without similarities.
    """
    calibrated = calibration(log, ladder, seed, steps)
    assert log.similarity is not None
    quality = calibrated.quality(log.similarity, prompt_factors(len(log), seed))
    if quality.min() < 0:
        raise ValueError(
            f"ladder: K = {ladder[-1]} is not allowed: beyond what the published means reach"
        )
    return QualityTable(ladder, log.rows, log.similarity, quality, prompts=log.prompts)
