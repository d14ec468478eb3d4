"""The door: who is refused unread would have been refused read; who is being read takes room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.profile import Profile
from gesso_router.routing.choose import ChoicePolicy, choose
from gesso_router.routing.door import (
    AT_ONCE_SECONDS,
    CALM_SHARE,
    MOST_REFUSED,
    Refusals,
    is_calm,
    luckiest,
    with_reading,
)
from gesso_router.routing.quality import Match, Option
from gesso_router.routing.view import Ask, FleetView, Refusal, WorkerView

STEPS, DEEPEST = 50, 25
PROFILE = Profile("d", STEPS, 0.01, 0.02, (0.02, 0.03, 0.04, 0.05))
UNKNOWN = (Option(0, 1.0),)


def worker(name: str, queued: int) -> WorkerView:
    return WorkerView(name, PROFILE, active=(30, 20, 10, 5), queued=(STEPS,) * queued)


def fleet(*queued: int) -> FleetView:
    return FleetView(tuple(worker(f"w{i}", n) for i, n in enumerate(queued)), slo_seconds=4.0)


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
    st.floats(0.5, 10.0),
    st.lists(st.tuples(st.sampled_from([5, 10, 15, 20, 25]), st.floats(0.5, 1.0)), max_size=3),
    st.floats(0.0, 1.0),
)
def test_who_is_refused_at_the_door_would_be_refused_inside(
    queued: list[int], deadline: float, levels: list[tuple[int, float]], floor: float
) -> None:
    view, policy = fleet(*queued), ChoicePolicy()
    ask = Ask(luckiest(UNKNOWN, DEEPEST), STEPS, deadline)
    if isinstance(choose(ask, view, policy), Refusal):
        options = tuple(
            Option(k, q, Match("e", "w0", 0.9, (k,), None)) for k, q in sorted(dict(levels).items())
        )
        inside = Ask((*UNKNOWN, *options), STEPS, deadline, min_quality=floor)
        assert isinstance(choose(inside, view, policy), Refusal)


def test_other_models_are_among_the_luckiest() -> None:
    other = Option(0, 0.9, None, "turbo")
    assert luckiest((*UNKNOWN, other), DEEPEST) == (Option(DEEPEST, 1.0), other)


def test_calm_is_where_one_worker_has_room() -> None:
    assert is_calm(fleet(0, 20), 4.0)
    assert not is_calm(fleet(20, 20), 4.0)
    backlog = fleet(3).workers[0].backlog_seconds
    assert not is_calm(fleet(3), backlog / CALM_SHARE)
    assert is_calm(fleet(3), 1.01 * backlog / CALM_SHARE)
    assert is_calm(fleet(), 1.0)


def test_calm_with_prompts_in_reading_is_calm_wherever_they_go() -> None:
    for busy in ((0, 20), (3, 3), (1, 2, 9)):
        for reading in range(5):
            for deadline in (1.0, 4.0, 16.0, 64.0):
                certain = is_calm(fleet(*busy), deadline, reading, 25)
                placed = is_calm(with_reading(fleet(*busy), reading, 25), deadline)
                assert placed or not certain
    assert is_calm(fleet(0, 20), 64.0, 1, 25)
    assert not is_calm(fleet(0, 20), 4.0, 1000, 25)


def test_who_is_being_read_takes_the_room_that_there_is() -> None:
    view = with_reading(fleet(4, 0), 2, STEPS - DEEPEST)
    assert [w.outstanding for w in view.workers] == [8, 6]
    assert view.workers[1].queued == (25, 25)
    level = with_reading(fleet(0, 0), 4, 25)
    assert [w.outstanding for w in level.workers] == [6, 6]


def test_nobody_in_reading_changes_nothing() -> None:
    view = fleet(1, 2)
    assert with_reading(view, 0, 25) is view
    empty = fleet()
    assert with_reading(empty, 3, 25) is empty


def test_a_look_up_is_cut_short_only_where_most_are_refused() -> None:
    refusals = Refusals()
    assert refusals.reading_seconds(0.6, 0.01) == 0.6
    for _ in range(10):
        refusals = refusals.seen(True).seen(False)
    assert refusals.reading_seconds(0.6, 0.01) == 0.6
    for _ in range(20):
        refusals = refusals.seen(True)
    assert refusals.share > MOST_REFUSED
    assert refusals.reading_seconds(0.6, 0.01) == pytest.approx(AT_ONCE_SECONDS - 0.01)
    assert refusals.reading_seconds(0.005, 0.01) == 0.005
    assert refusals.reading_seconds(0.6, 1.0) == 0.0
    # An overload ends: a few that are placed, and everybody is waited for again.
    for _ in range(14):
        refusals = refusals.seen(False)
    assert refusals.reading_seconds(0.6, 0.01) == 0.6
