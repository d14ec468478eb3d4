"""How many workers an elastic fleet should have, from the forecast at the time when new ones would serve.

Two answers, the larger holds. *Needed*: the fewest that serve the upper quantile of the rate ahead at their
fastest levels within the deadline. *Wanted*: the most valuable number at the expected rate, quality in the
light of what a worker costs. That cost is given, or it is the dual of a quality target: the largest at
which, over the days that are known, the fleet would still reach the target, so that worker-hours go where
they buy most.

A fleet grows at once, and shrinks only after fewer workers were enough for a while, also at a rate somewhat
above; for twice as long after each time that it had to take a shrinking back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gesso.profile import Profile
from gesso_operator.planning.capacity import level_bound
from gesso_operator.planning.forecast import Forecast
from gesso_operator.planning.frontier import Frontier, frontier
from gesso_operator.planning.problem import Problem
from gesso_operator.planning.settings import Settings

_MOST_SIZES = 96
_BISECTIONS = 24
_MOST_DOUBLINGS = 3
_REVERSAL_S = 900.0
_FORGET_S = 7200.0
_QUALITY_MEMORY_S = 86_400.0
_CORRECTION = 2.0
_MOST_CORRECTION = 0.1


@dataclass(frozen=True)
class SizingState:
    """`size` is the number last asked for (None: never), `recent` what fewer workers would have been enough,
    by time; `shrunk_at_s` when the fleet last shrank, `reversals` how often that was taken back lately;
    `cost` of a worker-second and the slot of the day in which it was found; `images` and `quality_sum` what
    was expected to be served over the last day, older service counting less, and `at_s` the time of the last
    call.
    """

    size: int | None = None
    recent: tuple[tuple[float, int], ...] = ()
    shrunk_at_s: float = -math.inf
    reversed_at_s: float = -math.inf
    reversals: int = 0
    cost: float = 0.0
    cost_slot: int | None = None
    images: float = 0.0
    quality_sum: float = 0.0
    at_s: float | None = None


@dataclass(frozen=True)
class Sized:
    """The number asked for, and how it came about: images/s ahead (median, upper), workers needed, wanted,
    and kept at least for now, and the cost of a worker-second in relative quality.
    """

    size: int
    before: int
    rate: float
    upper: float
    needed: int
    wanted: int
    kept: int
    cost: float


class Sizes:
    """What each number of workers of one profile is good for."""

    def __init__(self, problem: Problem, profile: Profile, settings: Settings) -> None:
        least, most = settings.workers_min or 1, settings.workers_max or 1
        sizes = np.unique(np.round(np.linspace(least, most, min(_MOST_SIZES, most - least + 1))))
        own = [v for v, m in enumerate(problem.model_of) if m == 0]
        self.sizes: NDArray[np.float64] = sizes
        allowed = [
            [v in own and problem.allowed(c, 0, v) for v in range(len(problem.variants))]
            for c in range(len(problem.classes))
        ]
        self.line: Frontier = frontier(
            problem.classes, problem.work_s[0], allowed, problem.shed_penalty
        )
        fastest = max(
            (problem.variants[v][1] for v in own if any(row[v] for row in allowed)), default=0
        )
        bounds = [level_bound(profile, fastest, int(n), settings) for n in sizes]
        #: Worker-seconds of work per second.
        self.seconds: NDArray[np.float64] = sizes * np.array(bounds)
        self._penalty = problem.shed_penalty

    def needed(self, rate: float) -> int:
        """The fewest that serve everything; all there may be where even they do not."""
        fastest = self.line.fastest_s
        if not math.isfinite(fastest):
            # Some classes cannot be served at all: what can be.
            fastest = self.line.seconds[self.line.served.index(max(self.line.served))]
        enough = np.flatnonzero(self.seconds >= rate * fastest)
        return int(self.sizes[enough[0]] if len(enough) else self.sizes[-1])

    def wanted(self, rate: float, cost: float) -> int:
        """The most valuable number at a rate; the fewest of equally good ones."""
        return int(self.sizes[self._best(np.array([rate]), cost)[0]])

    def quality(self, workers: int, rate: float) -> float:
        """Expected mean quality that so many workers give at a rate."""
        if rate <= 0:
            return 1.0
        seconds = float(np.interp(workers, self.sizes, self.seconds))
        return self.line.quality(seconds / rate, self._penalty)

    def cost_for(self, rates: NDArray[np.float64], target: float) -> float:
        """The largest cost of a worker-second at which the mean quality over these rates still is the
        target; 0 where it is not reached at any.
        """
        rates = rates[np.isfinite(rates) & (rates > 0)]
        if not len(rates):
            return 0.0
        floor = np.searchsorted(self.seconds, rates * self._fastest()).clip(0, len(self.sizes) - 1)
        value = self._value(rates)
        served = np.interp(self._spent(rates), self.line.seconds, self.line.served)
        quality = value + self._penalty * (1.0 - served)
        rows = np.arange(len(rates))

        def mean_quality(cost: float) -> float:
            chosen = np.maximum(self._chosen(value, rates, cost), floor)
            total = float((rates * served[rows, chosen]).sum())
            return float((rates * quality[rows, chosen]).sum()) / total if total > 0 else 0.0

        steepest = max((s.slope for s in self.line.steps), default=0.0)
        low, high = 0.0, steepest
        if mean_quality(0.0) < target:
            return 0.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if mean_quality(middle) >= target else (low, middle)
        return low

    def _fastest(self) -> float:
        return self.line.seconds[self.line.served.index(max(self.line.served))]

    def _spent(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        spent: NDArray[np.float64] = self.seconds[None, :] / np.maximum(rates[:, None], 1e-12)
        return spent

    def _value(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        value: NDArray[np.float64] = np.interp(
            self._spent(rates), self.line.seconds, self.line.value
        )
        return value

    def _chosen(
        self, value: NDArray[np.float64], rates: NDArray[np.float64], cost: float
    ) -> NDArray[np.intp]:
        net = rates[:, None] * value - cost * self.sizes[None, :]
        chosen: NDArray[np.intp] = (net >= net.max(1, keepdims=True) - 1e-9).argmax(1)
        return chosen

    def _best(self, rates: NDArray[np.float64], cost: float) -> NDArray[np.intp]:
        return self._chosen(self._value(rates), rates, cost)


def fleet_size(
    state: SizingState,
    forecast: Forecast,
    sizes: Sizes,
    expected: int,
    ready: int,
    now_s: float,
    settings: Settings,
) -> tuple[SizingState, Sized]:
    """The number of workers to ask for. `expected` counts those that serve (`ready`) and those that start."""
    least, most = int(sizes.sizes[0]), int(sizes.sizes[-1])
    before = min(most, max(least, expected if state.size is None else state.size))
    state = _with_cost(_served(state, forecast, sizes, ready, now_s), forecast, sizes, settings)
    cost = state.cost
    rate, upper = _ahead(forecast, settings)
    needed, wanted = sizes.needed(upper), sizes.wanted(rate, cost)
    margin = 1.0 + settings.cautious_margin
    calm = max(forecast.cautious / margin, upper) if forecast.daily.known else forecast.cautious
    kept = max(needed, wanted, sizes.needed(calm), sizes.wanted(rate * margin, cost))
    wait = settings.scale_in_s * 2 ** min(state.reversals, _MOST_DOUBLINGS)
    recent = tuple((t, n) for t, n in state.recent if now_s - wait < t <= now_s)
    # The oldest kept one says whether the whole wait was seen.
    seen = any(t <= now_s - wait for t, _ in state.recent)
    state = replace(state, recent=(*_oldest(state.recent, now_s - wait), *recent, (now_s, kept)))
    size = before
    if max(needed, wanted) > before:
        size = min(most, max(needed, wanted))
        taken_back = now_s - state.shrunk_at_s < _REVERSAL_S
        foreseen = forecast.jumped or forecast.rising > 0 or _shaped(forecast, settings)
        if taken_back and not foreseen:
            state = replace(state, reversals=state.reversals + 1, reversed_at_s=now_s)
        state = replace(state, recent=())
    elif seen:
        enough = max(n for _, n in state.recent)
        if enough < before:
            size = max(least, enough)
            state = replace(state, shrunk_at_s=now_s)
    if state.reversals and now_s - state.reversed_at_s > _FORGET_S:
        state = replace(state, reversals=state.reversals - 1, reversed_at_s=now_s)
    sized = Sized(size, before, rate, upper, needed, wanted, kept, cost)
    return replace(state, size=size), sized


def _with_cost(
    state: SizingState, forecast: Forecast, sizes: Sizes, settings: Settings
) -> SizingState:
    if settings.quality_target is None:
        return replace(state, cost=settings.worker_hour_cost / 3600.0)
    daily = forecast.daily
    if state.cost_slot is not None and state.cost_slot == daily.slot and daily.known:
        return state
    rates = daily.rates.ravel() if daily.known else np.array([forecast.mean])
    target = settings.quality_target
    if daily.known and state.images > 0:
        # Workers that are there for bursts give quality too: what was reached beyond the target need not be
        # paid for.
        beyond = state.quality_sum / state.images - target
        target -= min(_MOST_CORRECTION, max(-_MOST_CORRECTION, _CORRECTION * beyond))
    cost = sizes.cost_for(rates, target)
    return replace(state, cost=cost, cost_slot=daily.slot)


def _served(
    state: SizingState, forecast: Forecast, sizes: Sizes, ready: int, now_s: float
) -> SizingState:
    """Adds what was expected to be served since the last call."""
    if state.at_s is None or not 0 < now_s - state.at_s < _QUALITY_MEMORY_S or not ready:
        return replace(state, at_s=now_s)
    seconds = now_s - state.at_s
    kept = math.exp(-seconds / _QUALITY_MEMORY_S)
    images = forecast.mean * seconds
    quality = sizes.quality(ready, forecast.mean)
    return replace(
        state,
        at_s=now_s,
        images=kept * state.images + images,
        quality_sum=kept * state.quality_sum + quality * images,
    )


def _ahead(forecast: Forecast, settings: Settings) -> tuple[float, float]:
    """Median and upper rate over the time from when a worker asked for now serves to when one asked for at
    the next chance does; what is planned for now counts until then.
    """
    leads = _leads(settings)
    rate = max(forecast.ahead(lead) for lead in leads)
    upper = max(forecast.ahead(lead, settings.ahead_quantile) for lead in leads)
    noise = forecast.upper / forecast.mean if forecast.mean > 0 else 1.0
    return rate, max(forecast.upper, upper * noise if not forecast.daily.known else upper)


def _leads(settings: Settings) -> Sequence[float]:
    first = settings.start_s
    return (0.0, first, first + settings.interval_s)


def _shaped(forecast: Forecast, settings: Settings) -> bool:
    """Whether the daily shape foretells growth, or bursts at this time."""
    return any(
        forecast.ahead(lead, settings.ahead_quantile) > 1.2 * forecast.mean
        for lead in _leads(settings)
    )


def _oldest(recent: Sequence[tuple[float, int]], edge_s: float) -> tuple[tuple[float, int], ...]:
    """The last entry at or before an edge."""
    past = [entry for entry in recent if entry[0] <= edge_s]
    return tuple(past[-1:])
