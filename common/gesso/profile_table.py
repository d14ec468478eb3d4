"""Fits a device's profile to measured latencies: a fixed cost, and the time of a step by batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gesso.csv_input import InputError, open_csv
from gesso.profile import Profile
from gesso.profile_file import load_profile_file

MOST_BATCH = 64
_LONGEST_LATENCY_S = 3600.0


@dataclass(frozen=True)
class Latency:
    """One measured latency: of a whole batch that starts at K and stays together, in seconds."""

    skipped_steps: int
    batch: int
    mean_s: float
    p95_s: float | None = None


@dataclass(frozen=True)
class ProfileFit:
    """A profile, and how far off it the fitted latencies lie, as shares of it: root mean square, and most.

    `others` are the profiles of other models, and `load_seconds` what loading takes, by model name (the own
    model's is empty): as far as they were measured.
    """

    profile: Profile
    rms_residual: float
    most_residual: float
    others: Mapping[str, Profile] = field(default_factory=dict)
    load_seconds: Mapping[str, float] = field(default_factory=dict)


def read_profile(path: Path | str, steps: int, device: str = "profiled") -> ProfileFit:
    """Reads the profile of a model of so many steps: what `gesso profile` wrote (`.json`), or latencies in CSV,
    `skipped_steps,batch,latency_s[,p95_s]`, to which one is fitted.

    Raises InputError on a malformed file, a K outside 0 to steps - 1, a batch outside 1 to 64, a pair
    (K, batch) given twice, and on latencies from which no profile follows (see `fit_profile`).
    """
    if Path(path).suffix == ".json":
        return _measured(path, steps)
    table = open_csv(path, ("skipped_steps", "batch", "latency_s"), ("p95_s",))
    seen: dict[tuple[int, int], int] = {}
    latencies: list[Latency] = []
    for row in table.rows:
        k = row.whole("skipped_steps", 0, steps - 1, f"a whole number, 0 to {steps - 1}")
        batch = row.whole("batch", 1, MOST_BATCH, f"a whole number, 1 to {MOST_BATCH}")
        if (k, batch) in seen:
            raise row.refuse(
                "skipped_steps", f"once for each batch; line {seen[k, batch]} has batch {batch} too"
            )
        seen[k, batch] = row.line
        mean_s = row.number("latency_s", 1e-6, _LONGEST_LATENCY_S, "seconds, above 0, at most 3600")
        p95_s = None
        if "p95_s" in table.header:
            p95_s = row.number(
                "p95_s",
                mean_s,
                _LONGEST_LATENCY_S,
                f"seconds, at least latency_s ({mean_s:g}), at most 3600",
            )
        latencies.append(Latency(k, batch, mean_s, p95_s))
    try:
        return fit_profile(latencies, steps, device)
    except ValueError as error:
        raise InputError(path, str(error)) from None


def _measured(path: Path | str, steps: int) -> ProfileFit:
    """The own model's profile of a file; the residuals are those of its latencies of whole batches."""
    found = load_profile_file(path)
    own = found.own
    if own.steps != steps:
        raise InputError(
            path, f"models.steps: {own.steps} is not allowed: the model's steps, {steps}"
        )
    try:
        profile = own.profile(found.device)
        others = {m.name: m.profile(found.device) for m in found.models if m is not own}
    except ValueError as error:
        raise InputError(path, str(error)) from None
    expected = np.array(
        [profile.latency_seconds(lat.skipped_steps, lat.batch) for lat in own.latencies]
    )
    residual = (expected - [lat.mean for lat in own.latencies]) / expected
    loads: dict[str, float] = {}
    for switch in found.switches:
        seconds = switch.load_seconds + switch.warmup_seconds
        loads[switch.after] = max(loads.get(switch.after, 0.0), seconds)
    rms, most = float(np.sqrt(np.mean(residual**2))), float(np.abs(residual).max())
    return ProfileFit(profile, rms, most, others, loads)


def fit_profile(latencies: Sequence[Latency], steps: int, device: str) -> ProfileFit:
    """Least squares of latency(K, b) = fixed + (steps - K) * step(b), fixed >= 0.

    Batch sizes between two measured ones get a time on the straight line between these. The fixed cost
    becomes the profile's `decode_seconds`: how it divides between encoding and decoding cannot be told from
    latencies. `p95_ratio` is the mean of p95 over mean, 1 without any p95. Raises ValueError where batch 1 or
    a second K is missing, or where latency does not fall as K rises.
    """
    batches = sorted({latency.batch for latency in latencies})
    if not batches or batches[0] != 1:
        raise ValueError(f"batch: {batches or 'none'} is not allowed: batch 1 is among them")
    levels = sorted({latency.skipped_steps for latency in latencies})
    if len(levels) < 2:
        raise ValueError(
            f"skipped_steps: {levels} is not allowed: two K at least, to tell fixed cost from steps"
        )
    measured = np.array([latency.mean_s for latency in latencies])
    design = np.zeros((len(latencies), 1 + len(batches)))
    design[:, 0] = 1.0
    for i, latency in enumerate(latencies):
        design[i, 1 + batches.index(latency.batch)] = steps - latency.skipped_steps
    solution = np.linalg.lstsq(design, measured, rcond=None)[0]
    if solution[0] < 0:
        # With one bound only, the constrained optimum lies on it.
        solution = np.concatenate(([0.0], np.linalg.lstsq(design[:, 1:], measured, rcond=None)[0]))
    ticks = solution[1:]
    if ticks.min() <= 0:
        worst = batches[int(ticks.argmin())]
        raise ValueError(
            f"latency_s: {ticks.min():g} s a step at batch {worst} is not allowed: latency falls as "
            "skipped_steps rises"
        )
    sizes = np.arange(1, batches[-1] + 1)
    ratios = [x.p95_s / x.mean_s for x in latencies if x.p95_s is not None]
    residual = (design @ solution - measured) / measured
    profile = Profile(
        device=device,
        steps=steps,
        encode_seconds=0.0,
        decode_seconds=float(solution[0]),
        step_seconds=tuple(float(t) for t in np.interp(sizes, batches, ticks)),
        p95_ratio=float(np.mean(ratios)) if ratios else 1.0,
    )
    return ProfileFit(profile, float(np.sqrt(np.mean(residual**2))), float(np.abs(residual).max()))
