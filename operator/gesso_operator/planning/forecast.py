"""Forecasts the arrival rate and the share of each prompt class from differences of the router's counters.

The rate's estimate is a discounted Poisson count: `count` arrivals in `exposure_s` seconds, both decaying
with the memory. Its upper quantile is the Garwood bound (gamma quantile with shape count + 1), so that
little data gives a wide margin. A jump is found by testing the last 1, 2, 4, 8 and 16 reports against the rest;
what is older is then forgotten, so that the forecast follows within one report. Missing data is a state of
its own, never a rate of zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from scipy.special import gammaincinv, pdtr, pdtrc

from gesso.plan import PromptClass, QualityCurve
from gesso_operator.planning.observation import RouterReport
from gesso_operator.planning.settings import Settings

_SUFFIXES = (1, 2, 4, 8, 16)
_KEPT = 48
_LEAST_INTERVAL = 0.5


class DataState(StrEnum):
    """Whether there is data to forecast from."""

    READY = "Ready"
    WARMING_UP = "WarmingUp"  # one report so far: no difference yet
    MISSING = "Missing"  # no report
    STALE = "Stale"  # the report is old, or the same as before


@dataclass(frozen=True)
class Interval:
    """Arrivals between two reports."""

    seconds: float
    arrivals: int


@dataclass(frozen=True)
class ForecastState:
    """What the forecaster remembers: the last report, the discounted counts, the newest intervals."""

    last: RouterReport | None = None
    count: float = 0.0
    exposure_s: float = 0.0
    recent: tuple[Interval, ...] = ()
    class_counts: tuple[tuple[str, float], ...] = ()
    data_at_s: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The rate to plan for, in images per second, and the classes; their weights sum to 1."""

    data: DataState
    mean: float = 0.0
    upper: float = 0.0
    cautious: float = 0.0
    jumped: bool = False
    classes: tuple[PromptClass, ...] = ()


def update(
    state: ForecastState, report: RouterReport | None, now_s: float, settings: Settings
) -> tuple[ForecastState, Forecast]:
    """Takes one report in (None: the router did not answer); gives the new state and the forecast."""
    if report is None:
        return state, _forecast(state, settings, DataState.MISSING)
    last = state.last
    stale_s = settings.stale_plans * settings.interval_s
    restarted = last is not None and (
        report.offered < last.offered or report.uptime_s < last.uptime_s
    )
    if last is not None and not restarted and report.at_s <= last.at_s:
        old = now_s - report.at_s > stale_s
        unchanged = DataState.STALE if old or state.exposure_s <= 0 else DataState.READY
        return state, _forecast(state, settings, unchanged)
    if now_s - report.at_s > stale_s:
        return state, _forecast(state, settings, DataState.STALE)
    if last is None:
        return replace(state, last=report, data_at_s=now_s), Forecast(DataState.WARMING_UP)
    # A router that started again counts from zero: its own uptime is the interval.
    seconds = report.uptime_s if restarted else report.at_s - last.at_s
    before = {} if restarted else {c.name: c.arrivals for c in last.classes}
    if seconds < _LEAST_INTERVAL * settings.interval_s:
        # Too short to tell a rate; the next difference spans it too.
        return state, _forecast(state, settings, DataState.READY)
    newest = Interval(seconds, report.offered - (0 if restarted else last.offered))
    decay = math.exp(-seconds / _memory_s(state, settings))
    jump = _jump(state, newest, settings.jump_significance)
    recent = (*state.recent, newest)[-_KEPT:]
    if jump:
        recent = recent[-jump:]
        count, exposure = float(sum(i.arrivals for i in recent)), sum(i.seconds for i in recent)
    else:
        count, exposure = decay * state.count + newest.arrivals, decay * state.exposure_s + seconds
    old_counts = dict(state.class_counts)
    counts = tuple(
        (c.name, decay * old_counts.get(c.name, 0.0) + max(0, c.arrivals - before.get(c.name, 0)))
        for c in report.classes
    )
    new = ForecastState(report, count, exposure, recent, counts, now_s)
    return new, replace(_forecast(new, settings, DataState.READY), jumped=bool(jump))


def upper_rate(count: float, exposure_s: float, quantile: float) -> float:
    """Upper bound of a Poisson rate (Garwood 1936): gamma quantile with shape count + 1, per second."""
    if exposure_s <= 0:
        return math.inf
    return float(gammaincinv(count + 1.0, quantile)) / exposure_s


def lower_rate(count: float, exposure_s: float, quantile: float) -> float:
    """Lower bound of a Poisson rate (Garwood 1936): gamma quantile with shape count, per second."""
    if exposure_s <= 0 or count <= 0:
        return 0.0
    return float(gammaincinv(count, 1.0 - quantile)) / exposure_s


def _memory_s(state: ForecastState, settings: Settings) -> float:
    """Seconds after which an arrival counts 1/e: enough to hold some arrivals, within bounds."""
    least = settings.memory_plans * settings.interval_s
    most = max(least, settings.most_memory_plans * settings.interval_s)
    if state.count <= 0 or state.exposure_s <= 0:
        return most
    return min(most, max(least, settings.memory_arrivals * state.exposure_s / state.count))


def _jump(state: ForecastState, newest: Interval, significance: float) -> int:
    """How many of the newest reports tell of another rate than the past; 0: none do.

    The past is the rest of the reports kept. Its rate is taken at the edge of its own interval, so that a
    short past does not raise alarms.
    """
    run = (*state.recent, newest)
    for length in _SUFFIXES:
        if length >= len(run):
            break
        arrivals = sum(i.arrivals for i in run[-length:])
        seconds = sum(i.seconds for i in run[-length:])
        past_count = sum(i.arrivals for i in run[:-length])
        past_s = sum(i.seconds for i in run[:-length])
        high = upper_rate(past_count, past_s, 0.9) * seconds
        low = lower_rate(past_count, past_s, 0.9) * seconds
        rises = arrivals > 0 and float(pdtrc(arrivals - 1, high)) < significance
        falls = low > 0 and float(pdtr(arrivals, low)) < significance
        if rises or falls:
            return length
    return 0


def _forecast(state: ForecastState, settings: Settings, data: DataState) -> Forecast:
    if state.exposure_s <= 0:
        return Forecast(DataState.WARMING_UP if data is DataState.READY else data)
    upper = upper_rate(state.count, state.exposure_s, settings.upper_quantile)
    cautious = upper_rate(state.count, state.exposure_s, settings.cautious_quantile)
    return Forecast(
        data=data,
        mean=state.count / state.exposure_s,
        upper=upper,
        cautious=cautious * (1.0 + settings.cautious_margin),
        classes=_classes(state, settings.ladder),
    )


def _classes(state: ForecastState, ladder: tuple[int, ...]) -> tuple[PromptClass, ...]:
    """Classes with their weights; one whose curve does not fit the ladder is servable at K = 0 only."""
    if state.last is None:
        return ()
    total = sum(n for _, n in state.class_counts)
    curves = {c.name: c.quality for c in state.last.classes}
    found = []
    for name, n in state.class_counts:
        if n <= 0 or name not in curves:
            continue
        quality = curves[name]
        if len(quality) != len(ladder):
            quality = (1.0,) + (0.0,) * (len(ladder) - 1)
        found.append(PromptClass(name, n / total, QualityCurve(ladder, quality)))
    return tuple(found)
