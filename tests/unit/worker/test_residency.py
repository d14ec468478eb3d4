"""Which models stay in memory: never more than fits, the longest unused first, and none without need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gesso_worker.residency import Resident, to_let_go


def test_the_longest_unused_goes_first_and_none_without_need() -> None:
    residents = [Resident("old", 3), Resident("new", 3)]
    assert to_let_go(residents, 4, 10) == ()
    assert to_let_go(residents, 5, 10) == ("old",)
    assert to_let_go(residents, 8, 10) == ("old", "new")


def test_a_model_larger_than_the_bound_is_held_alone() -> None:
    assert to_let_go([Resident("a", 1)], 100, 10) == ("a",)


@given(st.lists(st.integers(1, 50), max_size=6), st.integers(1, 100), st.integers(0, 200))
def test_what_stays_fits_and_one_more_would_not(sizes: list[int], needed: int, bound: int) -> None:
    residents = [Resident(str(i), size) for i, size in enumerate(sizes)]
    gone = to_let_go(residents, needed, bound)
    assert gone == tuple(r.model for r in residents[: len(gone)])
    stay = residents[len(gone) :]
    assert not stay or needed + sum(r.size for r in stay) <= bound
    if gone:
        assert needed + sum(r.size for r in residents[len(gone) - 1 :]) > bound
