"""Policies side by side, live: the tiny SD-XL on two CPU workers, the same open-loop load for each.

    python bench/bench_live.py [--seconds 300] [--loads 0.5,1,1.5] [--policies QualityAware,...]

Capacity is that of the fleet at K = 0, measured once before, closed loop. For each load (a multiple of it) one
Poisson stream of prompts is drawn, and played to every policy on a fleet of its own that has served a little
before. Latencies count from when a request was due. Quality is CLIPScore by the tiny open_clip and the
attribute checker's score, of a sample of what was served, relative to the same prompts and seeds at K = 0.
These are generated straight after the run, and how fast they come tells how fast the machine was by then.
Two hours, on a machine that does nothing else; a run that is there is not played again (--out).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from gesso_simulator.demo import quality
from gesso_simulator.demo.fleet import Fleet, write_service
from gesso_simulator.demo.play import Board, measure_capacity, measure_latency, play
from gesso_simulator.demo.report import summarise
from gesso_simulator.scenarios.build import slo_seconds as slo_of
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import PromptRequest, SessionMix, prompts, requests

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"
OUT = ROOT / "bench" / "out"
POLICIES = "QualityAware,ClipperHA,Nirvana,PromptAgnostic,BacklogPrice,LeastOutstanding"
#: Colour and marker of each policy in the plot.
MARKS = {
    "QualityAware": ("#1b7f5c", "o"),
    "BacklogPrice": ("#2f4a7c", "s"),
    "PromptAgnostic": ("#8a5fa8", "^"),
    "Nirvana": ("#c98a1b", "D"),
    "ClipperHA": ("#b5432a", "v"),
    "LeastOutstanding": ("#555555", "P"),
}
COLUMNS = ("in_slo_per_s", "attainment", "clip_score", "attributes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300.0, help="of each run")
    parser.add_argument("--warm-up", type=float, default=25.0, help="full load before each run, s")
    parser.add_argument("--loads", default="0.5,1,1.5", help="multiples of the K = 0 capacity")
    parser.add_argument("--policies", default=POLICIES)
    parser.add_argument("--slo", default="5x", help="seconds, or a multiple of an image in full")
    parser.add_argument("--samples", type=int, default=200, help="images whose quality is measured")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT / "live", help="folder of single runs")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    about = asyncio.run(_about(given, console))
    rows = []
    for load in map(float, given.loads.split(",")):
        for policy in given.policies.split(","):
            file = given.out / f"{policy}-{load:g}x.json"
            if file.is_file() and _usable(
                row := json.loads(file.read_text()), about, given.samples
            ):
                console.print(f"{policy} at {load:g}x: from {file}")
            else:
                console.print(f"{policy} at {load:g}x: {given.seconds:g} s")
                row = asyncio.run(_run(policy, load, about, given))
                file.write_text(json.dumps(row, indent=1) + "\n")
            rows.append(row)
    _show(rows)
    report = {"about": about, "runs": [{k: v for k, v in r.items() if k != "about"} for r in rows]}
    (OUT / "live.json").write_text(json.dumps(report, indent=1) + "\n")
    (OUT / "live.md").write_text(_markdown(rows))
    _plot(OUT / "live.png", rows)


def _usable(row: dict[str, Any], about: dict[str, Any], samples: int) -> bool:
    """Whether a run is one of those that are wanted, with the quality of enough images measured."""
    served = row["served_in_slo"] + row["late"]
    measured = row["quality"]["samples"] if row["quality"] else 0
    return bool(row["about"] == about and measured >= min(samples, served))


async def _about(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Capacity and SLO, measured once and kept: runs compare only under the same."""
    wanted = {
        "seconds": given.seconds,
        "slo": given.slo,
        "seed": given.seed,
        "warm_up_seconds": given.warm_up,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
    }
    file = given.out / "about.json"
    if file.is_file():
        about: dict[str, Any] = json.loads(file.read_text())
        if all(about.get(key) == value for key, value in wanted.items()):
            return about
    rng = np.random.default_rng(given.seed + 1)
    history = requests([0.0] * 2000, prompts(SessionMix(), rng), rng)
    console.print("measuring latency and capacity at K = 0")
    with Fleet(SAMPLE, given.out / "state") as fleet:
        workers = len(fleet.workers())
        latency = await measure_latency(fleet.target, history, workers)
    service = given.out / "service.yaml"
    write_service(SAMPLE, service, "ClipperHA", 60.0)
    with Fleet(service, given.out / "state") as fleet:
        capacity = await measure_capacity(fleet.target, history, 8 * workers, given.warm_up)
    about = {
        **wanted,
        "workers": workers,
        "latency_at_k0_seconds": latency,
        "slo_seconds": round(slo_of(given.slo, latency), 2),
        "capacity_at_k0_images_per_s": capacity,
    }
    file.write_text(json.dumps(about, indent=1) + "\n")
    return about


