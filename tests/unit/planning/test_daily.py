"""The daily shape: learned over days, unmoved by spikes, bridged where nobody looked."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gesso_operator.planning import PlannerState, with_history
from gesso_operator.planning.daily import DAY_S, Daily, counted, primed

SLOT = 300.0
SLOTS = 288


def day(level=10.0):
    """Arrivals per minute of a smooth day."""
    minutes = np.arange(1440)
    return level * (1.5 + np.sin(2 * np.pi * minutes / 1440)) * 60


def known(days=3, spikes=(), level=10.0):
    counts = np.concatenate([day(level) for _ in range(days)])
    for minute in spikes:
        counts[minute : minute + 10] *= 4
    return primed(Daily(SLOT), counts, 60.0, 0.0)


def test_smooth_day_is_learned():
    daily = known()
    assert daily.known
    for hour in (1, 6, 13, 20):
        at = hour * 3600.0
        assert daily.usual(at) == pytest.approx(
            np.interp(hour * 60, range(1440), day()) / 60, rel=0.03
        )


def test_less_than_a_day_is_no_shape():
    daily = primed(Daily(SLOT), day()[:600], 60.0, 0.0)
    assert not daily.known
    assert daily.foretold(7.0, 36_000.0, 600.0) == 7.0


def test_spikes_do_not_move_the_shape():
    spikes = [d * 1440 + h * 60 + 30 for d in range(3) for h in range(d, 24, 3)]
    plain, spiky = known(), known(spikes=spikes)
    assert np.allclose(plain.shape, spiky.shape, rtol=0.1)


def test_shape_grows_with_the_day():
    daily = known()
    rate = daily.usual(3600.0)
    assert daily.foretold(2 * rate, 3600.0, 3 * 3600.0) == pytest.approx(
        2 * daily.usual(4 * 3600.0), rel=0.01
    )


def test_younger_days_weigh_more():
    old, new = day(10.0), day(20.0)
    daily = primed(Daily(SLOT), np.concatenate((old, old, new, new)), 60.0, 0.0)
    assert daily.usual(43_200.0) == pytest.approx(new[720] / 60, rel=0.1)


def test_gaps_are_bridged():
    counts = np.tile(day(), 2)
    counts[1410:1440] = counts[2850:2880] = math.nan
    daily = primed(Daily(SLOT), counts, 60.0, 0.0)
    assert np.isfinite(daily.shape).all()
    assert daily.usual(DAY_S - 900) == pytest.approx(day()[1425] / 60, rel=0.1)


def test_state_is_primed_by_slot_and_clock():
    state = with_history(PlannerState(), list(day()) * 2, 60.0, -2 * DAY_S)
    assert state.forecast.daily.known


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(-1e12, 1e12)),
        max_size=20,
    )
)
@example([(9e307, 1.0, 0.0), (9e307, 1.0, 0.0)])
def test_any_count_is_taken_or_left_out(counts):
    daily = Daily(SLOT)
    for arrivals, seconds, end in counts:
        daily = counted(daily, arrivals, seconds, end)
    assert math.isfinite(daily.count)
    assert daily.foretold(1.0, 0.0, 600.0) >= 0
