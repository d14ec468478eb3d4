"""What a learned predictor looks at: how alike two prompts are, and what changed between them.

A small network reads the change off the two embeddings: the same projection of both, their
difference and product, one hidden layer, and one output for each kind of change. Its weights come
from training; here they are only applied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChangeFeatures:
    """Features of a match, shape (d,): 1, similarity beyond each knot, the extent of each kind of change.

    Weights by layer, outputs first: `projection` (p, e) for embeddings of e numbers, `hidden`
    (h, 3 p + 1), `change` (c, h); each with its bias. `knots` (s,) are similarities. `mean` and
    `scale` (s + c,) standardise all features but the 1.
    """

    projection: Array
    projection_bias: Array
    hidden: Array
    hidden_bias: Array
    change: Array
    change_bias: Array
    knots: Array
    mean: Array
    scale: Array

    def __post_init__(self) -> None:
        p, _ = _matrix("projection", self.projection)
        h, joined = _matrix("hidden", self.hidden)
        c, hidden_used = _matrix("change", self.change)
        s = self.knots.shape[0] if self.knots.ndim == 1 else -1
        rest = s + c
        for name, got, wanted in (
            ("projection_bias", self.projection_bias.shape, (p,)),
            ("hidden", (h, joined), (h, 3 * p + 1)),
            ("hidden_bias", self.hidden_bias.shape, (h,)),
            ("change", (c, hidden_used), (c, h)),
            ("change_bias", self.change_bias.shape, (c,)),
            ("mean", self.mean.shape, (rest,)),
            ("scale", self.scale.shape, (rest,)),
        ):
            if got != wanted:
                raise ValueError(f"{name}: shape {got} is not allowed: {wanted}")
        if not (self.scale > 0).all():
            raise ValueError("scale: 0 or less is not allowed: above 0")

    @property
    def embedding_size(self) -> int:
        """How many numbers an embedding has."""
        return int(self.projection.shape[1])

    @property
    def size(self) -> int:
        """How many features there are."""
        return len(self.mean) + 1

    def fits(self, prompt: Array | None, neighbour: Array | None) -> bool:
        """Whether both embeddings, or all of n neighbours (n, e), are there, of the right size and finite."""
        if prompt is None or neighbour is None:
            return False
        if prompt.shape != (self.embedding_size,) or neighbour.shape[-1:] != prompt.shape:
            return False
        # A product with anything that is not finite is not finite either.
        with np.errstate(invalid="ignore"):
            return math.isfinite(float((neighbour @ prompt).sum()))

    def __call__(
        self, similarity: float | npt.NDArray[np.float64], prompt: Array, neighbour: Array
    ) -> Array:
        """Of one match, (d,), or of n: similarities (n,), neighbours (n, e), features (n, d).

        The prompt is one, (e,), or as many as its neighbours.
        """
        return self.standardised(self.raw(similarity, prompt, neighbour))

    def raw(
        self, similarity: float | npt.NDArray[np.float64], prompt: Array, neighbour: Array
    ) -> Array:
        """All features but the 1, not yet standardised."""
        b = np.tanh(prompt @ self.projection.T + self.projection_bias)
        a = np.tanh(neighbour @ self.projection.T + self.projection_bias)
        near = np.asarray(similarity, np.float32)[..., None]
        joined = np.empty((*near.shape[:-1], self.hidden.shape[1]), np.float32)
        p = b.shape[-1]
        joined[..., :p] = b
        np.abs(b - a, out=joined[..., p : 2 * p])
        np.multiply(a, b, out=joined[..., 2 * p : 3 * p])
        joined[..., 3 * p :] = near
        hidden = np.maximum(joined @ self.hidden.T + self.hidden_bias, 0.0)
        change = hidden @ self.change.T + self.change_bias
        beyond = np.maximum(near - self.knots, 0.0)
        return np.concatenate((beyond, change), axis=-1)

    def standardised(self, raw: Array) -> Array:
        """Features (..., d) from `raw`."""
        out = np.empty((*raw.shape[:-1], self.size), np.float32)
        out[..., 0] = 1.0
        np.divide(raw - self.mean, self.scale, out=out[..., 1:])
        return out


def _matrix(name: str, array: Array) -> tuple[int, int]:
    if array.ndim != 2:
        raise ValueError(f"{name}: {array.ndim} dimensions are not allowed: 2")
    return int(array.shape[0]), int(array.shape[1])