async def _run(
    policy: str, load: float, about: dict[str, Any], given: argparse.Namespace
) -> dict[str, Any]:
    slo, capacity = about["slo_seconds"], about["capacity_at_k0_images_per_s"]
    service = given.out / "service.yaml"
    write_service(SAMPLE, service, policy, slo)
    rng = np.random.default_rng(given.seed)
    stream = prompts(SessionMix(), rng)
    history = requests([0.0] * 2000, stream, rng)
    rate = load * capacity
    arrivals = poisson_arrivals(RateShape(((0.0, rate), (given.seconds, rate))), rng)
    asked: Sequence[PromptRequest] = requests(arrivals, stream, rng)
    with Fleet(service, given.out / "state") as fleet:
        # Fills the cache as a service that is in use has it, and lets the live profiles settle.
        await measure_capacity(fleet.target, history, 8 * about["workers"], given.warm_up)
        await asyncio.sleep(min(12.0, given.warm_up))
        outcomes = await play(fleet.target, asked, slo, Board())
        drawn = quality.draw(outcomes, given.samples, given.seed)
        addresses = [address for _, address in fleet.workers().values()]
        began = time.monotonic()
        reference = await quality.references(addresses, drawn) if drawn else []
        made = sum(outcome.skipped_steps > 0 for outcome in drawn)
        speed = made / (time.monotonic() - began) if made else None
    measured = quality.measure(drawn, reference, given.seed) if drawn else None
    figures = summarise(outcomes, slo, given.seconds, [], measured)
    return {
        "about": about,
        "policy": policy,
        "load": load,
        "in_slo_per_s": figures["served_in_slo"] / given.seconds,
        "attainment": figures["served_in_slo"] / max(1, len(outcomes)),
        "clip_score": measured.clip_score.value if measured else None,
        "attributes": measured.attributes.value if measured else None,
        "speed_after_images_per_s": speed,
        **figures,
    }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title="Policies live, two CPU workers")
    for column in ("load", "policy", "images/s in SLO", "attainment", "CLIPScore", "attributes"):
        table.add_column(column, justify="left" if column in ("load", "policy") else "right")
    for row in rows:
        told = ["-" if row[c] is None else f"{row[c]:.3f}" for c in COLUMNS]
        table.add_row(f"{row['load']:g}x", row["policy"], *told)
    Console().print(table)


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as docs/live.md has it."""
    lines = [
        "| load | policy | in SLO/s | attainment | CLIPScore | attributes | mean K | p95, s | lost | speed |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = ["-" if row[c] is None else f"{row[c]:.3f}" for c in COLUMNS]
        told[0] = f"{row['in_slo_per_s']:.2f}"
        speed = row["speed_after_images_per_s"]
        rest = (
            f"{row['mean_skipped_steps']:.1f}",
            f"{row['latency_p95_seconds']:.2f}",
            f"{row['lost']}",
            "-" if speed is None else f"{speed:.2f}",
        )
        cells = (f"{row['load']:g}x", row["policy"], *told, *rest)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Attainment against relative CLIPScore, one panel for each load."""
    from matplotlib.figure import Figure

    loads = sorted({row["load"] for row in rows})
    figure = Figure(figsize=(4 * len(loads), 4.4), layout="constrained")
    panels = figure.subplots(1, len(loads), sharey=True, squeeze=False)[0]
    for panel, load in zip(panels, loads, strict=True):
        for row in (r for r in rows if r["load"] == load and r["clip_score"] is not None):
            colour, marker = MARKS.get(row["policy"], ("#555555", "x"))
            error = row["quality"]["clip_score"]
            bars = ([row["clip_score"] - error["low"]], [error["high"] - row["clip_score"]])
            panel.errorbar(
                row["attainment"],
                row["clip_score"],
                yerr=bars,
                fmt=marker,
                color=colour,
                elinewidth=0.8,
                label=row["policy"],
            )
        panel.set_title(f"{load:g}x of the capacity at K = 0", fontsize=10)
        panel.set_xlabel("served in time")
        panel.set_xlim(-0.03, 1.03)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("CLIPScore relative to K = 0")
    shown = {
        name: handle
        for p in panels
        for handle, name in zip(*p.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=6, frameon=False
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
