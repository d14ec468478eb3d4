"""Forecasts the arrival rate and the share of each prompt class from differences of the router's counters.

The rate's estimate is a discounted Poisson count: `count` arrivals in `exposure_s` seconds, both decaying
with the memory. Its upper quantile is the Garwood bound (gamma quantile with shape count + 1), so that
little data gives a wide margin. A jump is found by testing the last 1, 2, 4, 8 and 16 reports against the rest;
what is older is then forgotten, so that the forecast follows within one report. Missing data is a state of
its own, never a rate of zero.

Ahead of now the rate follows its own trend where that is beyond doubt, and the daily shape (see `daily`):
what it is now times what the shape grows by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from scipy.special import gammaincinv, pdtr, pdtrc

from gesso.plan import PromptClass, QualityCurve
from gesso_operator.planning.daily import Daily, counted, primed
from gesso_operator.planning.observation import RouterReport
from gesso_operator.planning.settings import Settings

_SUFFIXES = (1, 2, 4, 8, 16)
_KEPT = 48
_LEAST_INTERVAL = 0.5
_TREND_REPORTS = 8
_LEAST_TREND_REPORTS = 3
_TREND_DOUBT = 2.0
_LONGEST_TREND_S = 300.0


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
    daily: Daily = field(default_factory=Daily)


@dataclass(frozen=True)
class Forecast:
    """The rate to plan for, in images per second, and the classes; their weights sum to 1.

    `rising` is the growth of the rate beyond doubt, in images/s each second; `level` the rate that it starts
    from; `daily` the daily shape, `now_s` the time of the forecast.
    """

    data: DataState
    mean: float = 0.0
    upper: float = 0.0
    cautious: float = 0.0
    jumped: bool = False
    classes: tuple[PromptClass, ...] = ()
    rising: float = 0.0
    level: float = 0.0
    now_s: float = 0.0
    daily: Daily = field(default_factory=Daily, repr=False)

    def ahead(self, lead_s: float) -> float:
        """The rate to expect in `lead_s` seconds: the larger of what the trend and what the daily shape
        foretell; images/s.
        """
        usual = self.daily.foretold(self.mean, self.now_s, lead_s)
        trend = self.level + self.rising * min(lead_s, _LONGEST_TREND_S)
        return max(usual, trend) if self.rising > 0 else usual


def update(
    state: ForecastState, report: RouterReport | None, now_s: float, settings: Settings
) -> tuple[ForecastState, Forecast]:
    """Takes one report in (None: the router did not answer); gives the new state and the forecast.

    A report with counters or times that cannot be is no report.
    """
    if report is None or not _sound(report) or not math.isfinite(now_s):
        return state, _forecast(state, settings, DataState.MISSING)
    if state.daily.slot_s != settings.slot_s:
        state = replace(state, daily=Daily(settings.slot_s))
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
    # What is asked for changes far more slowly than how much: classes are counted over many more arrivals.
    fading = math.exp(-max(0, newest.arrivals) / settings.class_memory_arrivals)
    old_counts = dict(state.class_counts)
    counts = tuple(
        (c.name, fading * old_counts.get(c.name, 0.0) + max(0, c.arrivals - before.get(c.name, 0)))
        for c in report.classes
    )
    daily = counted(state.daily, newest.arrivals, seconds, report.at_s)
    new = ForecastState(report, count, exposure, recent, counts, now_s, daily)
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
    counts, spans = [i.arrivals for i in run], [i.seconds for i in run]
    for length in _SUFFIXES:
        if length >= len(run):
            break
        arrivals, seconds = sum(counts[-length:]), sum(spans[-length:])
        past_count, past_s = sum(counts[:-length]), sum(spans[:-length])
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
    mean = state.count / state.exposure_s
    level, rising = _trend(state, mean)
    upper = upper_rate(state.count, state.exposure_s, settings.upper_quantile)
    cautious = upper_rate(state.count, state.exposure_s, settings.cautious_quantile)
    return Forecast(
        data=data,
        mean=mean,
        upper=upper,
        cautious=cautious * (1.0 + settings.cautious_margin),
        classes=_classes(state, settings),
        rising=rising,
        level=level,
        now_s=state.last.at_s if state.last else 0.0,
        daily=state.daily,
    )


def with_daily(
    state: ForecastState, counts: Sequence[float], step_s: float, start_s: float, slot_s: float
) -> ForecastState:
    """The state after the daily shape was learned from a history (see `daily.primed`)."""
    daily = state.daily if state.daily.slot_s == slot_s else Daily(slot_s)
    return replace(state, daily=primed(daily, counts, step_s, start_s))


def _sound(report: RouterReport) -> bool:
    numbers = (report.at_s, report.uptime_s, float(report.offered))
    counts = [float(c.arrivals) for c in report.classes]
    return all(map(math.isfinite, (*numbers, *counts))) and report.offered >= 0


def _trend(state: ForecastState, mean: float) -> tuple[float, float]:
    """Level and growth of the rate by least squares over the last reports; the growth less twice its
    standard error.

    (mean, 0) where nothing grows beyond doubt. Counts are taken as Poisson.
    """
    run = state.recent[-_TREND_REPORTS:]
    seconds = sum(i.seconds for i in run)
    if len(run) < _LEAST_TREND_REPORTS or seconds <= 0:
        return mean, 0.0
    ends = [0.0]
    for interval in reversed(run[1:]):
        ends.append(ends[-1] - interval.seconds)
    middles = [e - i.seconds / 2 for e, i in zip(reversed(ends), run, strict=True)]
    centre = sum(t * i.seconds for t, i in zip(middles, run, strict=True)) / seconds
    spread = sum((t - centre) ** 2 * i.seconds for t, i in zip(middles, run, strict=True))
    arrivals = sum(i.arrivals for i in run)
    if spread <= 0 or arrivals <= 0:
        return mean, 0.0
    slope = sum((t - centre) * i.arrivals for t, i in zip(middles, run, strict=True)) / spread
    doubt = math.sqrt(arrivals / seconds / spread)
    sure = slope - _TREND_DOUBT * doubt
    if sure <= 0:
        return mean, 0.0
    return max(mean, arrivals / seconds - centre * sure), sure


def _classes(state: ForecastState, settings: Settings) -> tuple[PromptClass, ...]:
    """Classes with their weights; one whose curve does not fit the variants is servable at K = 0 only.

    Their curves run along `settings.variants`; other models come as K beyond the ladder's last.
    """
    if state.last is None:
        return ()
    total = sum(n for _, n in state.class_counts)
    curves = {c.name: c.quality for c in state.last.classes}
    found = []
    for name, n in state.class_counts:
        if n <= 0 or name not in curves:
            continue
        found.append(PromptClass(name, n / total, curve_of(curves[name], settings)))
    return tuple(found)


def curve_of(quality: Sequence[float], settings: Settings) -> QualityCurve:
    """A reported curve along `settings.variants`, its values brought into 0..1; what is not known is 0."""
    ladder, size = settings.ladder, len(settings.variants)
    if len(quality) == len(ladder):
        quality = (*quality, *(0.0,) * (size - len(ladder)))
    elif len(quality) != size:
        quality = (1.0,) + (0.0,) * (size - 1)
    places = (*ladder, *(ladder[-1] + 1 + i for i in range(size - len(ladder))))
    clean = tuple(min(1.0, max(0.0, q)) if math.isfinite(q) else 0.0 for q in quality)
    return QualityCurve(places, clean)
