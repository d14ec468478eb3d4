"""Pictures of a run: quality, violations and mix over time, and a contact sheet of images with their K."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gesso_simulator.demo.play import Ending, Outcome
from gesso_simulator.demo.report import MixSample
from gesso_simulator.workloads.arrivals import RateShape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BIN_SECONDS = 5.0
COLOURS = {"QualityAware": "#1b7f5c", "ClipperHA": "#b5432a"}


@dataclass(frozen=True)
class Run:
    """One policy's run, as the pictures need it."""

    policy: str
    outcomes: Sequence[Outcome]
    mixes: Sequence[MixSample]


def plot(
    path: Path, runs: Sequence[Run], offered: RateShape, capacity: float, slo_seconds: float
) -> None:
    """Writes the timeline (see there) as a picture."""
    timeline(runs, offered, capacity, slo_seconds).savefig(path, dpi=110)


def timeline(
    runs: Sequence[Run], offered: RateShape, capacity: float, slo_seconds: float
) -> Figure:
    """Load and images in time, predicted quality, violations, and served K with the assigned mix, over time.

    The mix is the first run's. `offered` has rates in images/s; `capacity` is the fleet's at K = 0, images/s.
    """
    from matplotlib.figure import Figure

    edges = np.arange(0.0, offered.seconds + BIN_SECONDS, BIN_SECONDS)
    centres = (edges[:-1] + edges[1:]) / 2
    # A figure of its own draws without a window, and nobody has to close it.
    figure = Figure(figsize=(9, 10), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, height_ratios=[3, 2, 2, 3])
    load, quality, violations, mix = axes
    load.plot(centres, [offered.rate(t) for t in centres], color="0.4", ls="--", label="offered")
    load.axhline(capacity, color="0.75", lw=1)
    load.annotate(
        "capacity at K = 0",
        (0, capacity),
        (4, 3),
        textcoords="offset points",
        color="0.5",
        fontsize=8,
    )
    for run in runs:
        colour = COLOURS.get(run.policy)
        at = np.array([o.request.at_s for o in run.outcomes])
        in_slo = np.array([o.ending is Ending.IN_SLO for o in run.outcomes])
        good, _ = np.histogram(at[in_slo], edges)
        bad, _ = np.histogram(at[~in_slo], edges)
        load.plot(centres, good / BIN_SECONDS, color=colour, label=f"{run.policy}: in time")
        violations.plot(centres, bad * 60 / BIN_SECONDS, color=colour, label=run.policy)
        served = np.array([o.served for o in run.outcomes])
        predicted = np.array([o.predicted_quality for o in run.outcomes])
        total, _ = np.histogram(at[served], edges)
        summed, _ = np.histogram(at[served], edges, weights=predicted[served])
        with np.errstate(invalid="ignore"):
            quality.plot(centres, 100 * summed / np.where(total, total, np.nan), color=colour)
    load.set_ylabel("images/s")
    load.legend(frameon=False, fontsize=8, ncols=3)
    quality.set_ylabel("predicted relative\nquality, %")
    violations.set_ylabel(f"SLO violations\nper minute ({slo_seconds:g} s)")
    _plot_mix(mix, runs[0], edges)
    mix.set_xlabel("seconds")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0)
    return figure


def _plot_mix(axis: Axes, run: Run, edges: NDArray[np.float64]) -> None:
    from matplotlib import colormaps

    levels = sorted({o.skipped_steps for o in run.outcomes if o.served})
    counts = np.array(
        [
            np.histogram(
                [o.request.at_s for o in run.outcomes if o.served and o.skipped_steps == k], edges
            )[0]
            for k in levels
        ],
        float,
    )
    if not levels:
        return
    shares = 100 * counts / np.maximum(counts.sum(axis=0), 1)
    bottom = np.zeros(len(edges) - 1)
    for i, (k, share) in enumerate(zip(levels, shares, strict=True)):
        colour = colormaps["viridis"](1 - i / max(1, len(levels) - 1))
        axis.bar(
            edges[:-1], share, np.diff(edges), bottom, align="edge", color=colour, label=f"K={k}"
        )
        bottom += share
    axis.set_ylabel(f"{run.policy}:\nserved by K, %")
    axis.set_ylim(0, 118)
    axis.legend(frameon=False, fontsize=8, ncols=len(levels), loc="upper center")
    before = ""
    for sample in run.mixes:
        if sample.mix and sample.mix != before:
            axis.axvline(sample.at_s, color="0.2", lw=0.8, ls=":")
            axis.annotate(
                sample.mix,
                (sample.at_s, 2),
                (2, 0),
                textcoords="offset points",
                fontsize=7,
                rotation=90,
                color="black",
                va="bottom",
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
            )
            before = sample.mix


def contact_sheet(
    path: Path, rows: Mapping[int, Sequence[tuple[Outcome, bytes]]], scale: int = 2
) -> None:
    """Served images by K: each beside the same prompt and seed at K = 0 (right), its prompt below."""
    font = ImageFont.load_default(11)
    ks = sorted(rows)
    columns = max((len(rows[k]) for k in ks), default=0)
    if not columns:
        return
    side = 64 * scale
    cell_w, cell_h = 2 * side + 14, side + 44
    sheet = Image.new("RGB", (70 + columns * cell_w, 8 + len(ks) * cell_h), "white")
    draw = ImageDraw.Draw(sheet)
    for r, k in enumerate(ks):
        top = 8 + r * cell_h
        draw.text((8, top + side // 2 - 12), f"K = {k}", "black", ImageFont.load_default(14))
        draw.text((8, top + side // 2 + 6), "served |", "gray", font)
        draw.text((8, top + side // 2 + 18), "at K = 0", "gray", font)
        for c, (outcome, reference) in enumerate(rows[k]):
            left = 70 + c * cell_w
            for i, data in enumerate((outcome.image, reference)):
                image = Image.open(io.BytesIO(data)).convert("RGB").resize((side, side))
                sheet.paste(image, (left + i * (side + 2), top))
            for line, text in enumerate(_wrap(outcome.request.prompt, 44)[:3]):
                draw.text((left, top + side + 3 + 12 * line), text, "black", font)
    sheet.save(path)


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)
