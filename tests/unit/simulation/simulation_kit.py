"""Small runs made by hand: what arrives, on which workers, with what curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gesso.profile import Profile
from gesso_simulator.scenarios.prediction import BinnedPredictor
from gesso_simulator.scenarios.spec import (
    DeviceClass,
    ScenarioRun,
    Variant,
    WorkerSpec,
    Workload,
)

LADDER = (0, 5, 10)
#: A second at K = 0, nothing but steps.
PLAIN = Profile("gpu", 20, 0.0, 0.0, (0.05,))
BATCHED = Profile("gpu", 20, 0.01, 0.02, (0.05, 0.06, 0.07, 0.08))
CURVES = np.array([[1.0, 0.98, 0.95], [1.0, 0.9, 0.7]])


def run_of(
    arrivals: Sequence[float],
    workers: int = 1,
    profile: Profile = PLAIN,
    slo: float = 1e6,
    **fields: object,
) -> ScenarioRun:
    """A run of two kinds of prompts in turn, on workers of one class."""
    times = np.sort(np.asarray(arrivals, dtype=np.float64))
    end = float(times[-1]) + 60.0 if len(times) else 60.0
    work = Workload(
        arrival_s=times,
        prompt=np.arange(len(times)) % 2,
        prompt_rows=np.arange(2),
        similarity=np.array([0.9, 0.5]),
        quality=CURVES.copy(),
        predicted=CURVES.copy(),
        step_starts=np.zeros(1),
        offered=np.array([len(times)]),
        duration_s=end,
    )
    device = DeviceClass(profile.device, {"": profile}, {"": 5.0})
    predictor = BinnedPredictor(LADDER, (0.7,), (tuple(CURVES[1]), tuple(CURVES[0])))
    run = ScenarioRun(
        name="made",
        origin="given",
        notes=(),
        seed=0,
        day=0,
        workload=work,
        variants=tuple(Variant("", k) for k in LADDER),
        steps=profile.steps,
        predictor=predictor,
        workers=tuple(WorkerSpec(f"w{i}", device) for i in range(workers)),
        slo_s=slo,
        plan_interval_s=10.0,
        jitter=0.0,
        max_batch=profile.max_batch,
        max_queue=10_000,
    )
    return replace(run, **fields)  # type: ignore[arg-type]


def poisson(rate: float, seconds: float, seed: int = 1) -> np.ndarray:
    """Arrival times of a Poisson process."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.random(rng.poisson(rate * seconds)) * seconds)
