"""Prompts as a planner hears of them: the shares of the classes, and a curve for each."""

from __future__ import annotations

import numpy as np

from gesso.plan import PromptClass, QualityCurve
from gesso_simulator.inputs.quality_table import QualityTable
from gesso_simulator.scenarios.prediction import BinnedPredictor


def population(table: QualityTable, predictor: BinnedPredictor) -> tuple[PromptClass, ...]:
    """The classes of a table's prompts with their shares (they sum to 1), each with its predicted curve.

    Prompts held out for trial are the population where the table tells, else all are.
    """
    held = table.heldout if table.heldout is not None and table.heldout.any() else slice(None)
    similarity, counts = np.unique(table.similarity[held], return_counts=True)
    shares: dict[str, float] = {}
    curves: dict[str, tuple[float, ...]] = {}
    for value, count in zip(similarity.tolist(), counts.tolist(), strict=True):
        name = predictor.prompt_class(value)
        shares[name] = shares.get(name, 0.0) + count / int(counts.sum())
        curves[name] = predictor.quality(value)
    return tuple(
        PromptClass(name, share, QualityCurve(predictor.ladder, curves[name]))
        for name, share in shares.items()
    )
