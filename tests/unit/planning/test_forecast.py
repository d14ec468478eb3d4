"""The forecast: follows a jump within one report, and tells missing data from no load."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso_operator.planning.forecast import (
    DataState,
    ForecastState,
    lower_rate,
    update,
    upper_rate,
)
from gesso_operator.planning.observation import ClassCount, RouterReport
from gesso_operator.planning.settings import Settings

SETTINGS = Settings(ladder=(0, 10), latency_s=4, interval_s=2, class_memory_arrivals=60)


def report(at, offered, uptime=None, classes=()):
    return RouterReport(at, at if uptime is None else uptime, offered, classes)


def play(counts, interval=2.0, state=None, offset=0):
    """Feeds one report for each count; gives the last forecast and the state."""
    state = state or ForecastState()
    at, total = (state.last.at_s, state.last.offered) if state.last else (100.0, offset)
    if state.last is None:
        state, _ = update(state, report(at, total), at, SETTINGS)
    forecast = None
    for n in counts:
        at, total = at + interval, total + n
        state, forecast = update(state, report(at, total), at, SETTINGS)
    return forecast, state


def test_first_report_warms_up():
    state, forecast = update(ForecastState(), report(5.0, 1000), 5.0, SETTINGS)
    assert forecast.data is DataState.WARMING_UP
    assert state.exposure_s == 0


def test_steady_load_is_learned_with_a_margin():
    forecast, _ = play([10] * 30)
    assert forecast.mean == pytest.approx(5.0)
    assert 5.0 < forecast.upper < 6.5
    assert forecast.upper < forecast.cautious


@pytest.mark.parametrize(("before", "after"), [(2, 30), (60, 20), (0, 12), (40, 4)])
def test_jump_is_followed_within_one_report(before, after):
    _, state = play([before] * 20)
    forecast, _ = play([after], state=state)
    assert forecast.jumped
    assert forecast.mean == pytest.approx(after / 2)


def test_missing_report_is_a_state_of_its_own():
    known, state = play([10] * 20)
    same, forecast = update(state, None, 300.0, SETTINGS)
    assert forecast.data is DataState.MISSING
    assert same == state
    assert forecast.mean == known.mean


def test_old_report_is_stale():
    _, state = play([10] * 5)
    at = state.last.at_s
    assert update(state, report(at + 2, 10**6), at + 2 + 7, SETTINGS)[1].data is DataState.STALE
    assert update(state, state.last, at + 7, SETTINGS)[1].data is DataState.STALE
    assert update(state, state.last, at + 1, SETTINGS)[1].data is DataState.READY


def test_reports_in_quick_succession_do_not_make_a_rate():
    _, state = play([10] * 20)
    at, total = state.last.at_s, state.last.offered
    same, forecast = update(state, report(at + 0.01, total + 1), at + 0.01, SETTINGS)
    assert same == state
    assert forecast.mean == pytest.approx(5.0)
    # The next difference spans the short one too, so that no arrival is lost.
    assert play([9], state=same)[0].mean == pytest.approx(5.0, rel=0.02)


def test_restarted_router_counts_from_zero():
    _, state = play([10] * 20, offset=5000)
    at = state.last.at_s + 4
    _, forecast = update(state, report(at, 10, uptime=2.0), at, SETTINGS)
    assert forecast.data is DataState.READY
    assert forecast.mean == pytest.approx(5.0)


def test_classes_are_weighted_by_recent_arrivals():
    state = ForecastState()
    for i in range(60):
        quality = (1.0, 0.9)
        a, b = (3 * i, 0) if i < 30 else (90, 6 * (i - 30))
        counts = (ClassCount("a", a, quality), ClassCount("b", b, quality))
        state, forecast = update(state, report(2.0 * i, a + b, classes=counts), 2.0 * i, SETTINGS)
    weights = {c.name: c.weight for c in forecast.classes}
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["b"] > 0.85


def test_curve_of_another_ladder_is_good_for_full_generation_only():
    state = ForecastState()
    for i in range(3):
        counts = (ClassCount("a", 5 * i, (1.0, 0.9, 0.8)),)
        state, forecast = update(state, report(2.0 * i, 5 * i, classes=counts), 2.0 * i, SETTINGS)
    assert forecast.classes[0].curve.quality == (1.0, 0.0)


@given(st.integers(0, 10**6), st.floats(0.1, 1e4), st.floats(0.6, 0.999))
def test_interval_holds_the_observed_rate(count, seconds, quantile):
    low, high = lower_rate(count, seconds, quantile), upper_rate(count, seconds, quantile)
    assert low <= count / seconds <= high
    assert math.isfinite(high)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.5, 50), st.integers(0, 2**32 - 1))
def test_upper_bound_covers_the_rate_as_often_as_it_says(rate, seed):
    counts = np.random.default_rng(seed).poisson(rate * 20, size=400)
    covered = np.mean([upper_rate(int(n), 20.0, 0.9) >= rate for n in counts])
    # 0.9 or more by construction; 0.84 is four standard errors of 400 draws below.
    assert covered > 0.84
