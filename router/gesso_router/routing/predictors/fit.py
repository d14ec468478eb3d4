"""Learns the weights of a quality predictor, and how far truths and single seeds lie from its fit."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from gesso_router.routing.predictors.learned import MOST_OBSERVED, Posterior, Spread

Array = npt.NDArray[np.float64]

#: Prior standard deviation of the constant: the mean change of quality is surely within it.
CONSTANT_SD = 1.0
ROUNDS = 4
#: No spread is known to be smaller: a saturated score would otherwise count as certain.
LEAST_VARIANCE = 1e-4


def fit(phi: npt.NDArray[Any], relative: Array, prior_sd: float) -> tuple[Posterior, Spread]:
    """From features (n, d), the first of them 1, and relative qualities (n, seeds, l), unclipped.

    Learned are differences to K = 0 within prompt and seed, weighted by their certainty, which is
    itself estimated from the residuals: what two seeds have in common is the features' misfit,
    what they differ in is label noise. With one seed only the two cannot be told apart and count
    half each. `prior_sd` is that of a weight of a standardised feature. Raises ValueError on shapes
    that do not agree and on a `prior_sd` of 0 or less.
    """
    phi = np.asarray(phi, np.float64)
    if phi.ndim != 2 or relative.ndim != 3 or len(phi) != len(relative) or not len(phi):
        raise ValueError(
            f"relative: shape {relative.shape} is not allowed: (n, seeds, levels) for features "
            f"of shape {phi.shape}"
        )
    if not prior_sd > 0:
        raise ValueError(f"prior_sd: {prior_sd} is not allowed: above 0")
    change = relative.clip(0.0, MOST_OBSERVED) - 1.0
    seeds, levels = change.shape[1:]
    prior = np.full(phi.shape[1], prior_sd**-2)
    prior[0] = CONSTANT_SD**-2
    mean = np.zeros((levels, phi.shape[1]))
    covariance = np.zeros((levels, phi.shape[1], phi.shape[1]))
    misfit, label = np.zeros((levels, 2)), np.zeros((levels, 2))
    for i in range(levels):
        variance = np.full(len(phi), float(change[:, :, i].var()) + LEAST_VARIANCE)
        for _ in range(ROUNDS):
            weighted = phi / variance[:, None]
            covariance[i] = np.linalg.inv(weighted.T @ phi + np.diag(prior))
            mean[i] = covariance[i] @ weighted.T @ change[:, :, i].mean(axis=1)
            residual = change[:, :, i] - (phi @ mean[i])[:, None]
            base = np.stack([np.ones(len(phi)), np.maximum(-(phi @ mean[i]), 0.0)], axis=1)
            misfit[i], label[i] = _spread(residual, base)
            variance = base @ (misfit[i] + label[i] / seeds)
    return Posterior(mean, covariance), Spread(mean.copy(), misfit, label)


def _spread(residual: Array, base: Array) -> tuple[Array, Array]:
    """Rows of `misfit` and `label` from residuals (n, seeds)."""
    seeds = residual.shape[1]
    if seeds == 1:
        half = _line(base, residual[:, 0] ** 2) / 2
        return half, half.copy()
    pairs = list(combinations(range(seeds), 2))
    common = np.mean([residual[:, a] * residual[:, b] for a, b in pairs], axis=0)
    return _line(base, common), _line(base, residual.var(axis=1, ddof=1))


def _line(base: Array, squares: Array) -> Array:
    """Constant and slope of a variance over the predicted loss, neither below 0.

    By least squares, weighed anew: a square's own spread is about the variance that it tells of.
    """
    line = np.array([max(LEAST_VARIANCE, float(squares.mean())), 0.0])
    for _ in range(ROUNDS):
        weight = 1.0 / (base @ line)
        found, *_ = np.linalg.lstsq(base * weight[:, None], squares * weight, rcond=None)
        constant, slope = float(found[0]), float(found[1])
        if slope < 0:
            constant, slope = float(np.average(squares, weights=weight**2)), 0.0
        elif constant < LEAST_VARIANCE:
            loss = base[:, 1] * weight
            slope = float(loss @ ((squares - LEAST_VARIANCE) * weight)) / max(
                1e-12, float(loss @ loss)
            )
        line = np.array([max(LEAST_VARIANCE, constant), max(0.0, slope)])
    return line
