"""The report as a picture: load, quality and violations over time, and bars of the totals for each policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gesso_simulator.reports.figures import Bounds, over_time, summarise
from gesso_simulator.reports.result import PolicyResult
from gesso_simulator.scenarios.spec import ScenarioRun

#: About so many points on each line.
_POINTS = 150
_ROUND_BINS_S = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0)


def write_plot(
    path: Path, run: ScenarioRun, results: Sequence[PolicyResult], bounds: Bounds
) -> None:
    """Writes a PNG. Left, over time: load offered, relative quality, violations a minute; right: totals."""
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic(
        [["load", "throughput"], ["quality", "mean"], ["violations", "ratio"]],
        width_ratios=[2.2, 1],
    )
    colours = colormaps["tab10"](np.arange(10))
    _over_time(panels, run, results, colours)
    _totals(panels, run, results, bounds, colours)
    figure.suptitle(
        f"{run.name} · {len(run.workers)} workers · SLO {run.slo_s:.4g} s · data: {run.origin}"
    )
    figure.savefig(path, format="png", dpi=110)


def _over_time(
    panels: dict[str, Axes],
    run: ScenarioRun,
    results: Sequence[PolicyResult],
    colours: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> None:
    duration = run.workload.duration_s
    bin_s = min(_ROUND_BINS_S, key=lambda b: abs(b - duration / _POINTS))
    unit, unit_s = ("hours", 3600.0) if duration > 7200 else ("minutes", 60.0)
    for i, result in enumerate(results):
        series = over_time(result, duration, bin_s)
        at = (series.starts_s + bin_s / 2) / unit_s
        if i == 0:
            panels["load"].fill_between(at, series.offered, color="0.85", label="offered")
        style = "-" if i < len(colours) else "--"
        panels["load"].plot(at, series.served, style, color=colours[i % 10], lw=1.2)
        panels["quality"].plot(
            at, 100 * series.quality, style, color=colours[i % 10], lw=1.4, label=result.policy
        )
        panels["violations"].plot(at, series.violations, style, color=colours[i % 10], lw=1.2)
    panels["load"].axhline(
        60 * run.full_capacity, color="0.4", ls=":", lw=1, label="K = 0 capacity"
    )
    panels["load"].set_ylabel("images/min: offered, in SLO")
    panels["load"].legend(fontsize=8, loc="upper left")
    panels["quality"].set_ylabel("relative quality, %")
    panels["quality"].legend(fontsize=7, ncols=3, loc="lower left")
    panels["violations"].set_ylabel("violations/min")
    panels["violations"].set_xlabel(unit)
    for name in ("load", "quality", "violations"):
        panels[name].grid(alpha=0.25)
        panels[name].set_xlim(0, duration / unit_s)
    panels["load"].set_ylim(bottom=0)
    panels["violations"].set_ylim(bottom=0)


def _totals(
    panels: dict[str, Axes],
    run: ScenarioRun,
    results: Sequence[PolicyResult],
    bounds: Bounds,
    colours: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> None:
    names = [result.policy for result in results]
    figures = [summarise(result, run.slo_s) for result in results]
    minutes = run.workload.duration_s / 60
    quality = [100 * (f.relative_quality or np.nan) for f in figures]
    bars = (
        ("throughput", "images/min in SLO", [f.served_in_slo / minutes for f in figures]),
        ("mean", "relative quality, %", quality),
        ("ratio", "SLO violations, %", [100 * f.violation_ratio for f in figures]),
    )
    for key, title, values in bars:
        axes = panels[key]
        axes.barh(names, values, color=[colours[i % 10] for i in range(len(names))])
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        for i, value in enumerate(values):
            if np.isfinite(value):
                axes.text(value, i, f" {value:.4g}", va="center", fontsize=7)
        axes.margins(x=0.18)
    known = [q for q in quality if np.isfinite(q)]
    for name, bound in bounds.items():
        line = "--" if name == "informed" else ":"
        if bound.relative_quality is not None:
            panels["mean"].axvline(100 * bound.relative_quality, color="0.2", ls=line, lw=1)
            known.append(100 * bound.relative_quality)
        ratio = 100 * bound.violation_ratio
        panels["ratio"].axvline(ratio, color="0.2", ls=line, lw=1, label=f"bound: {name}")
    if bounds:
        panels["ratio"].legend(fontsize=7)
    if known:
        # All lie near 100: bars from 0 would look alike.
        panels["mean"].set_xlim(max(0.0, min(known) - 2), 101.5)
