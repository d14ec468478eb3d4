"""Means and spread over days and seeds."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

#: Figures that are averaged, each with its least and largest value beside it.
FIGURES = (
    "violation_ratio",
    "relative_quality",
    "mean_skipped_steps",
    "plan_changes",
    "late_plan_changes",
    "switches",
    "worker_hours",
    "served_in_slo",
    "lost",
    "recovery_s",
    "after_loss_violation_ratio",
    "after_loss_relative_quality",
    "after_loss_bound_violation_ratio",
    "after_loss_bound_relative_quality",
    "cpu_seconds",
)
Row = dict[str, Any]


def gathered(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Row]]:
    """By case and policy: each figure's mean, least and largest value, and the number of runs.

    The bounds of a case stand beside its policies as `informed` and `clairvoyant`.
    """
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        if result["what"] == "bounds":
            for name in ("informed", "clairvoyant"):
                runs[result["case"], name].append(result[name])
        else:
            runs[result["case"], result["what"]].append(result)
    table: dict[str, dict[str, Row]] = defaultdict(dict)
    for (case, what), rows in runs.items():
        table[case][what] = {"runs": len(rows)} | {
            name: _spread([r[name] for r in rows if r.get(name) is not None])
            for name in FIGURES
            if any(r.get(name) is not None for r in rows)
        }
    return dict(table)


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "least": min(values), "most": max(values)}


def mean(row: Mapping[str, Any], name: str) -> float:
    """The mean of a figure; NaN where it was not taken."""
    found = row.get(name)
    return float(found["mean"]) if found else float("nan")
