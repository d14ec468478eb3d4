"""How many worker pods there should be, and when those that go, go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.api import WorkersSpec
from gesso_operator.cluster.sizing import HAND_OVER_S, LEAVE_S, Size, resized, wanted


@pytest.mark.parametrize(
    ("spec", "planned", "before", "expected"),
    [
        ({"max": 4, "replicas": 2}, 4, 3, 2),
        ({"max": 4, "replicas": 0}, 4, 3, 0),
        ({"min": 3, "max": 3}, 9, 1, 3),
        ({"min": 1, "max": 4}, None, None, 1),
        ({"min": 1, "max": 4}, None, 3, 3),
        ({"min": 1, "max": 4}, 9, 3, 4),
        ({"min": 2, "max": 4}, 1, 3, 2),
    ],
)
def test_pinned_else_planned_else_as_it_was_in_bounds(spec, planned, before, expected):
    assert wanted(WorkersSpec(**spec), planned, before) == expected


def test_growing_is_at_once():
    assert resized(Size(2, 2), 5, 0.0) == Size(5, 5)


def test_those_that_go_get_no_new_requests_first():
    size = resized(Size(4, 4), 2, 10.0)
    assert size == Size(4, 2, 10.0)
    assert [size.stays(i) for i in range(4)] == [True, True, False, False]
    assert resized(size, 2, 10.0 + LEAVE_S / 2) == size
    assert resized(size, 2, 10.0 + LEAVE_S) == Size(2, 2)


def test_a_shard_that_is_being_handed_over_is_waited_for_but_not_for_ever():
    size = resized(Size(4, 4), 2, 10.0, handed_over=False)
    assert [size.leaves(i) for i in range(5)] == [False, False, True, True, False]
    assert resized(size, 2, 10.0 + LEAVE_S, handed_over=False) == size
    assert resized(size, 2, 10.0 + LEAVE_S) == Size(2, 2)
    assert resized(size, 2, 10.0 + HAND_OVER_S, handed_over=False) == Size(2, 2)


def test_a_wish_for_more_takes_them_back():
    size = resized(Size(4, 4), 2, 10.0)
    assert resized(size, 4, 11.0) == Size(4, 4)


def test_one_more_to_go_waits_its_own_time():
    size = resized(Size(4, 4), 3, 10.0)
    size = resized(size, 2, 12.0)
    assert size == Size(4, 2, 12.0)
    assert resized(size, 2, 12.0 + LEAVE_S) == Size(2, 2)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 5)), max_size=30))
def test_no_pod_goes_that_was_to_stay_and_all_go_in_the_end(wishes):
    size, now = Size(3, 3), 0.0
    for target, gap in wishes:
        now += gap
        before = size
        size = resized(size, target, now)
        assert size.target == target
        assert size.pods >= target
        assert size.pods >= min(before.pods, before.target) or target < before.target
    assert resized(resized(size, size.target, now), size.target, now + 9).pods == size.target
