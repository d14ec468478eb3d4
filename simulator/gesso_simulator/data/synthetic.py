"""A made-up load and prompt log: the substitutes where no recordings are at hand.

Made up in full, after published descriptions only: a load with a daily swing of two to one, sharp rises that
decay within ten minutes, and a hole in the recording before each midnight; similarities with the published
percentiles of a query log. Results on them are of the same kind as on recordings, but are not those.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gesso_simulator.inputs.prompts import PromptLog

DAYS = 15
PROMPTS = 10_000
_DAY_MINUTES = 1440
_HOLE_MINUTES = 29
_SEED = 20_260_101
#: Percentiles of the top-1 similarity in the query log published with Argus (Middleware'25); the two ends are
#: assumed.
SIMILARITY_PERCENTILES = (
    (0, 0.32),
    (5, 0.573),
    (25, 0.657),
    (50, 0.712),
    (75, 0.784),
    (90, 0.888),
    (95, 0.965),
    (100, 1.0),
)


def minutes() -> NDArray[np.float64]:
    """Fifteen days of load per minute from a midnight on, any unit; NaN where the recording has its hole."""
    rng = np.random.default_rng(_SEED)
    at = np.arange(DAYS * _DAY_MINUTES)
    # The day's low at 06:30, its high at 18:30; no two days are equally busy.
    swing = 65 - 20 * np.cos(2 * np.pi * (at % _DAY_MINUTES - 390) / _DAY_MINUTES)
    load = swing * np.repeat(rng.uniform(0.93, 1.07, DAYS), _DAY_MINUTES)
    # Most hours have a rise some time after half past; a few reach four times the day's mean.
    for hour in range(24 * DAYS):
        if rng.random() < 0.6:
            start = 60 * hour + 30 + int(rng.integers(10))
            height = min(260.0, 40.0 * (1 + rng.pareto(1.5)))
            decay = rng.uniform(3.0, 6.0)
            rise = height * np.exp(-np.arange(20) / decay)
            end = min(start + 20, len(load))
            load[start:end] += rise[: end - start]
    load *= np.exp(0.03 * rng.standard_normal(len(load)))
    load[at % _DAY_MINUTES >= _DAY_MINUTES - _HOLE_MINUTES] = np.nan
    return load


def log() -> PromptLog:
    """Prompts whose similarities have the published percentiles, in random order; the texts say nothing."""
    rng = np.random.default_rng(_SEED + 1)
    percentiles, values = zip(*SIMILARITY_PERCENTILES, strict=True)
    spread = np.interp((np.arange(PROMPTS) + 0.5) / PROMPTS * 100, percentiles, values)
    similarity = rng.permutation(spread)
    texts = tuple(f"synthetic prompt {i}" for i in range(PROMPTS))
    return PromptLog(np.arange(PROMPTS, dtype=np.int64), texts, similarity)
