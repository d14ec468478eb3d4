"""Arrivals of a trace: exact counts, uniform placing, seeded."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_simulator.inputs.trace import Trace
from gesso_simulator.scenarios.arrivals import arrival_times, rounded, scaled, stream, trace_of
from gesso_simulator.scenarios.load import pieces

TRACES = st.lists(st.tuples(st.integers(0, 40), st.floats(0.5, 100)), min_size=1, max_size=30)


def made(steps: list[tuple[int, float]]) -> Trace:
    seconds = np.array([s for _, s in steps])
    starts = np.concatenate(([0.0], np.cumsum(seconds)[:-1]))
    return Trace(starts, seconds, np.array([c for c, _ in steps], dtype=np.int64))


@given(TRACES, st.integers(0, 2**32))
def test_each_step_has_exactly_its_count(steps: list[tuple[int, float]], seed: int) -> None:
    trace = made(steps)
    times = arrival_times(trace, seed)
    assert np.all(np.diff(times) >= 0)
    edges = np.append(trace.step_starts, trace.step_starts[-1] + trace.step_seconds[-1])
    found = np.diff(np.searchsorted(times, edges, side="left"))
    assert found.tolist() == trace.counts.tolist()
    assert np.array_equal(times, arrival_times(trace, seed))


def test_arrivals_are_uniform_within_a_step_and_differ_by_seed() -> None:
    trace = made([(20_000, 60.0)])
    times = arrival_times(trace, 1)
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand seeds.
    worst = np.abs(times / 60 - (np.arange(20_000) + 0.5) / 20_000).max()
    assert worst < 1.95 / np.sqrt(20_000)
    assert not np.array_equal(times, arrival_times(trace, 2))


def test_a_trace_is_left_as_it_is_at_scale_one_and_scaled_on_average_otherwise() -> None:
    trace = made([(3, 1.0), (0, 1.0), (7, 1.0)] * 1000)
    assert np.array_equal(scaled(trace, 1.0, 5).counts, trace.counts)
    assert np.array_equal(scaled(trace, 2.0, 5).counts, 2 * trace.counts)
    half = scaled(trace, 0.5, 5).counts
    assert set(half[0::3].tolist()) == {1, 2}
    assert set(half[1::3].tolist()) == {0}
    assert half.sum() == pytest.approx(5000, abs=5 * 0.5 * np.sqrt(2000))
    assert np.array_equal(half, scaled(trace, 0.5, 5).counts)
    assert not np.array_equal(half, scaled(trace, 0.5, 6).counts)


@given(st.floats(0, 1e6))
def test_rounding_moves_by_less_than_one(value: float) -> None:
    found = int(rounded(np.array([value]), stream(0, 0))[0])
    assert abs(found - value) < 1
    assert int(rounded(np.array([0.1 + 0.2 + value * 0]), stream(0, 0))[0]) in (0, 1)


def test_a_load_curve_becomes_counts_of_its_unit() -> None:
    trace = trace_of(pieces((1, 1.0), (2, 0.5)), 10.0, 2.0, 0)
    assert trace.counts.tolist() == [1200, 1200]
    with pytest.raises(ValueError, match="load_scale: 1e-09 is not allowed: it makes 0 requests"):
        trace_of(pieces((1, 1.0)), 10.0, 1e-9, 0)
    with pytest.raises(ValueError, match="load_scale"):
        trace_of(pieces((1, 1.0)), 10.0, 1e9, 0)


@pytest.mark.parametrize(("scale", "total"), [(1e30, "1e+31"), (1e308, "inf")])
def test_more_requests_than_an_integer_holds_are_told_as_many(scale: float, total: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"it makes {total} requests")):
        scaled(made([(3, 1.0), (0, 1.0), (7, 1.0)]), scale, 0)
