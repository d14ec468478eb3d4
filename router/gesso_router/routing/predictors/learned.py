"""A learned predictor of quality: mean curve and its uncertainty, kept up to date by single observations.

Bayesian linear regression of the loss at each level on the features of a match (Bishop, Pattern
Recognition and Machine Learning, 2006, section 3.3), in its recursive form: an observation moves
the weights by the Kalman gain.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gesso_router.routing.predictors.classing import Classing
from gesso_router.routing.predictors.curves import never_rising
from gesso_router.routing.predictors.features import ChangeFeatures
from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_router.routing.quality import MISS, Match, Vector

Array = npt.NDArray[np.float64]
#: Relative quality is a ratio of two noisy scores: what lies beyond is noise, and would pull hard.
MOST_OBSERVED = 1.5


@dataclass(frozen=True)
class Prediction:
    """Relative quality at each K of the ladder, and the standard deviation of what is not known of it.

    The truth that `sd` is about is the mean over seeds, for this prompt and neighbour. At K = 0: 1
    and 0.
    """

    quality: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True)
class Posterior:
    """Beliefs about the weights at each of l levels: mean (l, d) and covariance (l, d, d)."""

    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Spread:
    """How far truths and observations lie from the fit: variance = row . (1, predicted loss), a row a level.

    `misfit` (l, 2): of a match's true quality about what its features tell. `label` (l, 2): of one
    observation, from a single seed, about the true quality. The predicted loss here is by `weights`
    (l, d), those that training ended with: it does not move with later observations.
    """

    weights: Array
    misfit: Array
    label: Array


@dataclass(frozen=True)
class Fallback:
    """For matches whose embeddings are missing or broken: quality by similarity, over the ladder.

    `sd` (l,) is that of true qualities about it at each level.
    """

    table: SimilarityPredictor
    sd: Array


@dataclass(frozen=True)
class LearnedPredictor(Classing):
    """A QualityPredictor that sees the embeddings; immutable: `observed` gives the next one.

    `levels` are the K > 0 that were learned, in steps of this service (fractions where it takes
    fewer steps than were measured). Between them quality is linear; nothing is extrapolated.
    `class_edges`, ascending, divide prompts by the loss predicted at the ladder's end.
    """

    ladder: tuple[int, ...]
    levels: tuple[float, ...]
    features: ChangeFeatures
    posterior: Posterior
    spread: Spread
    class_edges: tuple[float, ...]
    fallback: Fallback
    _between: Array | None = field(init=False, repr=False, compare=False)
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self)
        exact = self.ladder == (0, *self.levels)
        between = None if exact else _between((0.0, *self.levels), self.ladder)
        object.__setattr__(self, "_between", between)
        object.__setattr__(self, "_names", _class_names(self.class_edges))

    @property
    def class_names(self) -> tuple[str, ...]:
        """See QualityPredictor: bins of the loss at the ladder's end, the largest first."""
        return self._names

    def quality(
        self, similarity: float, prompt: Vector | None = None, neighbour: Vector | None = None
    ) -> tuple[float, ...]:
        """See QualityPredictor."""
        phi = self._features(similarity, prompt, neighbour)
        if phi is None:
            return self.fallback.table.quality(similarity)
        return self._curve((self.posterior.mean @ phi).tolist())

    def qualities(
        self, matches: Sequence[Match], prompt: Vector | None = None
    ) -> Sequence[tuple[float, ...]]:
        """See QualityPredictor: in one go, since the calls cost more than the arithmetic."""
        similar = [m.similarity for m in matches]
        near = [m.embedding for m in matches if m.embedding is not None]
        told = len(near) == len(matches) > 1 and all(map(math.isfinite, similar))
        if prompt is None or not told or any(n.shape != prompt.shape for n in near):
            return super().qualities(matches, prompt)
        neighbours = np.stack(near)
        if not self.features.fits(prompt, neighbours):
            return super().qualities(matches, prompt)
        phi = self.features(np.array(similar), prompt, neighbours).astype(np.float64)
        return [self._curve(changes) for changes in (phi @ self.posterior.mean.T).tolist()]

    def predict(
        self, similarity: float, prompt: Vector | None = None, neighbour: Vector | None = None
    ) -> Prediction:
        """The curve and its uncertainty."""
        phi = self._features(similarity, prompt, neighbour)
        if phi is None:
            quality, sd = self.fallback.table.quality(similarity), self.fallback.sd
        else:
            quality = self._curve((self.posterior.mean @ phi).tolist())
            unknown = np.einsum("i,lij,j->l", phi, self.posterior.covariance, phi)
            sd = np.sqrt(np.maximum(unknown, 0.0) + self._variance(self.spread.misfit, phi))
        return Prediction(quality, tuple(self._over_ladder(np.array((0.0, *sd)))))

    def _rank(self, similarity: float, prompt: Vector | None, neighbour: Vector | None) -> int:
        loss = 1.0 - self.quality(similarity, prompt, neighbour)[-1]
        return len(self._names) - 1 - bisect_right(self.class_edges, loss)

    def observed(
        self,
        similarity: float,
        prompt: Vector | None,
        neighbour: Vector | None,
        skipped_steps: int,
        relative_quality: float,
    ) -> LearnedPredictor:
        """After one generation at K whose quality relative to K = 0, same prompt and seed, is known.

        Unchanged where the embeddings tell nothing. Raises ValueError for a K that was not learned
        or a quality that is not finite.
        """
        if skipped_steps not in self.levels:
            allowed = ", ".join(f"{k:g}" for k in self.levels)
            raise ValueError(f"skipped_steps: {skipped_steps} is not allowed: one of {allowed}")
        if not math.isfinite(relative_quality):
            raise ValueError(f"relative_quality: {relative_quality} is not allowed: finite")
        phi = self._features(similarity, prompt, neighbour)
        if phi is None:
            return self
        i = self.levels.index(skipped_steps)
        change = min(MOST_OBSERVED, max(0.0, relative_quality)) - 1.0
        mean, covariance = self.posterior.mean.copy(), self.posterior.covariance.copy()
        noise = self._variance(self.spread.misfit, phi) + self._variance(self.spread.label, phi)
        reach = covariance[i] @ phi
        gain = reach / (phi @ reach + noise[i])
        mean[i] += gain * (change - mean[i] @ phi)
        covariance[i] -= np.outer(gain, reach)
        covariance[i] = (covariance[i] + covariance[i].T) / 2
        return replace(self, posterior=Posterior(mean, covariance))

    def _features(
        self, similarity: float, prompt: Vector | None, neighbour: Vector | None
    ) -> Array | None:
        if prompt is None or neighbour is None or not math.isfinite(similarity):
            return None
        if not self.features.fits(prompt, neighbour):
            return None
        return self.features(similarity, prompt, neighbour).astype(np.float64)

    def _curve(self, changes: list[float]) -> tuple[float, ...]:
        falling = never_rising([0.0, *changes], [_FIXED, *[1.0] * len(changes)])
        levels = [1.0, *(min(1.0, max(0.0, 1.0 + change)) for change in falling[1:])]
        return tuple(levels) if self._between is None else tuple(self._over_ladder(levels))

    def _over_ladder(self, at_levels: Array | list[float]) -> list[float]:
        values = np.asarray(at_levels)
        over: list[float] = (values if self._between is None else self._between @ values).tolist()
        return over

    def _variance(self, rows: Array, phi: Array) -> Array:
        loss = np.maximum(-(self.spread.weights @ phi), 0.0)
        variance: Array = rows[:, 0] + rows[:, 1] * loss
        return variance


