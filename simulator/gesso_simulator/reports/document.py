"""The report as JSON: the figures of every policy, the bounds, and what the run was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gesso_simulator.reports.figures import Bounds, Figures
from gesso_simulator.scenarios.spec import ScenarioRun


def document(
    run: ScenarioRun, seed: int, figures: Mapping[str, Figures], bounds: Bounds
) -> dict[str, Any]:
    """`{scenario, seed, slo_seconds, policies, bounds}` and, beside these, what makes the run repeatable."""
    return {
        "scenario": run.name,
        "seed": seed,
        "slo_seconds": run.slo_s,
        "data": run.origin,
        "day": run.day,
        "workers": len(run.workers),
        "requests": len(run.workload),
        "duration_seconds": run.workload.duration_s,
        "mean_load": len(run.workload) / run.workload.duration_s / run.full_capacity,
        "variants": [variant.name for variant in run.variants],
        "plan_interval_seconds": run.plan_interval_s,
        "notes": list(run.notes),
        "policies": {name: _policy(found) for name, found in figures.items()},
        "bounds": {
            name: {key: value for key, value in asdict(bound).items() if value is not None}
            for name, bound in bounds.items()
        },
    }


def write_document(path: Path, content: Mapping[str, Any]) -> None:
    """Writes it, keys in the order given. Raises ValueError on a number that is not finite."""
    _check(content)
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _policy(figures: Figures) -> dict[str, Any]:
    told = asdict(figures)
    extra = told.pop("extra")
    return {**told, **extra}


def _check(value: Any, at: str = "") -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check(inner, f"{at}.{key}" if at else str(key))
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{at}: {value} is not allowed in a report: a finite number")
