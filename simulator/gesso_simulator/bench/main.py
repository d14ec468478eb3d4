"""Runs a load against a service, shows how it goes, and writes what came of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gesso_simulator.bench.load import Asked, Load
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.bench.report import plot, summarise
from gesso_simulator.bench.send import Ending, Result, Terms, sender


@dataclass(frozen=True)
class Run:
    """What came of a load: every result in order, the figures, and how late each request was sent (s)."""

    results: list[Result]
    figures: dict[str, Any]


async def run(url: str, load: Load, terms: Terms, console: Console) -> Run:
    """Plays a load. Raises ValueError on a URL that is none."""
    lags: list[float] = []
    ends: Counter[Ending] = Counter()
    columns = (
        TextColumn("{task.completed}/{task.total} ended"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    async with sender(url, terms) as send:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(load.requests), told="")

            async def one(asked: Asked, start: float) -> Result:
                result = await send(asked, start)
                ends[result.ending] += 1
                ended = sum(ends.values())
                told = f"{len(lags) - ended} under way, {ends[Ending.IN_SLO] / ended:.1%} in time"
                progress.update(task, completed=ended, told=told)
                return result

            results = await open_loop(load.requests, one, on_sent=lags.append)
    return Run(results, summarise(results, load.seconds, terms.slo_seconds, lags))


def bench(
    url: str, load: Load, terms: Terms, json_path: Path | None, plot_path: Path | None
) -> dict[str, Any]:
    """Plays a load, prints a table, writes the files; gives the figures. Raises ValueError, OSError."""
    for path in (json_path, plot_path):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{path}: the folder {path.parent} does not exist")
    done = asyncio.run(run(url, load, terms, Console(stderr=True)))
    show(done.figures, Console())
    if json_path is not None:
        json_path.write_text(json.dumps(done.figures, indent=2) + "\n", encoding="utf-8")
    if plot_path is not None:
        plot(plot_path, done.results, load.seconds, terms.slo_seconds)
    return done.figures


def show(figures: dict[str, Any], console: Console) -> None:
    """The figures as a table."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("offered", f"{figures['offered']} ({figures['offered_per_s']:.2f}/s)")
    for ending in Ending:
        if figures[ending.value]:
            share = figures[ending.value] / figures["offered"]
            table.add_row(ending.value.replace("_", " "), f"{figures[ending.value]} ({share:.1%})")
    table.add_row("images/s in SLO", f"{figures['images_in_slo_per_s']:.2f}")
    latency = figures["latency_seconds"]
    if latency["p50"] is not None:
        text = "  ".join(
            f"{name} {latency[name]:.2f}" for name in ("p50", "p90", "p95", "p99", "max")
        )
        table.add_row("latency of images, s", text)
    levels = figures["images_by_skipped_steps"]
    if levels:
        table.add_row("images by K", "  ".join(f"{k}: {n}" for k, n in levels.items()))
    if figures["predicted_quality"] is not None:
        table.add_row("predicted quality", f"{figures['predicted_quality']:.4f}")
    lag = figures["send_lag_seconds"]
    table.add_row("sent late by, s", f"p99 {lag['p99']:.3f}  max {lag['max']:.3f}")
    for detail, count in figures["faults"].items():
        table.add_row("fault", f"{count}x {detail[:100]}")
    console.print(table)
