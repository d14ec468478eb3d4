"""Figures and a picture of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gesso_simulator.bench.send import Ending, Result

PERCENTILES = (50, 90, 95, 99)


def summarise(
    results: Sequence[Result],
    seconds: float,
    slo_seconds: float,
    lags_s: Sequence[float],
    under_way: int | None = None,
) -> dict[str, Any]:
    """The figures: latencies and lags in seconds, ratios 0 to 1; None where nothing tells.

    `lags_s` is how late each request was sent; `under_way`, how many had no end when the load was interrupted
    (None: it was not). Raises ValueError without a result.
    """
    if not results:
        raise ValueError("results: one at least")
    endings = Counter(r.ending for r in results)
    served = [r for r in results if r.served]
    latencies = np.array([r.latency_s for r in served])
    in_slo = endings[Ending.IN_SLO]
    levels = Counter(r.skipped_steps for r in served if r.skipped_steps is not None)
    faults = Counter(r.detail for r in results if r.ending in (Ending.FAILED, Ending.LOST))
    return {
        "interrupted": under_way is not None,
        "under_way": under_way or 0,
        "seconds": seconds,
        "slo_seconds": slo_seconds,
        "offered": len(results),
        "offered_per_s": len(results) / seconds,
        **{ending.value: endings[ending] for ending in Ending},
        "slo_attainment": in_slo / len(results),
        "images_in_slo_per_s": in_slo / seconds,
        "latency_seconds": {
            **{f"p{p}": _percentile(latencies, p) for p in PERCENTILES},
            "mean": float(latencies.mean()) if len(latencies) else None,
            "max": float(latencies.max()) if len(latencies) else None,
        },
        "images_by_skipped_steps": {str(k): n for k, n in sorted(levels.items())},
        "cache_hit_ratio": sum(n for k, n in levels.items() if k) / sum(levels.values())
        if levels
        else None,
        "predicted_quality": _mean([r.quality for r in served]),
        "similarity": _mean([r.similarity for r in served]),
        "workers": dict(sorted(Counter(r.worker for r in served if r.worker).items())),
        # What the sender itself adds: far below the latencies, or the figures are not the service's.
        "send_lag_seconds": {
            "p99": _percentile(np.array(lags_s), 99),
            "max": max(lags_s, default=None),
        },
        "faults": dict(faults.most_common(5)),
    }


def plot(
    path: Path, results: Sequence[Result], seconds: float, slo_seconds: float, title: str = ""
) -> None:
    """Writes a picture: requests by ending over time, latencies by K, and their distribution."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    if title:
        figure.suptitle(title)
    rates, latencies, spread = figure.subplots(3, 1, height_ratios=[2, 3, 2])
    width = max(1.0, seconds / 60)
    edges = np.arange(0.0, seconds + width, width)
    colours = dict(
        zip(Ending, ("#2f4a7c", "#cd8f4f", "#b9b3a4", "#8a6f4e", "#a03a2a", "#4a1512"), strict=True)
    )
    bottom = np.zeros(len(edges) - 1)
    for ending, colour in colours.items():
        at = [r.at_s for r in results if r.ending is ending]
        if not at:
            continue
        counts = np.histogram(at, edges)[0] / width
        label = ending.value.replace("_", " ")
        rates.bar(edges[:-1], counts, width, bottom, align="edge", color=colour, label=label)
        bottom += counts
    rates.set_ylabel("requests/s, by end")
    rates.legend(frameon=False, fontsize=8, ncols=3)
    served = [r for r in results if r.served]
    levels = sorted({r.skipped_steps or 0 for r in served})
    shades = colormaps["viridis_r"](np.linspace(0.1, 0.9, max(1, len(levels))))
    for level, shade in zip(levels, shades, strict=False):
        of = [r for r in served if (r.skipped_steps or 0) == level]
        latencies.plot(
            [r.at_s for r in of],
            [r.latency_s for r in of],
            ".",
            ms=4,
            color=shade,
            label=f"K {level}",
        )
    latencies.axhline(slo_seconds, color="0.5", ls="--", lw=1)
    latencies.set_ylabel("latency, s")
    latencies.set_xlabel("seconds")
    if levels:
        latencies.legend(frameon=False, fontsize=8, ncols=6)
        told = np.sort([r.latency_s for r in served])
        spread.plot(told, np.arange(1, len(told) + 1) / len(results), color="#2f4a7c")
    spread.axvline(slo_seconds, color="0.5", ls="--", lw=1)
    spread.set_ylabel("share of all requests\nserved within")
    spread.set_xlabel("latency from the scheduled arrival, s")
    spread.set_ylim(0, 1)
    for axis in (rates, latencies, spread):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _percentile(values: np.ndarray[Any, Any], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    told = [v for v in values if v is not None]
    return float(np.mean(told)) if told else None
