"""Load over time: scaling, bridging, smoothing, the shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gesso_simulator.data.sources import substitutes
from gesso_simulator.scenarios import load

SERIES = st.lists(st.floats(0, 1e4), min_size=3, max_size=200).map(np.array)


@given(SERIES, st.floats(0.05, 5), st.floats(1.05, 30))
def test_affine_scaling_hits_mean_and_peak_also_where_the_bottom_is_cut(
    series: np.ndarray, mean: float, ratio: float
) -> None:
    peak = mean * ratio
    at_top = float(np.mean(np.isclose(series, series.max(), rtol=1e-6)))
    assume(float(np.ptp(series)) > 1e-3)
    assume(peak * at_top < 0.99 * mean)
    slope, offset = load.affine(series, mean, peak)
    values = np.maximum(0, slope * series + offset)
    assert slope > 0
    assert float(values.mean()) == pytest.approx(mean, rel=1e-6)
    assert float(values.max()) == pytest.approx(peak, rel=1e-9, abs=slope * 1e-9)


def test_a_cut_bottom_is_solved_for_again() -> None:
    series = np.array([0.0, 0, 0, 5, 10])
    slope, offset = load.affine(series, 0.3, 1.2)
    assert offset < 0, "this case is meant to go negative at the bottom"
    assert np.maximum(0, slope * series + offset).mean() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("series", "mean", "peak"),
    [([1, 1, 1], 0.5, 1), ([1, 2, 3], 2, 2), ([1, 2, 3], 3, 2), ([1, 2, 3], 0.1, 2)],
)
def test_impossible_scalings_are_refused(series: list[float], mean: float, peak: float) -> None:
    with pytest.raises(ValueError, match=r"mean: .* is not allowed: above"):
        load.affine(np.array(series, float), mean, peak)


def test_unobserved_steps_are_bridged_and_never_zero() -> None:
    series = np.array([np.nan, 2, np.nan, np.nan, 5, np.nan])
    assert load.bridged(series).tolist() == [2, 2, 3, 4, 5, 5]
    with pytest.raises(ValueError, match="not one observed step"):
        load.bridged(np.full(3, np.nan))


def test_rolling_mean_is_centred_and_narrows_at_the_ends() -> None:
    series = np.array([1.0, 2, 3, 4, 10])
    assert load.rolling_mean(series, 3) == pytest.approx([1.5, 2, 3, 17 / 3, 7])
    assert load.rolling_mean(series, 1) == pytest.approx(series)


def test_block_mean_leaves_unobserved_steps_out() -> None:
    series = np.array([9.0, 1, 3, 5, np.nan, np.nan, np.nan])
    assert load.block_mean(series, 2)[:2].tolist() == [2, 5]
    assert np.isnan(load.block_mean(series, 2)[2])


@pytest.mark.parametrize("smoothing", [1, 15])
def test_a_days_window_has_its_mean_and_peak_and_what_came_before(smoothing: int) -> None:
    minutes = substitutes().minutes
    first = load.day_window(minutes, 0, 800, 1.25, 2.07, smoothing)
    third = load.day_window(minutes, 2, 800, 1.25, 2.07, smoothing)
    assert len(first.load) == 800
    assert first.mean == pytest.approx(1.25)
    assert first.load.max() == pytest.approx(2.07)
    assert not np.array_equal(first.load, third.load)
    assert len(first.before) == 0
    assert len(third.before) == 2 * 288
    # The last 29 minutes of each day have a hole: five whole blocks.
    assert int(np.isnan(third.before).sum()) == 2 * 5
    with pytest.raises(ValueError, match="day: 15 is not allowed: 0 to 14"):
        load.day_window(minutes, 15, 800, 1.25, 2.07, smoothing)


def test_whole_days_in_blocks_have_their_peak() -> None:
    curve = load.day_blocks(substitutes().minutes, 3, 3, 5, 0.75)
    assert len(curve.load) == 3 * 288
    assert curve.load.max() == pytest.approx(0.75)
    assert curve.load.min() > 0, "the hole before midnight is bridged"
    assert curve.step_starts[-1] + 300 == 3 * 86400
    assert len(curve.before) == 3 * 288


def test_shapes_made_by_hand() -> None:
    bursty = load.plateaus(0.25, 2)
    assert len(bursty.load) == 800
    assert int((bursty.load == 2).sum()) == 3 * 120
    flash = load.flash(0.4, 3)
    assert flash.load.max() == pytest.approx(1.2)
    assert flash.step_seconds.sum() == pytest.approx(3 * 600 + 20)
    assert np.all(np.diff(flash.load[:12]) > 0), "it rises within ten seconds"
    assert flash.step_starts[11] == pytest.approx(610)