#: Weight of K = 0 in the isotonic fit: its quality is 1 by definition.
_FIXED = 1e9


def _check(p: LearnedPredictor) -> None:
    n, d = len(p.levels), p.features.size
    if not n or any(a >= b for a, b in pairwise((0.0, *p.levels))):
        raise ValueError(f"levels: {list(p.levels)} is not allowed: ascending, above 0")
    if not p.ladder or p.ladder[0] != 0 or any(a >= b for a, b in pairwise(p.ladder)):
        raise ValueError(f"ladder: {list(p.ladder)} is not allowed: ascending, from 0")
    if p.ladder[-1] > p.levels[-1] + 1e-9:
        raise ValueError(
            f"ladder: K = {p.ladder[-1]} is not allowed: at most {p.levels[-1]:g}, as learned"
        )
    if p.fallback.table.ladder != p.ladder:
        raise ValueError(
            f"fallback: ladder {list(p.fallback.table.ladder)} is not allowed: {list(p.ladder)}"
        )
    for name, array, wanted in (
        ("posterior_mean", p.posterior.mean, (n, d)),
        ("posterior_covariance", p.posterior.covariance, (n, d, d)),
        ("spread_weights", p.spread.weights, (n, d)),
        ("spread_misfit", p.spread.misfit, (n, 2)),
        ("spread_label", p.spread.label, (n, 2)),
        ("fallback_sd", p.fallback.sd, (n,)),
    ):
        if array.shape != wanted:
            raise ValueError(f"{name}: shape {array.shape} is not allowed: {wanted}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: not finite is not allowed: finite numbers")
    if any(a >= b for a, b in pairwise(p.class_edges)):
        raise ValueError(f"class_edges: {list(p.class_edges)} is not allowed: ascending")


def _between(points: tuple[float, ...], ladder: tuple[int, ...]) -> Array:
    """Row i takes values at `points` to the value at K = ladder[i], on straight lines."""
    unit = np.eye(len(points))
    return np.stack([np.interp(ladder, points, row) for row in unit], axis=1)


def _class_names(edges: tuple[float, ...]) -> tuple[str, ...]:
    """`miss`, then by falling loss."""
    if not edges:
        return (MISS, "any-loss")
    inner = [f"loss-{low:.4g}-{high:.4g}" for low, high in pairwise(edges)]
    return (MISS, f"loss-from-{edges[-1]:.4g}", *reversed(inner), f"loss-below-{edges[0]:.4g}")
