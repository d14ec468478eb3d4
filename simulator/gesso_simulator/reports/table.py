"""The report as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from gesso_simulator.reports.figures import BoundFigures, Bounds, Figures, distance
from gesso_simulator.scenarios.spec import ScenarioRun

_DATA = {
    "recorded": "recorded load and prompts",
    "synthetic": "SYNTHETIC load and prompts, made up: the recordings are not at hand",
    "given": "load or prompts from your files",
}


def heading(run: ScenarioRun) -> Sequence[str]:
    """What was run, on what, at which SLO; then what is assumed, a line each."""
    load = len(run.workload) / run.workload.duration_s / run.full_capacity
    size = f"{len(run.workers)} workers"
    if run.elastic:
        size = f"{run.elastic.least} to {run.elastic.most} workers"
    return (
        f"{run.name}: {len(run.workload)} requests in {run.workload.duration_s / 60:.4g} minutes, "
        f"{load:.3g}x the K = 0 capacity of {size}; SLO {run.slo_s:.4g} s "
        f"({run.slo_s / run.full_latency_s:.3g}x); seed {run.seed}",
        f"data: {run.origin} ({_DATA[run.origin]})",
        *(f"note: {note}" for note in run.notes),
    )


def policy_table(figures: Mapping[str, Figures], bounds: Bounds) -> Table:
    """A row a policy, in the order given, and a row a bound; shares in percent.

    A bound's column has the policy's distance to it, in points: violations and quality above it (-: below it).
    It fits 80 columns.
    """
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        caption="columns of bounds: distance in points, violations / quality" if bounds else None,
        caption_justify="left",
    )
    table.add_column("policy", no_wrap=True)
    for column in ("viol %", "qual %", "K", "plans", "switch", "hours", *bounds):
        table.add_column(column, justify="right", no_wrap=True)
    for name, found in figures.items():
        table.add_row(
            name,
            f"{100 * found.violation_ratio:.3f}",
            _number(found.relative_quality, 100, ".2f"),
            _number(found.mean_skipped_steps, 1, ".1f"),
            str(found.plan_changes),
            str(found.switches),
            f"{found.worker_hours:.1f}",
            *(_away(found, bound) for bound in bounds.values()),
        )
    for name, limit in bounds.items():
        table.add_row(
            f"({name})",
            f"{100 * limit.violation_ratio:.3f}",
            _number(limit.relative_quality, 100, ".2f"),
            "",
            "",
            "",
            "" if limit.worker_hours is None else f"{limit.worker_hours:.1f}",
            *[""] * len(bounds),
            style="dim",
        )
    return table


def _away(figures: Figures, bound: BoundFigures) -> str:
    away = distance(figures, bound)
    return f"{away.violation_points:+.2f}/{_number(away.quality_points, -1, '+.2f')}"


def _number(value: float | None, times: float, form: str) -> str:
    return "-" if value is None else format(times * value, form)
