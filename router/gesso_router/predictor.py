"""Finds the quality predictor of a service: learned, else by its model's measured table, else by thresholds."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gesso.api import DiffusionService
from gesso.builtin import builtin_path, is_builtin
from gesso_router.routing.predictors.learned import LearnedPredictor
from gesso_router.routing.predictors.learned_file import (
    Origin,
    from_tensors,
    origin_of,
    to_tensors,
)
from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_router.routing.predictors.thresholds import ThresholdPredictor
from gesso_router.routing.quality import QualityPredictor

log = logging.getLogger(__name__)

PREDICTOR_NAME = "quality_predictor.safetensors"
TABLE_NAME = "quality.json"


class OtherEmbeddingError(ValueError):
    """A predictor was learned on the embeddings of another model than the router's."""


def load_predictor(service: DiffusionService) -> QualityPredictor:
    """The best that the model's folder allows.

    `quality_predictor.safetensors`, if it was learned with the service's embedding model; else
    `quality.json`; NIRVANA's thresholds for a model with neither. Raises ValueError, naming file
    and field, on a file that is malformed or does not reach the ladder's end.
    """
    model = service.spec.model
    path = _folder(service) / PREDICTOR_NAME
    if path.is_file():
        try:
            return read_learned(path, service.ladder, model.steps, service.spec.router.embedding)
        except OtherEmbeddingError as error:
            log.warning("learned predictor not used", extra={"cause": str(error)})
    return load_table(service) or ThresholdPredictor(service.ladder, model.steps)


def load_table(service: DiffusionService) -> SimilarityPredictor | None:
    """What `quality.json` of the model's folder tells; None without one.

    Raises ValueError, naming file and field, on a file that is malformed or does not reach the ladder's end.
    """
    path = _folder(service) / TABLE_NAME
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("a JSON object is needed")
        return SimilarityPredictor.from_table(table, service.ladder, service.spec.model.steps)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def _folder(service: DiffusionService) -> Path:
    source = service.spec.model.source
    return builtin_path(source) if is_builtin(source) else Path(source)


def read_learned(
    path: Path, ladder: tuple[int, ...], steps: int, embedding: str
) -> LearnedPredictor:
    """A learned predictor from its file, for a service's ladder, steps and embedding model.

    Raises OtherEmbeddingError where it was learned with another embedding model; ValueError, naming
    file and field, on a file of another version, malformed, or short of the ladder's end.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        learned_with = origin_of(metadata).embedding
        if learned_with != embedding:
            raise OtherEmbeddingError(
                f"{path}: embedding: {learned_with!r} is not allowed: {embedding!r}, the router's"
            )
        return from_tensors(tensors, metadata, ladder, steps)
    except OtherEmbeddingError:
        raise
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def write_learned(path: Path, predictor: LearnedPredictor, origin: Origin) -> None:
    """The file that `read_learned` reads. Raises ValueError where the ladder is not the one learned."""
    tensors, metadata = to_tensors(predictor, origin)
    save_file(tensors, str(path), metadata)
