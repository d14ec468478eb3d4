"""When a worker that fails is left alone, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gesso_router.routing.breaker import CLOSED, FAILURES, MOST_OPEN_S, OPEN_S, Breaker


def test_it_opens_after_failures_in_a_row_and_lets_one_try_after_its_time() -> None:
    breaker: Breaker = CLOSED
    for _ in range(FAILURES - 1):
        breaker = breaker.failed(10.0)
        assert not breaker.open(10.0)
    breaker = breaker.failed(10.0)
    assert breaker.open(10.0 + OPEN_S - 0.01)
    assert not breaker.open(10.0 + OPEN_S)
    # The trial fails: twice as long.
    breaker = breaker.failed(12.0)
    assert breaker.open(12.0 + 2 * OPEN_S - 0.01)
    assert not breaker.open(12.0 + 2 * OPEN_S)


def test_what_was_under_way_does_not_make_it_longer() -> None:
    breaker = CLOSED
    for _ in range(50):
        breaker = breaker.failed(0.0)
    assert not breaker.open(OPEN_S)


@given(st.lists(st.floats(0.0, 100.0), max_size=100))
def test_it_is_never_open_longer_than_the_most(gaps: list[float]) -> None:
    breaker, now = CLOSED, 0.0
    for gap in gaps:
        now += gap
        breaker = breaker.failed(now)
        assert breaker.until_s <= now + MOST_OPEN_S
