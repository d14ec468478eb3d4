"""Who joins the batch: by arrival while there is room, by slack when there is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_worker.engine.admission import Swap, Waiting, admit, swap

NOW = 100.0
STEP = 0.1


def _waiting(key: int, deadline_s: float, steps: int = 10, order: int | None = None) -> Waiting:
    return Waiting(key, key if order is None else order, steps, deadline_s)


def _keys(waiting: list[Waiting], free: int) -> list[int]:
    return [a.key for a in admit(waiting, free, NOW, STEP)]


def test_all_that_fit_join_by_arrival() -> None:
    waiting = [_waiting(1, 101.5, order=2), _waiting(2, 109, order=1)]
    assert _keys(waiting, 2) == [2, 1]


@pytest.mark.parametrize("free", [0, -1])
def test_nobody_joins_a_full_batch(free: int) -> None:
    assert _keys([_waiting(1, 200)], free) == []


def test_least_slack_joins_first_when_not_all_fit() -> None:
    waiting = [_waiting(1, 110), _waiting(2, 103), _waiting(3, 105)]
    assert _keys(waiting, 2) == [2, 3]


def test_more_steps_left_mean_less_slack_at_the_same_deadline() -> None:
    waiting = [_waiting(1, 110, steps=10), _waiting(2, 110, steps=50)]
    assert _keys(waiting, 1) == [2]


def test_those_that_cannot_be_in_time_come_last() -> None:
    late, fair = _waiting(1, 100.5), _waiting(2, 150)
    chosen = admit([late, fair, late], 2, NOW, STEP)
    assert [(a.key, a.reason) for a in chosen] == [(2, "least slack"), (1, "too late to help")]


def test_decoding_counts_into_the_slack() -> None:
    a, b = _waiting(1, 101.5), _waiting(2, 200)
    assert admit([a, b], 1, NOW, STEP, finish_seconds=0.0)[0].key == 1
    assert admit([a, b], 1, NOW, STEP, finish_seconds=0.6)[0].key == 2


def test_equal_slack_goes_by_arrival() -> None:
    waiting = [_waiting(key, float("inf")) for key in (5, 3, 4)]
    assert _keys(waiting, 2) == [3, 4]


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(90, 200)), max_size=12), st.integers(0, 6))
def test_a_free_place_is_never_left_while_somebody_waits(
    jobs: list[tuple[int, float]], free: int
) -> None:
    waiting = [_waiting(i, deadline, steps) for i, (steps, deadline) in enumerate(jobs)]
    chosen = _keys(waiting, free)
    assert len(chosen) == len(set(chosen)) == min(free, len(jobs))


def _swap(active: list[Waiting], waiting: list[Waiting]) -> Swap | None:
    return swap(active, waiting, NOW, STEP)


def test_one_that_can_wait_makes_room_for_one_that_cannot() -> None:
    lax, strict = _waiting(1, 200, steps=40), _waiting(2, 102, steps=15)
    assert _swap([lax], [strict]) == Swap(leaves=1, joins=2)


def test_nobody_leaves_while_a_place_falls_free_in_time() -> None:
    nearly_done, lax = _waiting(1, 200, steps=2), _waiting(3, 200, steps=40)
    assert _swap([nearly_done, lax], [_waiting(2, 102, steps=15)]) is None


def test_nobody_leaves_for_one_that_would_be_late_anyway() -> None:
    assert _swap([_waiting(1, 200, steps=40)], [_waiting(2, 101, steps=15)]) is None


def test_nobody_is_made_late() -> None:
    # 40 steps are 4 s; it has 1 s to spare, and would have to wait for 1.5 s and a step.
    assert _swap([_waiting(1, 105, steps=40)], [_waiting(2, 102, steps=15)]) is None


def test_one_that_will_be_late_anyway_leaves_first() -> None:
    late, lax = _waiting(1, 101, steps=40), _waiting(3, 300, steps=40)
    assert _swap([lax, late], [_waiting(2, 102, steps=15)]) == Swap(leaves=1, joins=2)


waits = st.lists(st.tuples(st.integers(1, 50), st.floats(90, 120)), max_size=6)


@given(waits, waits)
def test_a_swap_costs_nobody_the_deadline(
    active: list[tuple[int, float]], waiting: list[tuple[int, float]]
) -> None:
    inside = [_waiting(i, deadline, steps) for i, (steps, deadline) in enumerate(active)]
    outside = [_waiting(10 + i, deadline, steps) for i, (steps, deadline) in enumerate(waiting)]
    done = _swap(inside, outside)
    if done is None:
        return
    joins = next(w for w in outside if w.key == done.joins)
    leaves = next(w for w in inside if w.key == done.leaves)
    assert NOW + joins.remaining_steps * STEP <= joins.deadline_s
    was_in_time = NOW + leaves.remaining_steps * STEP <= leaves.deadline_s
    after = NOW + (leaves.remaining_steps + joins.remaining_steps) * STEP
    assert not was_in_time or after <= leaves.deadline_s
