"""Which prompts `gesso plan` reckons with: classes as the router reports them, their shares and curves.

In this order: a quality table that is given, the one in the model's folder, the published means of SD-XL.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gesso.api import DiffusionService
from gesso.plan import PromptClass, QualityCurve
from gesso_router.predictor import load_table
from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_simulator.data.sources import load_sources
from gesso_simulator.inputs.quality_table import MEASURED_NAME, measured_table, read_quality_table
from gesso_simulator.scenarios.calibrated import calibrated_table
from gesso_simulator.scenarios.population import population
from gesso_simulator.scenarios.prediction import binned, threshold_edges


@dataclass(frozen=True)
class Prompts:
    """Prompt classes over the service's ladder, whose weights sum to 1, and one line on where they are from."""

    classes: tuple[PromptClass, ...]
    note: str


def prompts_of(service: DiffusionService, quality_table: str | None) -> Prompts:
    """The prompts to plan for; `quality_table` names a CSV, or is `measured`.

    Raises ValueError, naming file and field, on a table that is malformed or lacks a level of the ladder.
    """
    steps = service.spec.model.steps
    if quality_table is not None:
        named = quality_table == MEASURED_NAME
        table = measured_table() if named else read_quality_table(Path(quality_table), steps)
        table = table.at_levels(service.ladder)
        return Prompts(population(table, binned(table)), f"quality: by {quality_table}")
    measured = load_table(service)
    if measured is not None:
        note = f"quality: as measured by similarity, in the folder of {service.spec.model.source}"
        return Prompts(_measured_classes(measured), note)
    sources = load_sources()
    table = calibrated_table(sources.log, service.ladder, seed=0, steps=steps)
    return Prompts(
        population(table, binned(table, threshold_edges())),
        f"quality: the means of SD-XL as published, its division between prompts by similarity assumed "
        f"(log: {sources.origin})",
    )


def _measured_classes(table: SimilarityPredictor) -> tuple[PromptClass, ...]:
    """A class for each bin of similarity, with as large a share as the bin had in the measurement."""
    total = sum(table.counts)
    return tuple(
        PromptClass(name, n / total, QualityCurve(table.ladder, curve))
        # The first name is that of prompts without a neighbour, which nobody has measured.
        for name, n, curve in zip(table.class_names[1:], table.counts, table.curves, strict=True)
    )
