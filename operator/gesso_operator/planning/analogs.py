"""What the rate may be ahead: how the past went on from moments like this one.

An analog is a past slot at the same place of the hour, since bursts of load tend to come on the hour and its
half. It weighs the more the closer its rate was to this one's, and the highest of the time before it to that
before now, both relative to the usual rate of the day (normal kernels on logarithms, widened until enough
is found). All analogs together count as much as a few days; those at the very time of day count one day
each, so that what comes at the same time every day is expected (shrinkage of a time's own past towards
all times'). What followed an analog, relative to its own rate and the daily shape, is a sample of what
follows now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gesso_operator.planning.daily import Daily, Past

Floats = NDArray[np.float64]

_BANDWIDTH = 0.3
_ENOUGH = 4.0
_WIDENINGS = 4
_PRIOR_DAYS = 2.0
#: Time before a slot whose highest rate counts.
_RECENT_S = 5400.0
_LEAST_WEIGHT = 1e-3
_MOST_RELATIVE = 30.0
_LEAST_CANDIDATES = 12


class Analogs:
    """The past in one line, the oldest slot first."""

    def __init__(self, past: Past) -> None:
        self.slots = past.rates.shape[1]
        self.days = len(past.rates)
        self.rates: Floats = past.rates[::-1].ravel()
        self.shape: Floats = past.shape
        usual = np.tile(self.shape, self.days)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.log(np.maximum(self.rates, 1e-3 * usual) / np.maximum(usual, 1e-12))
        self.relative: Floats = relative
        self.hourly = max(1, self.slots // 24)
        self._span = max(1, round(_RECENT_S / 86_400.0 * self.slots))
        padded = np.concatenate(
            (np.full(self._span, -np.inf), np.nan_to_num(relative, nan=-np.inf))
        )
        windows = np.lib.stride_tricks.sliding_window_view(padded, self._span)
        recent = windows[: len(relative)].max(1)
        self.recent: Floats = np.where(np.isfinite(recent), recent, 0.0)

    def highest_before(self, place: int) -> float:
        """The highest logarithm of the relative rate in the time before a place of the line."""
        before = self.relative[max(0, place - self._span) : max(0, place)]
        before = before[np.isfinite(before)]
        return float(before.max()) if len(before) else 0.0

    def ahead(
        self, place: int, rate: float, leads: Sequence[int], *, apart: bool = False
    ) -> list[tuple[Floats, Floats]] | None:
        """For each lead in slots (1 or more) sampled rates and their weights; None where too little is known.

        `place` is that of the slot whose rate is known, on the line or beyond its end; what comes after it is
        not looked at, or nothing of its own day and all other days where `apart`.
        """
        usual = self.shape[place % self.slots]
        if not usual > 0:
            return None
        level = math.log(min(_MOST_RELATIVE, max(1 / _MOST_RELATIVE, rate / usual)))
        found = np.arange(place % self.hourly, len(self.relative), self.hourly)
        if apart:
            found = found[found // self.slots != place // self.slots]
        longest = max(leads)
        last = len(self.relative) if apart else min(len(self.relative), place)
        found = found[(found + longest < last) & np.isfinite(self.relative[found])]
        if len(found) < _LEAST_CANDIDATES:
            return None
        near = (self.relative[found] - level) ** 2
        near += (self.recent[found] - self.highest_before(place)) ** 2
        weight = np.zeros(len(found))
        for widening in range(_WIDENINGS):
            weight = np.exp(-near / (2 * (_BANDWIDTH * 2**widening) ** 2))
            if weight.sum() >= _ENOUGH:
                break
        total = float(weight.sum())
        weight *= _PRIOR_DAYS / max(total, 1e-12) + ((found - place) % self.slots == 0)
        kept = weight > _LEAST_WEIGHT * weight.max()
        found, weight = found[kept], weight[kept]
        if not len(found):
            return None
        result = []
        for lead in leads:
            growth = np.exp(self.relative[found + lead] - self.relative[found])
            seen = np.isfinite(growth)
            if not seen.any():
                return None
            there = self.shape[(place + lead) % self.slots] / usual
            result.append((rate * there * growth[seen], weight[seen] / weight[seen].sum()))
        return result


@lru_cache(maxsize=8)
def analogs_of(past: Past) -> Analogs:
    """The analogs of a past; worked out once for each."""
    return Analogs(past)


def place_of(daily: Daily, at_s: float) -> int:
    """The place of a time's slot on the line of `Analogs`."""
    slot = daily.slot if daily.slot is not None else 0
    first = (slot // daily.slots - len(daily.rates) + 1) * daily.slots
    return int(at_s // daily.slot_s) - first
