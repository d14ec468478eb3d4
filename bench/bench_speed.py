"""How long decisions take: a simulated day, the choice for one prompt, a plan.

    python bench/bench_speed.py [--no-day]

CPU time of one thread, so that it hardly suffers from what else the machine does; a busy sibling of a shared
core still shows. `reference_ms` is a fixed loop of Python, timed before and after every row: rows of two runs
compare where it is alike.

*Day*: `gesso simulate --scenario twitter --slo 3x`, the policy's own run. *Choice*: prediction and
`choose` for one prompt with two matches, on views whose backlog nobody has asked for yet; embedding and look-up
excluded. *Plan*: `decide`, over two swings of the load between 0.4x and 1.9x of the fleet's K = 0 capacity, a
plan every 30 s, on a fleet that follows. What was imported is frozen for the garbage collector, as in the
operator.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from gesso.api import load_service
from gesso.plan import Plan
from gesso.profile import Profile
from gesso_operator.planning import (
    ClassCount,
    Observation,
    PlannerState,
    RouterReport,
    Settings,
    decide,
)
from gesso_operator.planning import WorkerView as PlannedWorker
from gesso_operator.planning.settings import ModelVariant
from gesso_router.predictor import load_predictor
from gesso_router.routing.choose import Ask, ChoicePolicy, FleetView, WorkerView, choose
from gesso_router.routing.predictors.learned import LearnedPredictor
from gesso_router.routing.quality import Match, QualityPredictor, serving_options
from gesso_simulator.command import Options, resolve
from gesso_simulator.engine.run import simulate

SLO_S = 12.6
LADDER = (0, 5, 10, 15, 20, 25)
SDXL = Profile("A100", 50, 0.0, 0.0, (4.2 / 1.65 / 50,))
BATCHED = Profile("A100", 50, 0.004, 0.010, tuple(0.0063 + 0.0038 * b for b in range(1, 9)))
LIGHTNING = Profile("A100", 4, 0.0, 0.0, (0.09 * 4.2 / 1.65 / 4,))
#: Share of the prompts and mean quality along the ladder, by class.
CLASSES = {
    "miss": (0.1, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "far": (0.3, (1.0, 0.95, 0.92, 0.89, 0.86, 0.83)),
    "near": (0.4, (1.0, 0.98, 0.97, 0.96, 0.94, 0.92)),
    "same": (0.2, (1.0, 0.995, 0.99, 0.985, 0.98, 0.975)),
}
LIGHTNING_QUALITY = 0.88
SERVICE = Path(__file__).parents[1] / "manifests" / "samples" / "tiny.yaml"
PLANS = 200


def reference_ms() -> float:
    """A fixed loop of Python."""
    began, total = time.process_time(), 0
    for i in range(200_000):
        total += i * i
    return 1e3 * (time.process_time() - began)


def day() -> dict[str, Any]:
    """CPU seconds of a simulated Twitter day."""
    run = resolve(Options(scenario="twitter", slo="3x"), None)
    began = time.process_time()
    result = simulate(run, "QualityAware", seed=0)
    return {"requests": len(result.outcome), "cpu_s": time.process_time() - began}


def views(rng: np.random.Generator, workers: int, profile: Profile) -> tuple[WorkerView, ...]:
    """Workers as the router might see them, between idle and a queue of two."""
    return tuple(
        WorkerView(
            f"w{i}",
            profile,
            int(rng.choice(LADDER)),
            tuple(rng.integers(1, 50, rng.integers(0, profile.max_batch + 1)).tolist()),
            tuple(rng.choice(LADDER[1:], rng.integers(0, 3)).tolist()),
        )
        for i in range(workers)
    )


def choices(
    workers: int, profile: Profile, predictor: QualityPredictor, number: int
) -> dict[str, Any]:
    """Microseconds of a choice, prediction included."""
    rng = np.random.default_rng(7)
    curve = tuple((0.3 * i, 0.0001 * 1.08**i) for i in range(121))
    plan = Plan(1, 0.0, (), 0.01, "Bench", "", price_curve=curve)
    policy, taken = ChoicePolicy(), []
    size = predictor.features.embedding_size if isinstance(predictor, LearnedPredictor) else 1
    for _ in range(number):
        fleet = FleetView(
            views(rng, workers, profile), SLO_S, plan, arrivals_per_second=workers / 3
        )
        around = rng.normal(size=(3, size)).astype(np.float32)
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        matches = [
            Match(f"e{i}", f"w{rng.integers(workers)}", 0.9 - 0.1 * i, LADDER[1:], around[i])
            for i in range(2)
        ]
        began = time.process_time()
        choose(Ask(serving_options(predictor, matches, around[2]), 50, SLO_S), fleet, policy)
        taken.append(time.process_time() - began)
    return {
        "workers": workers,
        "median_us": quantile(taken, 0.5, 1e6),
        "p99_us": quantile(taken, 0.99, 1e6),
    }


def observations(
    workers: int, settings: Settings, profiles: dict[str, Profile]
) -> Iterator[tuple[Observation, Callable[[Any], None]]]:
    """What the planner sees plan by plan; the second takes its decision."""
    rng = np.random.default_rng(3)
    full = workers * SDXL.throughput(0)
    counts = dict.fromkeys(CLASSES, 0)
    fleet = [PlannedWorker(f"w{i}", True, 0, 0, SDXL) for i in range(workers)]
    away: dict[int, float] = {}
    other = (LIGHTNING_QUALITY,) * len(settings.models)
    for plan in range(PLANS):
        now = (plan + 1) * settings.interval_s
        rate = full * (1.15 - 0.75 * math.cos(4 * math.pi * plan / PLANS))
        for name, (share, _) in CLASSES.items():
            counts[name] += int(rng.poisson(rate * share * settings.interval_s))
        for i, until in list(away.items()):
            if until <= now:
                fleet[i] = replace(
                    fleet[i], ready=True, starting=False, profile=profiles[fleet[i].model]
                )
                del away[i]
        report = RouterReport(
            now,
            now,
            sum(counts.values()),
            tuple(ClassCount(n, counts[n], (*q, *other)) for n, (_, q) in CLASSES.items()),
        )

        def follow(decision: Any, now: float = now) -> None:
            for i, worker in enumerate(fleet):
                level = decision.assignment.get(worker.name, worker.skipped_steps)
                model = decision.models.get(worker.name, worker.model)
                if model != worker.model:
                    away[i] = now + settings.load_s("A100", model)
                    fleet[i] = replace(
                        worker, ready=False, starting=True, profile=None, model=model
                    )
                elif level != worker.skipped_steps or not worker.assigned_revision:
                    fleet[i] = replace(
                        worker, skipped_steps=level, assigned_revision=decision.plan.revision
                    )

        yield Observation(now, report, tuple(fleet)), follow


def plans(workers: int, family: bool) -> dict[str, Any]:
    """Milliseconds of a plan."""
    settings = Settings(
        ladder=LADDER, latency_s=SLO_S, interval_s=30.0, min_quality=0.0, max_batch=1
    )
    profiles = {"": SDXL}
    if family:
        profiles["lightning"] = LIGHTNING
        settings = replace(
            settings,
            models=(ModelVariant("lightning", LIGHTNING.steps),),
            profiles={("A100", m): p for m, p in profiles.items()},
            switch_s=(("", "", 47.0), ("", "lightning", 47.0)),
        )
    state, taken, changed = PlannerState(), [], 0
    for observation, follow in observations(workers, settings, profiles):
        began = time.process_time()
        decision, state = decide(observation, state, settings)
        taken.append(time.process_time() - began)
        changed += decision.changed
        follow(decision)
    return {
        "workers": workers,
        "models": 1 + family,
        "plans": changed,
        "p50_ms": quantile(taken, 0.5, 1e3),
        "p99_ms": quantile(taken, 0.99, 1e3),
        "most_ms": quantile(taken, 1.0, 1e3),
    }


def quantile(seconds: list[float], share: float, scale: float) -> float:
    """Of times in seconds, in another unit."""
    return float(np.quantile(seconds, share)) * scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--no-day", action="store_true", help="leaves the simulated day out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "speed.json")
    args = parser.parse_args()
    console = Console(stderr=True)
    learned = load_predictor(load_service(SERVICE))
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        "choice, 8 workers, one image at a time": lambda: choices(8, SDXL, learned, 2000),
        "choice, 8 workers, batches of 8": lambda: choices(8, BATCHED, learned, 2000),
        "choice, 1,000 workers": lambda: choices(1000, SDXL, learned, 100),
        "plan, 8 workers": lambda: plans(8, False),
        "plan, 8 workers, two models": lambda: plans(8, True),
        "plan, 4,096 workers": lambda: plans(4096, False),
        "plan, 4,096 workers, two models": lambda: plans(4096, True),
    }
    if not args.no_day:
        tasks = {"simulated Twitter day": day, **tasks}
    rows: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        console.print(name)
        gc.collect()
        gc.freeze()
        before = reference_ms()
        rows[name] = task()
        rows[name]["reference_ms"] = (before + reference_ms()) / 2
    table = Table(title="speed")
    for column in ("", "median", "p99", "total", "reference ms"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        unit = "us" if "median_us" in row else "ms"
        middle, high = (
            row.get(f"{q}_{unit}") for q in ("median" if unit == "us" else "p50", "p99")
        )
        table.add_row(
            name,
            f"{middle:.0f} {unit}" if middle is not None else "",
            f"{high:.0f} {unit}" if high is not None else "",
            f"{row['cpu_s']:.1f} s" if "cpu_s" in row else "",
            f"{row['reference_ms']:.1f}",
        )
    Console().print(table)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    console.print(f"written: {args.out}")


if __name__ == "__main__":
    main()
