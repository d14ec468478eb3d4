"""A picture of a profile: latency over K by batch, throughput over the batch, where an image's time goes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from gesso.profile_file import ProfileFile


def plot_profile(found: ProfileFile, path: Path) -> None:
    """Writes a PNG (or whatever the suffix says) of the service's own model."""
    own, profile = found.own, found.own.profile(found.device)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    figure.suptitle(
        f"{own.source} on {found.device}, {own.width} x {own.height}, {own.steps} steps, {own.dtype}"
    )
    batches = sorted({latency.batch for latency in own.latencies})
    colours = plt.get_cmap("viridis")
    for i, batch in enumerate(batches):
        rows = sorted(
            (lat for lat in own.latencies if lat.batch == batch), key=lambda r: r.skipped_steps
        )
        colour = colours(i / max(1, len(batches)))
        levels = [r.skipped_steps for r in rows]
        left.plot(levels, [r.mean for r in rows], "o-", color=colour, label=f"batch {batch}")
        left.fill_between(
            levels, [r.mean for r in rows], [r.p95 for r in rows], color=colour, alpha=0.2
        )
    left.set(xlabel="skipped steps K", ylabel="seconds", title="latency, mean to 95th percentile")
    left.set_ylim(bottom=0)
    left.legend()
    sizes = range(1, profile.max_batch + 1)
    for level in sorted({latency.skipped_steps for latency in own.latencies})[::-1]:
        middle.plot(sizes, [profile.throughput(level, b) for b in sizes], label=f"K = {level}")
    middle.set(xlabel="batch", ylabel="images/s", title="throughput of a busy worker")
    middle.set_ylim(bottom=0)
    middle.legend()
    best = profile.best_batch()
    parts = {
        "encode": profile.encode_seconds,
        f"{own.steps} steps, batch {best}": own.steps * profile.tick_seconds(best) / best,
        "decode": profile.decode_seconds,
        "fetch": found.fetch_seconds.p50,
    }
    bars = right.barh(list(parts), list(parts.values()), color="#4c78a8")
    right.bar_label(bars, [f"{s * 1000:.3g} ms" for s in parts.values()], padding=4)
    right.set(xlabel="device seconds of an image at K = 0", title="where the time goes")
    right.margins(x=0.25)
    right.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)
