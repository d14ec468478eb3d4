"""The tables and the plot of what bench_chaos found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def text(value: float | None, form: str = ".2f") -> str:
    """A figure, or a dash."""
    return "-" if value is None else format(value, form)


def disturbances(found: Mapping[str, Any], console: Console) -> None:
    """One row for each fault."""
    table = Table(title="One fault after another, two routers")
    for column in (
        *("fault", "requests", "lost", "late", "refused", "retried", "worst 5 s", "back after s"),
        "quality before, during, after",
    ):
        table.add_column(column, justify="left" if column == "fault" else "right", min_width=5)
    for row in found["faults"].values():
        during = row["during"]
        quality = "\n".join(
            text(row[k]["predicted_quality"], ".3f") for k in ("before", "during", "after")
        )
        table.add_row(
            row["title"],
            str(during["offered"]),
            str(during["accepted_and_lost"] + during["lost"] + during["failed"]),
            str(during["late"] + during["dropped"]),
            str(during["refused"]),
            f"{during['asked_another_router']} + {during['took_a_second_worker']}",
            text(row["worst_window"]),
            text(row["back_after_s"], ".1f"),
            quality,
        )
    console.print(table)


def overloads(found: Mapping[str, Any], console: Console) -> None:
    """The figures of the overload, two columns."""
    table = Table("overload", "", title="Ten times what the fleet serves at its deepest level")
    memory = ", ".join(
        f"{name} {m['first_third']:.0f} to {m['last_third']:.0f} (most {m['most']:.0f})"
        for name, m in found["memory_mib"].items()
        if m
    )
    rows = (
        ("requests a second", text(found["requests_per_s"], ".1f")),
        ("images in SLO a second", text(found["images_in_slo_per_s"])),
        ("images late", str(found["images"] - found["images_in_slo"])),
        (
            "refused: p50, p99, within 50 ms",
            f"{1000 * (found['refusal_p50_s'] or 0):.1f} ms, {1000 * (found['refusal_p99_s'] or 0):.1f} ms, "
            f"{found['refusal_share_at_once']:.4f}",
        ),
        ("in SLO, or refused within 50 ms", text(found["kept_promise_share"], ".4f")),
        ("otherwise", str(found["otherwise"] or "none")),
        ("recovered after", f"{text(found['recovered_after_s'], '.1f')} s"),
        ("memory, MiB, first to last third", memory),
        ("the load generator's share of a core", text(found["generator_cpu_share_of_a_core"])),
    )
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def balances(found: Mapping[str, Any], console: Console) -> None:
    """One router against two."""
    table = Table(title="Routers side by side, fake workers, the same load")
    for column in (
        *("routers", "attainment", "p50 s", "p99 s"),
        *("least and most images of a worker", "queue apart, mean"),
    ):
        table.add_column(column, justify="right")
    for name, row in found["cases"].items():
        table.add_row(
            name,
            text(row["attainment"], ".4f"),
            text(row["latency_p50_s"]),
            text(row["latency_p99_s"]),
            f"{row['least_share']:.3f} - {row['most_share']:.3f}",
            text(row["queue_apart"]),
        )
    console.print(table)


def plot(path: Path, report: Mapping[str, Any]) -> None:
    """Attainment over time with the faults marked; below, the memory under overload."""
    from matplotlib.figure import Figure

    chaos, overload = report.get("chaos"), report.get("overload")
    panels = [p for p in (chaos, overload) if p]
    if not panels:
        return
    figure = Figure(figsize=(9, 3.2 * len(panels)), layout="constrained")
    axes = iter(figure.subplots(len(panels), 1, squeeze=False)[:, 0])
    if chaos:
        axis = next(axes)
        at, share = zip(*chaos["attainment_over_time"], strict=True)
        axis.plot([t + 2.5 for t in at], share, color="#2f4a7c", linewidth=1.2)
        for row in chaos["faults"].values():
            axis.axvspan(
                row["at_s"],
                row["at_s"] + max(1.0, row["lasts_s"]),
                color="#c8553d",
                alpha=0.35,
                linewidth=0,
            )
            axis.annotate(row["title"], (row["at_s"], 0.03), fontsize=7, rotation=90)
        axis.set_ylim(0, 1.05)
        axis.set_ylabel("served in time, 5 s windows")
        axis.set_xlabel("s")
    if overload:
        axis = next(axes)
        for name, samples in overload["memory_over_time"].items():
            at, resident = zip(*samples, strict=True)
            axis.plot(at, resident, linewidth=1.2, label=name)
        axis.axvspan(
            overload["begins_s"], overload["ends_s"], color="#c8553d", alpha=0.15, linewidth=0
        )
        axis.set_ylabel("memory under 10x overload, MiB")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("s")
        axis.legend(fontsize=7, frameon=False)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
