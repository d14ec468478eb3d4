"""Arrival times of a trace: a Poisson process given each step's count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gesso_simulator.inputs.trace import MOST_REQUESTS, Trace
from gesso_simulator.scenarios.load import LoadCurve

#: Independent streams of random numbers, so that one use does not shift another.
ROUNDING, PLACING, CURVES, SUBSTITUTES = range(4)


def stream(seed: int, use: int) -> np.random.Generator:
    """The random numbers of one use under a seed."""
    return np.random.default_rng([use, seed])


def rounded(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Each value rounded up with the chance of its fraction, else down; whole values stay as they are."""
    # A sum such as 0.1 + 0.2 must not turn a whole number into another.
    near = np.round(values)
    exact = np.where(np.isclose(values, near, rtol=0, atol=1e-9), near, values)
    up = np.floor(exact + rng.random(len(values)))
    return up.astype(np.int64)


def trace_of(curve: LoadCurve, unit_per_s: float, load_scale: float, seed: int) -> Trace:
    """A load curve as counts, `unit_per_s` requests a second to one unit of load."""
    counts = _counts(curve.load * curve.step_seconds * unit_per_s, load_scale, seed)
    return Trace(curve.step_starts, curve.step_seconds, counts)


def scaled(trace: Trace, load_scale: float, seed: int) -> Trace:
    """A trace with each count times `load_scale`, rounded at random; at 1 the trace itself."""
    counts = _counts(trace.counts.astype(np.float64), load_scale, seed)
    return Trace(trace.step_starts, trace.step_seconds, counts)


def arrival_times(trace: Trace, seed: int) -> NDArray[np.float64]:
    """Times (n,) in seconds, ascending: exactly `counts[i]` in step i, independent and uniform over it.

    So placed, they are a Poisson process given the counts (Kingman, Poisson Processes, 1993).
    """
    rng = stream(seed, PLACING)
    starts = np.repeat(trace.step_starts, trace.counts)
    lengths = np.repeat(trace.step_seconds, trace.counts)
    return np.sort(starts + lengths * rng.random(len(starts)))


def _counts(load: NDArray[np.float64], load_scale: float, seed: int) -> NDArray[np.int64]:
    # The product of two finite numbers may be infinite, and an integer holds less than either.
    with np.errstate(over="ignore"):
        wanted = load * load_scale
        total = float(wanted.sum())
    if total > MOST_REQUESTS + len(wanted):
        raise _refused(load_scale, f"{total:.4g}")
    counts = rounded(wanted, stream(seed, ROUNDING))
    whole = int(counts.sum())
    if not 0 < whole <= MOST_REQUESTS:
        raise _refused(load_scale, str(whole))
    return counts


def _refused(load_scale: float, total: str) -> ValueError:
    return ValueError(
        f"load_scale: {load_scale:g} is not allowed: it makes {total} requests; 1 to {MOST_REQUESTS}"
    )
