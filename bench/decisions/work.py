"""One task of the decisions bench: a policy, or the bounds, on one day and seed of a case."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from decisions.bounding import after_loss
from decisions.cases import Case
from gesso_simulator.baselines.static import play
from gesso_simulator.engine.bounding import bounds_of
from gesso_simulator.reports.figures import summarise
from gesso_simulator.reports.result import SERVED, PolicyResult
from gesso_simulator.scenarios.build import Wishes, build
from gesso_simulator.scenarios.spec import ScenarioRun

ROOT = Path(__file__).parents[2]
OUT = ROOT / "bench" / "out" / "decisions"
#: Code that a result depends on.
SOURCES = (
    "operator/gesso_operator/planning",
    "router/gesso_router/routing",
    "simulator/gesso_simulator",
    "common/gesso",
)


@dataclass(frozen=True)
class Task:
    """`what` is a policy or `bounds`."""

    case: Case
    what: str
    day: int
    seed: int

    @property
    def path(self) -> Path:
        """Where its result lies once it is there."""
        return OUT / f"{self.case.key}.{self.what}.{self.day}.{self.seed}.json".replace(":", "-")


def fingerprint() -> str:
    """Of the code that decides and simulates."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name and "/demo/" not in str(path):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def scenario_run(task: Task) -> ScenarioRun:
    """What the task runs on."""
    wishes = Wishes(slo=task.case.slo, load_scale=task.case.load_scale)
    return build(task.case.scenario, day=task.day, seed=task.seed, wishes=wishes)


def done(task: Task, code: str) -> Mapping[str, Any] | None:
    """The task's result, if there is one by the same code."""
    try:
        found: dict[str, Any] = json.loads(task.path.read_text())
    except (OSError, ValueError):
        return None
    return found if code in ("", found["code"]) else None


def do(task: Task, code: str) -> dict[str, Any]:
    """Does the task and keeps its result."""
    run = scenario_run(task)
    began = time.process_time()
    if task.what == "bounds":
        found: dict[str, Any] = {name: asdict(f) for name, f in bounds_of(run).items()}
    else:
        found = figures(play(run, task.what, seed=task.seed), run)
    found |= {
        "case": task.case.key,
        "what": task.what,
        "day": task.day,
        "seed": task.seed,
        "origin": run.origin,
        "cpu_seconds": time.process_time() - began,
        "code": code,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    task.path.write_text(json.dumps(found))
    return found


def figures(result: PolicyResult, run: ScenarioRun) -> dict[str, Any]:
    """The report's figures, and those that only some scenarios ask for."""
    found: dict[str, Any] = asdict(summarise(result, run.slo_s))
    found["late_plan_changes"] = sum(1 for at, _ in result.plans[1:] if at > 60)
    if run.name.startswith("flash"):
        found["recovery_s"] = recovery_seconds(result, onset_s(run))
    if run.events:
        found |= asdict(after_loss(result, run))
    return found


def onset_s(run: ScenarioRun) -> float:
    """When the flash begins, in seconds: the first step with over 1.2 times the load of the run's first."""
    rate = run.workload.offered / np.diff(
        np.append(run.workload.step_starts, run.workload.duration_s)
    )
    return float(run.workload.step_starts[int(np.argmax(rate > 1.2 * rate[0]))])


def recovery_seconds(result: PolicyResult, onset: float, window_s: float = 10.0) -> float:
    """Seconds from the onset until violations stay under 1 % in every window of ten seconds.

    Windows begin each second; 0 where they never reach it.
    """
    bad = result.outcome != SERVED
    last = 0.0
    end = float(result.arrival_s[-1]) if len(result) else onset
    for start in np.arange(onset, end, 1.0):
        low, high = np.searchsorted(result.arrival_s, (start, start + window_s))
        if high > low and bad[low:high].mean() >= 0.01:
            worst = float(result.arrival_s[low:high][bad[low:high]].max())
            last = max(last, worst - onset)
    return last
