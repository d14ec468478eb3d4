"""A learned predictor as named tensors and metadata, which is how it lies in a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gesso_router.routing.predictors.features import ChangeFeatures
from gesso_router.routing.predictors.learned import Fallback, LearnedPredictor, Posterior, Spread
from gesso_router.routing.predictors.table import SimilarityPredictor

FORMAT = "gesso-quality-predictor"
VERSION = "1"

Tensors = Mapping[str, npt.NDArray[Any]]

_FEATURES = (
    "projection",
    "projection_bias",
    "hidden",
    "hidden_bias",
    "change",
    "change_bias",
    "knots",
    "mean",
    "scale",
)


@dataclass(frozen=True)
class Origin:
    """What a predictor was learned on: the embedding model's id, the model's fingerprint, its steps."""

    embedding: str
    model_fingerprint: str
    total_steps: int


def to_tensors(
    predictor: LearnedPredictor, origin: Origin
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Tensors by name, and metadata. Raises ValueError where the ladder is not 0 and the levels learned."""
    levels = predictor.levels
    if predictor.ladder != (0, *levels):
        raise ValueError(
            f"ladder: {list(predictor.ladder)} is not allowed: {[0, *levels]}, as learned"
        )
    p, table = predictor, predictor.fallback.table
    tensors = {f"features.{name}": getattr(p.features, name) for name in _FEATURES}
    tensors |= {
        "posterior.mean": p.posterior.mean,
        "posterior.covariance": p.posterior.covariance,
        "spread.weights": p.spread.weights,
        "spread.misfit": p.spread.misfit,
        "spread.label": p.spread.label,
        "class_edges": np.array(p.class_edges),
        "fallback.bounds": np.array(table.bounds),
        "fallback.curves": np.array(table.curves),
        "fallback.sd": p.fallback.sd,
    }
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "ladder": json.dumps(list(p.ladder)),
        "total_steps": str(origin.total_steps),
        "embedding": origin.embedding,
        "embedding_size": str(p.features.embedding_size),
        "model_fingerprint": origin.model_fingerprint,
    }
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata


def origin_of(metadata: Mapping[str, str]) -> Origin:
    """Checks format and version first. Raises ValueError, naming the field."""
    for name, allowed in (("format", FORMAT), ("version", VERSION)):
        if metadata.get(name) != allowed:
            raise ValueError(f"{name}: {metadata.get(name)!r} is not allowed: {allowed!r}")
    return Origin(
        _text(metadata, "embedding"),
        _text(metadata, "model_fingerprint"),
        _whole("total_steps", _text(metadata, "total_steps")),
    )


def from_tensors(
    tensors: Tensors, metadata: Mapping[str, str], ladder: tuple[int, ...], steps: int
) -> LearnedPredictor:
    """For a service's ladder and steps; the opposite of `to_tensors`.

    Raises ValueError, naming the field, on another format or version, a missing tensor, a wrong
    shape, or a ladder that goes beyond what was learned.
    """
    origin = origin_of(metadata)
    learned = _ladder(metadata)
    levels = tuple(k * steps / origin.total_steps for k in learned[1:])
    features = ChangeFeatures(
        **{name: _tensor(tensors, f"features.{name}", np.float32) for name in _FEATURES}
    )
    if str(features.embedding_size) != metadata.get("embedding_size"):
        raise ValueError(
            f"embedding_size: {metadata.get('embedding_size')!r} is not allowed: "
            f"{features.embedding_size}, as the projection has it"
        )
    return LearnedPredictor(
        ladder=ladder,
        levels=levels,
        features=features,
        posterior=Posterior(
            _tensor(tensors, "posterior.mean"), _tensor(tensors, "posterior.covariance")
        ),
        spread=Spread(
            _tensor(tensors, "spread.weights"),
            _tensor(tensors, "spread.misfit"),
            _tensor(tensors, "spread.label"),
        ),
        class_edges=tuple(_tensor(tensors, "class_edges").tolist()),
        fallback=_fallback(tensors, (0.0, *levels), ladder),
    )


def _fallback(tensors: Tensors, points: tuple[float, ...], ladder: tuple[int, ...]) -> Fallback:
    bounds = _tensor(tensors, "fallback.bounds")
    curves = _tensor(tensors, "fallback.curves")
    if bounds.ndim != 2 or bounds.shape[1] != 2 or not len(bounds):
        raise ValueError(f"fallback.bounds: shape {bounds.shape} is not allowed: (bins, 2)")
    if curves.shape != (len(bounds), len(points)):
        raise ValueError(
            f"fallback.curves: shape {curves.shape} is not allowed: {(len(bounds), len(points))}"
        )
    table = SimilarityPredictor(
        ladder,
        tuple((float(low), float(high)) for low, high in bounds),
        tuple(tuple(np.interp(ladder, points, curve).tolist()) for curve in curves),
    )
    return Fallback(table, _tensor(tensors, "fallback.sd"))


def _tensor(tensors: Tensors, name: str, dtype: Any = np.float64) -> npt.NDArray[Any]:
    if name not in tensors:
        raise ValueError(f"{name}: missing")
    array = np.asarray(tensors[name], dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: not finite is not allowed: finite numbers")
    return array


def _text(metadata: Mapping[str, str], name: str) -> str:
    if not metadata.get(name):
        raise ValueError(f"{name}: missing")
    return metadata[name]


def _whole(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{name}: {text!r} is not allowed: a whole number, 1 or more")
    return int(text)


def _ladder(metadata: Mapping[str, str]) -> tuple[int, ...]:
    text = _text(metadata, "ladder")
    try:
        ladder = tuple(int(k) for k in json.loads(text))
    except (TypeError, ValueError):
        ladder = ()
    if len(ladder) < 2 or ladder[0] != 0 or list(ladder) != sorted(set(ladder)):
        raise ValueError(f"ladder: {text!r} is not allowed: levels ascending from 0")
    return ladder
