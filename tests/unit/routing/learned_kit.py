"""A small learned predictor with weights that are easy to reckon with."""

from __future__ import annotations

from typing import Any

import numpy as np

from gesso_router.routing.predictors.features import ChangeFeatures
from gesso_router.routing.predictors.learned import Fallback, LearnedPredictor, Posterior, Spread
from gesso_router.routing.predictors.table import SimilarityPredictor

LADDER = (0, 5, 10, 15, 20, 25)
SIZE = 8
LEVELS = (5.0, 10.0, 15.0, 20.0, 25.0)


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def change_features(seed: int = 0) -> ChangeFeatures:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return ChangeFeatures(
        projection=weights(4, SIZE),
        projection_bias=weights(4),
        hidden=weights(6, 13),
        hidden_bias=weights(6),
        change=weights(3, 6),
        change_bias=weights(3),
        knots=np.array([0.5, 0.9], np.float32),
        mean=weights(5),
        scale=np.abs(weights(5)) + 1.0,
    )


def predictor(seed: int = 0, **change: Any) -> LearnedPredictor:
    """Losses of about 2 % a level and unit of feature; a wide posterior."""
    rng = np.random.default_rng(seed)
    features = change_features(seed)
    n, d = len(LEVELS), features.size
    mean = 0.05 * rng.standard_normal((n, d))
    mean[:, 0] = -0.02 * np.arange(1, n + 1)
    ladder = change.get("ladder", LADDER)
    table = SimilarityPredictor(
        ladder,
        ((-1.0, 0.7), (0.7, 1.0)),
        (
            tuple(1 - 0.016 * k for k in ladder),
            tuple(1 - 0.004 * k for k in ladder),
        ),
    )
    parts: dict[str, Any] = {
        "ladder": LADDER,
        "levels": LEVELS,
        "features": features,
        "posterior": Posterior(mean, np.tile(0.01 * np.eye(d), (n, 1, 1))),
        "spread": Spread(mean.copy(), np.full((n, 2), 0.001), np.full((n, 2), 0.002)),
        "class_edges": (0.02, 0.1, 0.2),
        "fallback": Fallback(table, np.full(n, 0.1)),
    }
    return LearnedPredictor(**(parts | change))
