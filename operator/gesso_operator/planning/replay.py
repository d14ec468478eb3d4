"""What a worker-second and a refused image are worth: the duals of a quality target and of the attainment.

They are the two prices at which the rule that sizes the fleet (see `horizon`), played back over the days that
are known, would have reached both targets with fewest worker-hours. Each moment of a past day is judged by
the other days alone, as the rule will be. Work is fluid; what is not served at its fastest level at once is
refused.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gesso_operator.planning.analogs import Analogs
from gesso_operator.planning.horizon import to_ask
from gesso_operator.planning.sizes import Sizes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DAYS = 4
#: Steps of a slot.
_STEPS = 5
_ROUNDS = 3
_BISECTIONS = 5
_DOUBLINGS = 24
_GROWTH = 1.5
_FIRST_PRICE = 0.05


@dataclass(frozen=True)
class SizingPrices:
    """In relative quality: a worker-second, and a refused image beyond its own quality."""

    worker: float
    refusal: float


@dataclass(frozen=True)
class Played:
    """What a play-back would have cost: worker-hours, mean quality of the served, share refused."""

    worker_hours: float
    quality: float
    refused: float


def horizon_slots(start_s: float, slot_s: float) -> int:
    """Slots to look ahead: the time to start, and four more."""
    return math.ceil(start_s / slot_s) + 4


class Replay:
    """The newest days of a past, ready to be played at any prices."""

    def __init__(self, past: Analogs, sizes: Sizes, start_s: float, slot_s: float) -> None:
        self._sizes = sizes
        self._step_s = slot_s / _STEPS
        self._lead = max(1, math.ceil(start_s / self._step_s - 1e-9))
        self._ahead = horizon_slots(start_s, slot_s)
        first = max(0, len(past.rates) - _DAYS * past.slots)
        gained, refused, rates = [], [], []
        leads = range(1, self._ahead + 2)
        for place in range(first, len(past.rates)):
            rate = float(past.rates[place])
            if not math.isfinite(rate):
                continue
            now = sizes.expected(np.array([rate]), np.ones(1))
            samples = past.ahead(place, rate, leads, apart=True)
            if samples is None:
                continue
            tables = [now, *(sizes.expected(r, w) for r, w in samples)]
            gained.append([t[0] for t in tables])
            refused.append([t[1] for t in tables])
            rates.append(rate)
        self._gained: Floats = np.array(gained)
        self._refused: Floats = np.array(refused)
        self.offered = float(sum(rates)) * slot_s

    def __len__(self) -> int:
        return len(self._gained)

    def play(self, prices: SizingPrices) -> Played:
        """The rule at these prices over all days."""
        asked = self._policy(prices)
        sizes = self._sizes.sizes
        begin = int(self._sizes.place(int(sizes[0])))
        size = ready = begin
        coming: deque[tuple[int, int]] = deque()
        hours = np.zeros(len(self) * _STEPS)
        serving = np.zeros(len(self) * _STEPS, dtype=np.int64)
        at = 0
        for slot in range(len(self)):
            for phase in range(_STEPS):
                new = asked[phase][slot][size]
                if new > size:
                    coming.append((at + self._lead, new))
                elif new < size:
                    # Those that are not up yet go first.
                    coming = deque((t, min(n, new)) for t, n in coming if min(n, new) > ready)
                    ready = min(ready, new)
                size = new
                while coming and coming[0][0] <= at:
                    ready = max(ready, coming.popleft()[1])
                hours[at] = sizes[size]
                serving[at] = ready
                at += 1
        slots = np.repeat(np.arange(len(self)), _STEPS)
        gained = self._gained[slots, 0, serving].sum() * self._step_s
        refused = self._refused[slots, 0, serving].sum() * self._step_s
        return Played(
            float(hours.sum()) * self._step_s / 3600.0,
            float(gained / max(1e-9, self.offered - refused)),
            float(refused / max(1e-9, self.offered)),
        )

    def _policy(self, prices: SizingPrices) -> list[list[list[int]]]:
        """For each phase of a slot, each slot and each size, what to ask for."""
        value = self._gained - prices.refusal * self._refused
        value = (value - prices.worker * self._sizes.sizes) * self._step_s
        starts = prices.worker * self._sizes.sizes * self._step_s * (self._lead + 1)
        steps = self._ahead * _STEPS
        found = []
        for phase in range(_STEPS):
            # In its first step a slot's rate is not known yet.
            leads = (phase + np.arange(steps)) // _STEPS + (phase == 0)
            known = np.roll(value, 1, axis=0) if phase == 0 else value
            found.append(to_ask(known[:, leads].swapaxes(0, 1), self._lead, starts).tolist())
        return found

    def priced(self, quality: float, refused: float, last: SizingPrices | None) -> SizingPrices:
        """The prices at which both targets are met, the search beginning from those last known.

        A refused image costs its own quality at least: its price is above 0 only where that is not enough.
        """
        worker = last.worker if last else _FIRST_PRICE
        refusal = 0.0
        if not len(self):
            return SizingPrices(worker, refusal)
        for _ in range(_ROUNDS):
            worker = self._worker_price(quality, worker, refusal)
            if self.play(SizingPrices(worker, refusal)).refused <= refused:
                break
            refusal = self._refusal_price(refused, worker, refusal or 1.0)
        return SizingPrices(worker, refusal)

    def _worker_price(self, quality: float, begin: float, refusal: float) -> float:
        """The largest price of a worker-second at which the quality is reached."""
        return 1.0 / _least(
            lambda x: self.play(SizingPrices(1.0 / x, refusal)).quality >= quality,
            1.0 / begin,
            1.0 / self._sizes.steepest,
        )

    def _refusal_price(self, refused: float, worker: float, begin: float) -> float:
        """The least price of a refusal at which no more than this share is refused."""
        return _least(lambda x: self.play(SizingPrices(worker, x)).refused <= refused, begin, 0.0)


def _least(holds: Callable[[float], bool], begin: float, floor: float) -> float:
    """The least number, of those from a floor on, from which on something holds, by doubling and bisection of
    the logarithm; the largest tried where it never does.
    """
    low = high = max(begin, floor)
    if holds(high):
        for _ in range(_DOUBLINGS):
            low = max(low / _GROWTH, floor)
            if low == high or not holds(low):
                break
            high = low
    else:
        for _ in range(_DOUBLINGS):
            high *= _GROWTH
            if holds(high):
                break
            low = high
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
