"""Results made by hand, for tests of reports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gesso_simulator.data.sources import substitutes
from gesso_simulator.reports.result import PolicyResult
from gesso_simulator.scenarios.build import build
from gesso_simulator.scenarios.spec import ScenarioRun, Workload

QUALITY = [1.0, 0.9, 0.8, 0.0, 0.0, 0.7]


def six() -> ScenarioRun:
    """A run of six requests in two minutes at an SLO of 10 s."""
    run = build("model-family", sources=substitutes())
    work: Workload = replace(
        run.workload,
        arrival_s=np.array([1.0, 20, 50, 70, 80, 110]),
        prompt=np.arange(6),
        prompt_rows=np.arange(100, 106),
        offered=np.array([3, 3]),
        step_starts=np.array([0.0, 60]),
        duration_s=120.0,
    )
    return replace(run, workload=work, slo_s=10.0)


def played(run: ScenarioRun, policy: str = "QualityAware") -> PolicyResult:
    """Two served, one late, one shed, one lost, and one served by the other model."""
    nan = np.nan
    return PolicyResult(
        policy=policy,
        arrival_s=run.workload.arrival_s,
        prompt=run.workload.prompt,
        predicted_k=np.array([0, 5, 25, 10, 0, 5]),
        served_k=np.array([0, 10, 25, -1, 5, 0]),
        variant=np.array([0, 2, 5, -1, 1, 6]),
        worker=np.array([0, 1, 2, -1, 7, 3]),
        start_s=np.array([1.5, 21, 58, nan, 81, 110]),
        finish_s=np.array([4.0, 24, 61, nan, nan, 111]),
        outcome=np.array([0, 0, 1, 2, 3, 0], dtype=np.int8),
        relative_quality=np.array([1.0, 0.9, 0.8, nan, nan, 0.7]),
        workers=tuple(w.name for w in run.workers),
        plan_changes=2,
        switches=3,
        worker_hours=8 / 30,
    )
