"""Load over time: windows of a recorded series scaled to a mean and a peak, plateaus and flashes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

MINUTE_S = 60.0
DAY_MINUTES = 1440


@dataclass(frozen=True)
class LoadCurve:
    """Load (m,) in each step, in units of a capacity that the caller knows; steps follow each other from 0.

    `before` (h,) is the load of `before_seconds` long steps that end at time 0, NaN where nobody observed;
    empty: nothing is known.
    """

    step_seconds: F64
    load: F64
    before: F64
    before_seconds: float = 300.0

    @property
    def step_starts(self) -> F64:
        """When each step begins, in seconds."""
        return np.concatenate(([0.0], np.cumsum(self.step_seconds)[:-1]))

    @property
    def mean(self) -> float:
        """Mean load over time."""
        return float(np.average(self.load, weights=self.step_seconds))


def bridged(series: F64) -> F64:
    """A series (m,) with its unobserved steps (NaN) on a straight line between the observed neighbours.

    Raises ValueError where nothing was observed.
    """
    seen = ~np.isnan(series)
    if not seen.any():
        raise ValueError("series: not one observed step")
    at = np.arange(len(series))
    return np.interp(at, at[seen], series[seen])


def rolling_mean(series: F64, width: int) -> F64:
    """Mean over `width` steps centred on each, fewer at the ends."""
    total = np.concatenate(([0.0], np.cumsum(series)))
    at = np.arange(len(series))
    low = np.maximum(at - (width - 1) // 2, 0)
    high = np.minimum(at + width // 2 + 1, len(series))
    mean: F64 = (total[high] - total[low]) / (high - low)
    return mean


def block_mean(series: F64, width: int) -> F64:
    """Mean of each `width` steps in turn; what is left over at the front is dropped. NaN steps do not count."""
    whole = series[len(series) % width :].reshape(-1, width)
    seen = ~np.isnan(whole)
    counted = seen.sum(axis=1)
    total = np.where(seen, whole, 0.0).sum(axis=1)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)


def affine(series: F64, mean: float, peak: float) -> tuple[float, float]:
    """The slope a > 0 and offset b for which max(0, a x + b) over the series has this mean and peak.

    The mean falls as the slope rises with the peak held, also where the bottom is cut at 0: bisection finds
    it. Raises ValueError where no slope does: a flat series, mean >= peak, or mean below what the peak's own
    steps make.
    """
    top = float(series.max())
    below = top - series
    least = peak * float(np.mean(below == 0))
    if not below.any() or not least < mean < peak:
        raise ValueError(
            f"mean: {mean:g} is not allowed: above {least:g} and below the peak, {peak:g}, of a series "
            "that is not flat"
        )

    def mean_at(slope: float) -> float:
        return float(np.maximum(0.0, peak - slope * below).mean())

    low, high = 0.0, (peak - mean) / float(below.mean())
    while mean_at(high) > mean:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if mean_at(middle) > mean else (low, middle)
    slope = min((low, high), key=lambda a: abs(mean_at(a) - mean))
    return slope, peak - slope * top


def day_window(
    minutes: F64, day: int, length: int, mean: float, peak: float, smoothing: int
) -> LoadCurve:
    """A window of a per-minute series from a midnight on, scaled to a mean and a peak.

    `minutes` (m,) is the series, NaN where unobserved; `length` and `smoothing` (width of the rolling mean,
    1: none) are in minutes. What came before midnight is scaled alike. Raises ValueError on a day that the
    series lacks.
    """
    start = _midnight(minutes, day, length)
    smooth = rolling_mean(bridged(minutes), smoothing)
    window = smooth[start : start + length]
    slope, offset = affine(window, mean, peak)
    before = block_mean(np.maximum(0.0, slope * minutes[:start] + offset), 5)
    load = np.maximum(0.0, slope * window + offset)
    return LoadCurve(np.full(length, MINUTE_S), load, before)


def day_blocks(
    minutes: F64, day: int, days: int, block: int, peak: float, first: int = 0
) -> LoadCurve:
    """Whole days in means of `block` minutes, scaled to a peak; the days before are scaled alike.

    Day 0 is day `first` of the series. Raises ValueError on a day that the series lacks.
    """
    start = _midnight(minutes, day, days * DAY_MINUTES, first)
    blocks = block_mean(bridged(minutes)[start : start + days * DAY_MINUTES], block)
    scale = peak / float(blocks.max())
    before = scale * block_mean(minutes[:start], 5)
    return LoadCurve(np.full(len(blocks), block * MINUTE_S), scale * blocks, before)


def _midnight(minutes: F64, day: int, length: int, first: int = 0) -> int:
    last = (len(minutes) - length) // DAY_MINUTES - first
    if not 0 <= day <= last:
        raise ValueError(f"day: {day} is not allowed: 0 to {last}, the days of the recording")
    return (first + day) * DAY_MINUTES


def pieces(*parts: tuple[float, float]) -> LoadCurve:
    """Constant pieces, each (minutes, load)."""
    return LoadCurve(
        np.array([MINUTE_S * minutes for minutes, _ in parts]),
        np.array([load for _, load in parts]),
        np.zeros(0),
    )


def plateaus(floor: float, top: float) -> LoadCurve:
    """800 minutes, a step each: three plateaus of two hours, 110 minutes of floor before, between and after."""
    load = np.full(800, floor)
    for start in (110, 340, 570):
        load[start : start + 120] = top
    return LoadCurve(np.full(800, MINUTE_S), load, np.zeros(0))


def flash(base: float, times: float) -> LoadCurve:
    """Ten minutes of base, within ten seconds `times` as much, for ten minutes, and ten of base again."""
    up = [(1 / 60, base * (1 + (times - 1) * (i + 0.5) / 10)) for i in range(10)]
    return pieces((10, base), *up, (10, base * times), *reversed(up), (10, base))
