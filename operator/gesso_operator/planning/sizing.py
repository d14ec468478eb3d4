"""How many workers an elastic fleet should have.

What the rate may be ahead comes from the past (see `analogs`), what each number of workers is worth at it from
the frontier of quality over work (see `sizes`), and which number to ask for now from looking half an hour
ahead (see `horizon`): the value of the images served, less the worker-hours at their price, a start's too. A
smaller fleet at a larger K is one of the answers, so that K absorbs what no worker would be up in time for.
The price is given, or it is the dual of a quality target over the days that are known (see `replay`).

A fleet grows at once. It shrinks when fewer were asked for at each plan of a short while; for twice as long
after each time that it had to take a shrinking back.

While no past day tells what comes, the rate stays or goes on with its trend, the fleet has the fewest workers
that reach the target at it and serve its upper quantile at their fastest levels, and the while is longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gesso_operator.planning.analogs import analogs_of, place_of
from gesso_operator.planning.forecast import Forecast
from gesso_operator.planning.horizon import to_ask
from gesso_operator.planning.replay import Replay, SizingPrices, horizon_slots
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.sizes import Sizes

Floats = NDArray[np.float64]

_MOST_DOUBLINGS = 3
_REVERSAL_S = 900.0
_FORGET_S = 7200.0
_STEPS_OF_A_SLOT = 10
#: Equally likely values of a standard normal variable.
_NORMAL = np.array([-1.28, -0.52, 0.0, 0.52, 1.28])
_UPPER_NORMAL = 1.2816
_UPPER = 0.97


@dataclass(frozen=True)
class SizingState:
    """`size` is the number last asked for (None: never), `recent` what fewer workers would have been enough,
    by time; `shrunk_at_s` when the fleet last shrank, `reversals` how often that was taken back lately;
    `prices` what was last found, on the day `priced_day` (days since the clock's zero).
    """

    size: int | None = None
    recent: tuple[tuple[float, int], ...] = ()
    shrunk_at_s: float = -math.inf
    reversed_at_s: float = -math.inf
    reversals: int = 0
    prices: SizingPrices | None = None
    priced_day: int | None = None


@dataclass(frozen=True)
class Sized:
    """The number asked for, and how it came about: images/s expected and hardly exceeded when a worker asked
    for now serves, workers needed for the latter, wanted, and kept at least for now, and the prices.
    """

    size: int
    before: int
    rate: float
    upper: float
    needed: int
    wanted: int
    kept: int
    prices: SizingPrices


@dataclass(frozen=True)
class Outlook:
    """Sampled rates (m,) with weights (m,) for each step ahead, and whether the past told them."""

    steps: tuple[tuple[Floats, Floats], ...]
    step_s: float
    told: bool

    def at(self, step: int) -> tuple[float, float]:
        """Mean and upper quantile in a step."""
        rates, weights = self.steps[min(step, len(self.steps) - 1)]
        order = np.argsort(rates)
        upper = np.searchsorted(np.cumsum(weights[order]), _UPPER * weights.sum())
        return float(rates @ weights / weights.sum()), float(
            rates[order[min(upper, len(order) - 1)]]
        )


def fleet_size(
    state: SizingState,
    forecast: Forecast,
    sizes: Sizes,
    expected: int,
    now_s: float,
    settings: Settings,
) -> tuple[SizingState, Sized]:
    """The number of workers to ask for. `expected` counts those that serve and those that start."""
    least, most = int(sizes.sizes[0]), int(sizes.sizes[-1])
    before = min(most, max(least, expected if state.size is None else state.size))
    ahead = outlook(forecast, settings)
    state, prices = _priced(state, forecast, sizes, settings)
    lead = max(1, math.ceil(settings.start_s / ahead.step_s - 1e-9))
    rate, upper = ahead.at(lead)
    target = settings.quality_target
    if target is None or ahead.told:
        wanted = enough = _wanted(ahead, sizes, prices, lead, before)
    else:
        # No other day makes up for this one.
        wanted = max(sizes.needed(upper), sizes.enough(rate, target))
        calm = 1.0 + settings.cautious_margin
        enough = max(sizes.needed(forecast.cautious), sizes.enough(rate * calm, target), wanted)
    base = settings.interval_s if ahead.told else settings.scale_in_s
    wait = base * 2 ** min(state.reversals, _MOST_DOUBLINGS)
    # The last entry before the wait says whether all of it was seen.
    seen = [entry for entry in state.recent if entry[0] <= now_s - wait]
    recent = (*seen[-1:], *(e for e in state.recent if now_s - wait < e[0] <= now_s))
    state = replace(state, recent=(*recent, (now_s, enough)))
    kept = max(n for _, n in state.recent)
    size = before
    if wanted > before:
        size = wanted
        if now_s - state.shrunk_at_s < _REVERSAL_S and not (ahead.told or forecast.jumped):
            state = replace(state, reversals=state.reversals + 1, reversed_at_s=now_s)
        state = replace(state, recent=())
    elif seen and kept < before:
        size = kept
        state = replace(state, shrunk_at_s=now_s)
    if state.reversals and now_s - state.reversed_at_s > _FORGET_S:
        state = replace(state, reversals=state.reversals - 1, reversed_at_s=now_s)
    needed = sizes.needed(upper)
    sized = Sized(size, before, rate, upper, needed, wanted, kept, prices)
    return replace(state, size=size), sized


def outlook(forecast: Forecast, settings: Settings) -> Outlook:
    """The rates ahead, by steps of about a plan."""
    daily, rate = forecast.daily, forecast.mean
    step_s = max(settings.interval_s, settings.slot_s / _STEPS_OF_A_SLOT)
    slots = horizon_slots(settings.start_s, settings.slot_s)
    count = max(2, math.ceil(slots * settings.slot_s / step_s))
    middles = [(j + 0.5) * step_s for j in range(count)]
    spread = math.log(max(1.0, forecast.upper / rate)) / _UPPER_NORMAL if rate > 0 else 0.0
    noise = np.exp(spread * _NORMAL)
    even = np.full(len(noise), 1.0 / len(noise))
    samples = None
    if daily.known and rate > 0:
        # The rate is that of the newest report.
        seen_s = forecast.now_s - settings.interval_s / 2
        begun = int(seen_s // settings.slot_s)
        leads = [int((forecast.now_s + m) // settings.slot_s) - begun for m in middles]
        samples = analogs_of(daily.past).ahead(
            place_of(daily, seen_s), rate, range(1, max(1, *leads) + 1)
        )
    if samples is None:
        steps = tuple((forecast.ahead(m) * noise, even) for m in middles)
        return Outlook(steps, step_s, False)
    by_lead = [(rate * noise, even), *samples]
    return Outlook(tuple(by_lead[max(0, lead)] for lead in leads), step_s, True)


def _wanted(ahead: Outlook, sizes: Sizes, prices: SizingPrices, lead: int, before: int) -> int:
    known: dict[int, Floats] = {}
    rows = []
    for samples in ahead.steps:
        key = id(samples)
        if key not in known:
            gained, refused = sizes.expected(*samples)
            value = gained - prices.refusal * refused - prices.worker * sizes.sizes
            known[key] = value * ahead.step_s
        rows.append(known[key])
    # Letting a worker go and starting it anew within the time that this takes gains nothing.
    starts = prices.worker * sizes.sizes * ahead.step_s * (lead + 1)
    asked = to_ask(np.array(rows), lead, starts)
    return int(sizes.sizes[asked[sizes.place(before)]])


def _priced(
    state: SizingState, forecast: Forecast, sizes: Sizes, settings: Settings
) -> tuple[SizingState, SizingPrices]:
    """The prices: given, or found anew each day; a worker costs nothing while no day is known."""
    daily, target = forecast.daily, settings.quality_target
    if target is None:
        return state, SizingPrices(settings.worker_hour_cost / 3600.0, settings.shed_penalty)
    if not daily.known or daily.slot is None:
        return state, SizingPrices(0.0, settings.shed_penalty)
    day = daily.slot // daily.slots
    if state.prices is not None and state.priced_day == day:
        return state, state.prices
    past = Replay(analogs_of(daily.past), sizes, settings.start_s, settings.slot_s)
    prices = past.priced(target, 1.0 - settings.attainment, state.prices)
    return replace(state, prices=prices, priced_day=day), prices
