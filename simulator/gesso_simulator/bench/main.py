"""Runs a load against a service, shows how it goes, and writes what came of it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gesso.outputs import check_file, check_picture, writing
from gesso_simulator.bench.load import Asked, Load
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.bench.report import plot, summarise
from gesso_simulator.bench.send import Ending, Result, Terms, sender


@dataclass(frozen=True)
class Run:
    """What came of a load that lasted `seconds`: the results in order, and how late each request was sent (s).

    `under_way`: how many an interruption left without a result; None: the load was played to its end.
    """

    results: tuple[Result, ...]
    lags_s: tuple[float, ...]
    seconds: float
    under_way: int | None = None


async def run(url: str, load: Load, terms: Terms, console: Console) -> Run:
    """Plays a load until its end, or SIGINT; a second SIGINT ends the program.

    Raises ValueError on a URL that is none.
    """
    loop = asyncio.get_running_loop()
    began: list[float] = []
    lags: list[float] = []
    ended: list[Result] = []
    ends: Counter[Ending] = Counter()
    stopped_at: float | None = None
    columns = (
        TextColumn("{task.completed}/{task.total} ended"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    async with sender(url, terms) as send:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(load.requests), told="")

            async def one(asked: Asked, start: float) -> None:
                result = await send(asked, start)
                ended.append(result)
                ends[result.ending] += 1
                in_time = ends[Ending.IN_SLO] / len(ended)
                told = f"{len(lags) - len(ended)} under way, {in_time:.1%} in time"
                progress.update(task, completed=len(ended), told=told)

            playing = asyncio.ensure_future(
                open_loop(load.requests, one, began.append, lags.append)
            )

            def stop() -> None:
                nonlocal stopped_at
                loop.remove_signal_handler(signal.SIGINT)
                if playing.cancel():
                    stopped_at = time.monotonic()

            loop.add_signal_handler(signal.SIGINT, stop)
            try:
                await playing
            except asyncio.CancelledError:
                if stopped_at is None:
                    raise
            finally:
                loop.remove_signal_handler(signal.SIGINT)
    results = tuple(sorted(ended, key=lambda r: r.index))
    if stopped_at is None:
        return Run(results, tuple(lags), load.seconds)
    # Began it has: a signal is handled after the load's first step.
    seconds = min(load.seconds, stopped_at - began[0])
    return Run(results, tuple(lags), seconds, len(lags) - len(results))


def bench(
    url: str, load: Load, terms: Terms, json_path: Path | None, plot_path: Path | None
) -> dict[str, Any] | None:
    """Plays a load, prints a table, writes the files; gives the figures.

    None, and nothing written: interrupted before a request had ended. Raises ValueError on what cannot be
    done, OutputError where a file could not be written in the end.
    """
    check_file("--json", json_path)
    check_picture("--plot", plot_path)
    done = asyncio.run(run(url, load, terms, Console(stderr=True)))
    if not done.results:
        return None
    figures = summarise(done.results, done.seconds, terms.slo_seconds, done.lags_s, done.under_way)
    show(figures, Console())
    if json_path is not None:
        with writing("--json", json_path):
            json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if plot_path is not None:
        title = "" if done.under_way is None else f"interrupted after {done.seconds:.1f} s"
        with writing("--plot", plot_path):
            plot(plot_path, done.results, done.seconds, terms.slo_seconds, title)
    return figures


def show(figures: dict[str, Any], console: Console) -> None:
    """The figures as a table."""
    table = Table(box=None, show_header=False, pad_edge=False)
    if figures["interrupted"]:
        text = f"after {figures['seconds']:.1f} s, with {figures['under_way']} under way, not counted below"
        table.add_row("interrupted", text)
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
