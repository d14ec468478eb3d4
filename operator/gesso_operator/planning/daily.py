"""The daily shape: what the rate usually does from one slot of the day to the next.

The rates of the last days are kept by slot. The shape is their median over days and neighbouring slots,
younger days weighing more, so that it is exponentially weighted over days and a spike does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400.0
_DAYS = 8
_DAY_WEIGHT = 0.6
_NEIGHBOURS = 2
_MOST_SCALE = 6.0
#: What a router's counter can hold; a few of these can still be added up.
_MOST_ARRIVALS = 2.0**64


@dataclass(frozen=True, eq=False)
class Past:
    """Slot rates of the last days by the clock: `rates[d, i]` is the mean rate in slot i of the day, d = 0 the
    newest, which is being filled; NaN where nobody looked.
    """

    rates: NDArray[np.float64] = field(default_factory=lambda: np.full((0, 0), np.nan))

    @cached_property
    def shape(self) -> NDArray[np.float64]:
        """The usual rate of each slot of the day; all NaN until a full day has been seen."""
        slots = self.rates.shape[1]
        known = np.isfinite(self.rates)
        if not self.rates.size or known.any(0).mean() < 0.75 or known.sum() < slots:
            return np.full(slots, np.nan)
        stack, weights = [], []
        for d in range(len(self.rates)):
            for shift in range(-_NEIGHBOURS, _NEIGHBOURS + 1):
                stack.append(np.roll(self.rates[d], shift))
                weights.append(_DAY_WEIGHT**d / (1 + abs(shift)))
        values = np.array(stack)
        weight = np.where(np.isfinite(values), np.array(weights)[:, None], 0.0)
        values = np.where(np.isfinite(values), values, np.inf)
        order = np.argsort(values, axis=0)
        values, weight = np.take_along_axis(values, order, 0), np.take_along_axis(weight, order, 0)
        total = weight.sum(0)
        middle = (np.cumsum(weight, axis=0) >= total / 2).argmax(0)
        shape = values[middle, np.arange(slots)]
        shape[total <= 0] = np.nan
        return _bridged(shape)


@dataclass(frozen=True, eq=False)
class Daily:
    """Slot rates of the last days; `slot` is the absolute number of the slot being counted, None before any
    count, `past` what was seen in those before.
    """

    slot_s: float = 300.0
    slot: int | None = None
    count: float = 0.0
    seconds: float = 0.0
    past: Past = field(default_factory=Past)

    @property
    def rates(self) -> NDArray[np.float64]:
        """See `Past`."""
        return self.past.rates

    @property
    def slots(self) -> int:
        """Slots in a day."""
        return max(1, round(DAY_S / self.slot_s))

    @property
    def shape(self) -> NDArray[np.float64]:
        """The usual rate of each slot of the day; all NaN until a full day has been seen."""
        return self.past.shape if self.rates.size else np.full(self.slots, np.nan)

    @property
    def known(self) -> bool:
        """Whether there is a shape."""
        return bool(np.isfinite(self.shape[0]))

    def usual(self, at_s: float) -> float:
        """The usual rate at a time, on straight lines between the middles of slots; NaN without a shape."""
        place = (at_s / self.slot_s - 0.5) % self.slots
        low = int(place) % self.slots
        share = place - int(place)
        return float((1 - share) * self.shape[low] + share * self.shape[(low + 1) % self.slots])

    def foretold(self, rate: float, now_s: float, lead_s: float) -> float:
        """The rate in `lead_s` seconds where it is `rate` now and goes with the usual from here; `rate`
        without a shape.

        How far the rate now may be from the usual is bounded, so that a dead minute does not write off the day.
        """
        here, there = self.usual(now_s), self.usual(now_s + lead_s)
        if not (math.isfinite(here) and math.isfinite(there)):
            return rate
        if here <= 0:
            return max(rate, there)
        return min(_MOST_SCALE, max(1 / _MOST_SCALE, rate / here)) * there


def counted(daily: Daily, arrivals: float, seconds: float, end_s: float) -> Daily:
    """The state after `arrivals` in the `seconds` before `end_s`; what is not a count is left out.

    The interval belongs to the slot of its middle, or is spread where it is longer than one.
    """
    if not (math.isfinite(arrivals) and math.isfinite(seconds) and math.isfinite(end_s)):
        return daily
    if not 0 <= arrivals <= _MOST_ARRIVALS or seconds <= 0 or seconds > DAY_S:
        return daily
    pieces = max(1, math.ceil(seconds / daily.slot_s - 1e-9))
    for i in range(pieces):
        middle = end_s - seconds + (i + 0.5) * seconds / pieces
        daily = _added(
            daily, arrivals / pieces, seconds / pieces, math.floor(middle / daily.slot_s)
        )
    return daily


def primed(daily: Daily, counts: Sequence[float], step_s: float, start_s: float) -> Daily:
    """The state after a history: `counts[i]` arrivals in the `step_s` seconds from `start_s + i step_s`;
    NaN: nobody looked.
    """
    for i, n in enumerate(counts):
        daily = counted(daily, float(n), step_s, start_s + (i + 1) * step_s)
    return daily


def _added(daily: Daily, arrivals: float, seconds: float, slot: int) -> Daily:
    if daily.slot is None:
        return replace(daily, slot=slot, count=arrivals, seconds=seconds)
    if slot < daily.slot:
        return daily  # A clock that went back.
    if slot == daily.slot:
        return replace(daily, count=daily.count + arrivals, seconds=daily.seconds + seconds)
    past = Past(_closed(daily, slot))
    return replace(daily, slot=slot, count=arrivals, seconds=seconds, past=past)


def _closed(daily: Daily, slot: int) -> NDArray[np.float64]:
    """The rates with the counted slot in its place, and a new row for each day begun since."""
    last = daily.slot if daily.slot is not None else slot
    rates = daily.rates if daily.rates.size else np.full((1, daily.slots), np.nan)
    rates = rates.copy()
    # A slot seen for less than half tells too little.
    if daily.seconds >= 0.5 * daily.slot_s:
        rates[0, last % daily.slots] = daily.count / daily.seconds
    days = slot // daily.slots - last // daily.slots
    fresh = np.full((min(days, _DAYS), daily.slots), np.nan)
    kept: NDArray[np.float64] = np.concatenate((fresh, rates))[:_DAYS]
    return kept


def _bridged(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """Straight lines over the slots that nobody has ever looked at, around midnight too."""
    known = np.flatnonzero(np.isfinite(shape))
    places = np.arange(len(shape))
    bridged: NDArray[np.float64] = np.interp(places, known, shape[known], period=len(shape))
    return bridged
