"""Small runs whose reports are kept, and where two reports differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gesso_simulator.data.sources import substitutes
from gesso_simulator.engine.bounding import bounds_of
from gesso_simulator.engine.run import simulate
from gesso_simulator.inputs.trace import Trace
from gesso_simulator.reports.document import document
from gesso_simulator.reports.figures import summarise
from gesso_simulator.scenarios.build import Wishes, build_given
from gesso_simulator.scenarios.spec import FleetEvent, ScenarioRun

FOLDER = Path(__file__).parent / "golden"
POLICIES = ("QualityAware", "BacklogPrice", "ClipperHA")
#: Relative tolerance of figures that are no whole numbers: they may differ in the last digits by machine.
TOLERANCE = 1e-6
_WORKERS = 4
_STEP_S = 10.0
#: Load in units of the fleet's capacity at K = 0, by step.
_LOADS = {
    "constant-0.9x": [0.9] * 24,
    "flash-crowd": [0.45] * 8 + [1.35] * 8 + [0.45] * 8,
    "worker-loss": [1.2] * 24,
}
NAMES = tuple(_LOADS)


@cache
def report(name: str) -> dict[str, Any]:
    """The JSON report of a case, made now."""
    run = _run(name)
    figures = {p: summarise(simulate(run, p, seed=0), run.slo_s) for p in POLICIES}
    return document(run, 0, figures, bounds_of(run))


def _run(name: str) -> ScenarioRun:
    loads = np.array(_LOADS[name])
    wishes = Wishes(slo="3x", workers=_WORKERS, plan_interval_s=10.0)
    first = Trace(np.zeros(1), np.ones(1), np.ones(1, dtype=np.int64))
    capacity = build_given(first, wishes=wishes, sources=substitutes()).full_capacity
    counts = np.rint(loads * capacity * _STEP_S).astype(np.int64)
    trace = Trace(np.arange(len(loads)) * _STEP_S, np.full(len(loads), _STEP_S), counts)
    run = replace(build_given(trace, wishes=wishes, sources=substitutes()), name=name)
    if name != "worker-loss":
        return run
    gone = run.workers[-1].name
    return replace(run, events=(FleetEvent(80.0, gone, "lost"), FleetEvent(160.0, gone, "back")))


def differences(golden: Any, found: Any, at: str = "") -> Iterator[str]:
    """A line for each field that differs, by its path; floats may differ by `TOLERANCE`."""
    if isinstance(golden, Mapping) and isinstance(found, Mapping):
        for key in (*golden, *(k for k in found if k not in golden)):
            path = f"{at}.{key}" if at else str(key)
            if key not in found or key not in golden:
                where = "golden report" if key in golden else "new report"
                yield f"{path}: in the {where} only"
            else:
                yield from differences(golden[key], found[key], path)
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        for i, (was, now) in enumerate(zip(golden, found, strict=True)):
            yield from differences(was, now, f"{at}[{i}]")
    elif not _alike(golden, found):
        yield f"{at}: {found!r}, golden {golden!r}"


def _alike(golden: Any, found: Any) -> bool:
    if float in (type(golden), type(found)) and {type(golden), type(found)} <= {int, float}:
        return math.isclose(golden, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(golden) is type(found) and golden == found
