"""Finds the quality predictor of a service: the table measured with its model, else published thresholds."""

from __future__ import annotations

import json
from pathlib import Path

from gesso.api import DiffusionService
from gesso.builtin import builtin_path, is_builtin
from gesso_router.routing.quality import QualityPredictor, SimilarityPredictor, ThresholdPredictor

TABLE_NAME = "quality.json"


def load_predictor(service: DiffusionService) -> QualityPredictor:
    """From `quality.json` in the model's folder; NIRVANA's thresholds for a model without one.

    Raises ValueError, naming file and field, on a table that is malformed or does not reach the
    ladder's end.
    """
    model = service.spec.model
    folder = builtin_path(model.source) if is_builtin(model.source) else Path(model.source)
    path = folder / TABLE_NAME
    if not path.is_file():
        return ThresholdPredictor(service.ladder, model.steps)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("a JSON object is needed")
        return SimilarityPredictor.from_table(table, service.ladder, model.steps)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
