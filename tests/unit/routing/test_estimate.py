"""Predicted finish times against a plain tick-by-tick simulation."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso.profile import Profile
from gesso_router.routing.estimate import Arrivals, backlog_seconds, estimate

PROFILE = Profile("d", 10, 0.3, 0.2, (1.0, 1.5, 1.9))


def tick_by_tick(profile: Profile, active: list[int], queued: list[int], steps: int) -> float:
    """The same worker, one tick at a time: slow, and plain enough to be believed."""
    now = profile.step_seconds[len(active) - 1] / 2 if active else 0.0
    batch = [[r, False] for r in active]
    waiting = [[r, False] for r in queued] + [[steps, True]]
    while True:
        while waiting and len(batch) < profile.max_batch:
            batch.append(waiting.pop(0))
            now += profile.encode_seconds
        now += profile.step_seconds[len(batch) - 1]
        for request in batch:
            request[0] -= 1
        done = [r for r in batch if r[0] == 0]
        batch = [r for r in batch if r[0] > 0]
        if any(mine for _, mine in done):
            return now + profile.decode_seconds
        now += profile.decode_seconds * len(done)


@given(
    active=st.lists(st.integers(1, 10), max_size=3),
    queued=st.lists(st.integers(1, 10), max_size=6),
    steps=st.lists(st.integers(1, 10), min_size=1, max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_equals_tick_by_tick(active: list[int], queued: list[int], steps: list[int]) -> None:
    if queued and len(active) < PROFILE.max_batch:
        # A queue beside a free slot lasts until the next boundary only; both fill it there.
        active, queued = active, queued
    got = estimate(PROFILE, active, queued, steps)
    for n, finish in zip(steps, got.finish_seconds, strict=True):
        assert finish == pytest.approx(tick_by_tick(PROFILE, active, queued, n))
    assert got.start_seconds < min(got.finish_seconds)


def test_alone_takes_its_own_time() -> None:
    got = estimate(PROFILE, (), (), (10, 5))
    assert got.start_seconds == pytest.approx(0.3)
    assert got.finish_seconds == pytest.approx((10.5, 5.5))


def test_those_who_follow_slow_it_down_up_to_a_full_batch() -> None:
    alone = estimate(PROFILE, (), (), (10,)).finish_seconds[0]
    some = estimate(PROFILE, (), (), (10,), Arrivals(5.0, 10)).finish_seconds[0]
    flood = estimate(PROFILE, (), (), (10,), Arrivals(1e-6, 10)).finish_seconds[0]
    assert alone < some < flood
    assert flood <= 0.3 + 1.0 + 2 * 0.3 + 9 * 1.9 + 0.2 + 1e-9


def test_a_report_beyond_the_batch_waits_first_in_line() -> None:
    assert estimate(PROFILE, (5, 5, 5, 5), (), (1,)) == estimate(PROFILE, (5, 5, 5), (5,), (1,))


@pytest.mark.parametrize("steps", [(), (0,), (5, -1)], ids=["none", "zero", "negative"])
def test_refuses_steps_that_cannot_be(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="steps"):
        estimate(PROFILE, (), (), steps)


@pytest.mark.parametrize(("interval", "steps"), [(0, 5), (math.nan, 5), (1, 0)])
def test_refuses_arrivals_that_cannot_be(interval: float, steps: int) -> None:
    with pytest.raises(ValueError, match="arrivals"):
        Arrivals(interval, steps)


def test_backlog_is_work_at_the_best_batch() -> None:
    # Best batch 3: 1.9 / 3 a step.
    got = backlog_seconds(PROFILE, (5, 5), (10,))
    assert got == pytest.approx(20 * 1.9 / 3 + 3 * 0.2 + 0.3)


def test_is_cheap() -> None:
    profile = Profile("d", 50, 0.0, 0.0, tuple(0.006 + 0.004 * b for b in range(1, 9)))
    active, queued, steps = (40, 35, 30, 25, 20, 15, 10, 5), (50,) * 4, (50, 45, 40, 35, 30, 25)
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20):
            estimate(profile, active, queued, steps, Arrivals(0.3, 40))
        best = min(best, (time.perf_counter() - began) / 20)
    # Measured 50 us; the bound leaves room for a busy machine.
    assert best < 500e-6
