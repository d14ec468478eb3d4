"""Which worker gets which level: the mix holds, and as few as possible change."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_operator.planning.assign import assign, mix_of

LEVELS = (0, 10, 25)


@st.composite
def cases(draw):
    now = draw(st.lists(st.sampled_from([*LEVELS, None]), max_size=12))
    wanted = draw(st.lists(st.sampled_from(LEVELS), min_size=len(now), max_size=len(now)))
    return {f"w{i}": k for i, k in enumerate(now)}, Counter(wanted)


@given(cases())
def test_mix_holds_with_the_fewest_changes(case):
    current, mix = case
    given_levels = assign(current, mix)
    assert Counter(given_levels.values()) == mix
    kept = sum(1 for n, k in given_levels.items() if current[n] == k)
    have = Counter(current.values())
    assert kept == sum(min(have[k], mix[k]) for k in LEVELS)


@given(cases())
def test_asking_again_changes_nothing(case):
    current, mix = case
    once = assign(current, mix)
    assert assign(once, mix) == once


@pytest.mark.parametrize("mix", [{0: 1}, {0: 3}, {0: 3, 10: -1}])
def test_mix_must_count_the_workers(mix):
    with pytest.raises(ValueError, match="mix"):
        assign({"a": 0, "b": None}, mix)


def test_workers_off_the_ladder_are_not_counted():
    assert mix_of({"a": 0, "b": None, "c": 7, "d": 10}, LEVELS) == (1, 1, 0)
