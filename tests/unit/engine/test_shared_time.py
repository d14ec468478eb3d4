"""What stages take of a device that they share: in all, the time in which any was at work."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_worker.engine.shared_time import Share, SharedTime


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_alone_takes_what_the_clock_says() -> None:
    clock = Clock()
    shared = SharedTime(clock)
    clock.now += 5.0
    with shared.work() as share:
        clock.now += 2.0
    assert share.seconds == 2.0


def test_stages_at_once_take_a_part_each() -> None:
    clock = Clock()
    shared = SharedTime(clock)
    with shared.work() as long:
        clock.now += 1.0
        with shared.work() as short:
            clock.now += 3.0
        clock.now += 1.0
    assert short.seconds == 1.5
    assert long.seconds == 3.5


def test_a_stage_that_fails_takes_what_it_took() -> None:
    clock = Clock()
    shared = SharedTime(clock)
    stack = ExitStack()
    share = stack.enter_context(shared.work())
    clock.now += 1.0
    assert not stack.__exit__(RuntimeError, RuntimeError(), None)
    assert share.seconds == 1.0
    with shared.work() as alone:
        clock.now += 1.0
    assert alone.seconds == 1.0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 10.0)), max_size=60))
def test_all_stages_together_take_the_time_in_which_any_was_at_work(
    events: list[tuple[int, float]],
) -> None:
    """Each event lets time pass, then begins a stage, or ends it if it is at work."""
    clock = Clock()
    shared = SharedTime(clock)
    under_way: dict[int, tuple[ExitStack, Share]] = {}
    ended: list[Share] = []
    busy = 0.0

    def end(stage: int) -> None:
        stack, share = under_way.pop(stage)
        stack.close()
        ended.append(share)

    for stage, seconds in events:
        clock.now += seconds
        busy += seconds if under_way else 0.0
        if stage in under_way:
            end(stage)
        else:
            stack = ExitStack()
            under_way[stage] = stack, stack.enter_context(shared.work())
    for stage in list(under_way):
        end(stage)
    assert sum(share.seconds for share in ended) == pytest.approx(busy, abs=1e-6)
    assert all(share.seconds >= 0 for share in ended)
