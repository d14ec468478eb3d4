"""How far the plan's price curve may be trusted where workers batch: the demo's swing, simulated.

    python bench/bench_swing.py [--swings 4] [--seeds 2]

Two workers in batches of eight, with a profile of the tiny model's shape on a slow machine, serve the demo's
load (0.3x to 1.6x of what they generate in full, a day in three minutes) at five times the latency of an image
alone. The measured quality table tells qualities. `batch_share` is the share of the backlog's own price that
the curve does not fall below (`ChoicePolicy`): 0 is the curve alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from gesso.api import load_service
from gesso.profile import Profile
from gesso.profile_table import ProfileFit
from gesso_router.routing.choose import ChoicePolicy
from gesso_router.routing.policies import price_route
from gesso_simulator.engine.bounding import bounds_of
from gesso_simulator.engine.run import simulate
from gesso_simulator.inputs.quality_table import measured_table
from gesso_simulator.inputs.trace import Trace
from gesso_simulator.reports.figures import summarise
from gesso_simulator.scenarios.build import Wishes, build_given
from gesso_simulator.scenarios.spec import ScenarioRun
from gesso_simulator.workloads.arrivals import SWING

SERVICE = Path(__file__).parents[1] / "manifests" / "samples" / "tiny.yaml"
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
#: A step takes 35 ms alone and 98 ms in a batch of eight; of an image in full a fixed part of a fourth.
PROFILE = Profile("cpu", 50, 0.05, 0.12, tuple(0.026 + 0.009 * b for b in range(1, 9)))
WORKERS = 2
SLO = "5x"


def swinging(swings: int, seed: int) -> ScenarioRun:
    """A minute of the night, then so many of the demo's days."""
    rng = np.random.default_rng(seed)
    full = WORKERS * PROFILE.throughput(0)
    day = [SWING.rate(s + 0.5) for s in range(int(SWING.seconds))]
    rates = np.array([day[0]] * 60 + day * swings) * full
    starts = np.arange(len(rates), dtype=np.float64)
    trace = Trace(starts, np.ones(len(rates)), rng.poisson(rates))
    service = load_service(SERVICE)
    fit = ProfileFit(PROFILE, 0.0, 0.0)
    wishes = Wishes(slo=SLO, workers=WORKERS, service=service, profile=fit, table=measured_table())
    return build_given(trace, wishes=wishes, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--swings", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "swing.json")
    args = parser.parse_args()
    runs = [swinging(args.swings, seed) for seed in range(args.seeds)]
    rows = []
    for share in SHARES:
        route = price_route(replace(ChoicePolicy(), batch_share=share))
        for seed, run in enumerate(runs):
            figures = summarise(simulate(run, "QualityAware", seed=seed, route=route), run.slo_s)
            rows.append(
                {
                    "batch_share": share,
                    "seed": seed,
                    "violation_ratio": figures.violation_ratio,
                    "relative_quality": figures.relative_quality,
                    "mean_skipped_steps": figures.mean_skipped_steps,
                }
            )
    bounds = [bounds_of(run)["informed"] for run in runs]
    table = Table(title=f"the demo's swing, means of {args.seeds} seeds")
    for column in ("batch_share", "violations %", "quality %", "mean K"):
        table.add_column(column, justify="right")
    for share in SHARES:
        mine = [r for r in rows if r["batch_share"] == share]
        table.add_row(
            f"{share:g}",
            f"{100 * np.mean([r['violation_ratio'] for r in mine]):.2f}",
            f"{100 * np.mean([r['relative_quality'] for r in mine]):.2f}",
            f"{np.mean([r['mean_skipped_steps'] for r in mine]):.1f}",
        )
    table.add_row(
        "informed bound",
        f"{100 * np.mean([b.violation_ratio for b in bounds]):.2f}",
        f"{100 * np.mean([b.relative_quality for b in bounds]):.2f}",
        "",
    )
    Console().print(table)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    found = {
        "machine": machine,
        "requests": [len(run.workload) for run in runs],
        "rows": rows,
        "informed": [
            {"violation_ratio": b.violation_ratio, "relative_quality": b.relative_quality}
            for b in bounds
        ],
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
