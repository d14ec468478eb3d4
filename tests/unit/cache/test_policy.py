"""LCBFU against a plain reference, and the byte bound whatever happens."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_worker.cache.policy import Item, LcbfuPolicy, level_for


@dataclass
class Plain:
    """One latent in the reference."""

    entry: str
    level: int
    size: int
    hits: int
    age: int


class Reference:
    """LCBFU as its definition reads: sort everything at each eviction."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items: list[Plain] = []
        self.fixed: dict[str, int] = {}
        self.clock = 0

    @property
    def used(self) -> int:
        return sum(i.size for i in self.items) + sum(
            size for entry, size in self.fixed.items() if any(i.entry == entry for i in self.items)
        )

    def admit(self, entry: str, fixed: int, sizes: dict[int, int]) -> list[tuple[str, int]] | None:
        hits = {i.level: i.hits for i in self.items if i.entry == entry}
        others = [i for i in self.items if i.entry == entry and i.level not in sizes]
        alone = fixed + sum(sizes.values()) + sum(i.size for i in others)
        if not sizes or alone > self.capacity:
            return None
        self.items = [i for i in self.items if i.entry != entry or i.level not in sizes]
        self.fixed[entry] = fixed
        for level in sorted(sizes):
            self.items.append(Plain(entry, level, sizes[level], hits.get(level, 0), self.clock))
            self.clock += 1
        evicted = []
        while self.used > self.capacity:
            victims = [i for i in self.items if i.entry != entry]
            victim = min(victims, key=lambda i: (i.hits * i.level, i.age))
            self.items.remove(victim)
            evicted.append((victim.entry, victim.level))
        return evicted

    def hit(self, entry: str, level: int) -> None:
        for item in self.items:
            if (item.entry, item.level) == (entry, level):
                item.hits += 1

    def levels(self, entry: str) -> tuple[int, ...]:
        return tuple(sorted(i.level for i in self.items if i.entry == entry))


entries = st.sampled_from("abcdef")
levels = st.sampled_from([5, 10, 15, 20, 25])
admits = st.tuples(
    entries, st.integers(0, 5), st.dictionaries(levels, st.integers(0, 20), max_size=5)
)
hits = st.tuples(entries, levels)


@given(st.integers(0, 120), st.lists(st.one_of(admits, hits), max_size=60))
def test_the_same_evictions_as_the_reference_and_never_above_the_bound(
    capacity: int, events: list[tuple]
) -> None:
    policy, reference = LcbfuPolicy(capacity), Reference(capacity)
    for event in events:
        if len(event) == 2:
            policy.hit(*event)
            reference.hit(*event)
        else:
            expected = reference.admit(*event)
            admission = policy.admit(*event)
            assert admission.admitted == (expected is not None)
            assert [tuple(i) for i in admission.evicted] == (expected or [])
        assert policy.used_bytes == reference.used <= capacity
        assert all(policy.levels(e) == reference.levels(e) for e in "abcdef")


def test_the_smallest_hits_times_k_goes_first() -> None:
    policy = LcbfuPolicy(30)
    policy.admit("a", 0, {5: 10, 25: 10})
    policy.admit("b", 0, {20: 10})
    for entry, level, uses in (("a", 5, 4), ("a", 25, 1), ("b", 20, 2)):
        for _ in range(uses):
            policy.hit(entry, level)
    assert policy.admit("c", 0, {10: 10}).evicted == (Item("a", 5),)
    policy.hit("c", 10)
    assert policy.admit("d", 0, {5: 10}).evicted == (Item("c", 10),)
    assert policy.admit("e", 0, {5: 10}).evicted == (Item("d", 5),)


def test_of_equal_scores_the_oldest_goes_first() -> None:
    policy = LcbfuPolicy(20)
    policy.admit("a", 0, {5: 10})
    policy.admit("b", 0, {25: 10})
    admission = policy.admit("c", 0, {5: 10})
    assert admission.evicted == (Item("a", 5),)
    assert admission.reason == "made room"


def test_an_entry_above_the_bound_is_refused_and_nothing_changes() -> None:
    policy = LcbfuPolicy(25)
    policy.admit("a", 5, {5: 10})
    admission = policy.admit("b", 6, {5: 10, 10: 10})
    assert (admission.admitted, admission.evicted) == (False, ())
    assert admission.reason == "26 bytes: above the bound of 25"
    assert (policy.levels("a"), policy.used_bytes) == ((5,), 15)


def test_the_fixed_cost_goes_with_the_last_level() -> None:
    policy = LcbfuPolicy(40)
    policy.admit("a", 8, {5: 10, 10: 10})
    assert policy.used_bytes == 28
    policy.admit("b", 8, {5: 12})
    assert policy.levels("a") == (10,)
    assert policy.used_bytes == 38
    policy.admit("c", 8, {5: 12})
    assert policy.levels("a") == ()
    assert policy.used_bytes == 40


@pytest.mark.parametrize(
    ("held", "wanted", "level"),
    [
        pytest.param((5, 10, 15), 10, 10, id="held"),
        pytest.param((5, 15), 10, 5, id="hole"),
        pytest.param((15, 20), 10, 0, id="only larger"),
        pytest.param((), 25, 0, id="none"),
        pytest.param((5, 10), 25, 10, id="below all"),
    ],
)
def test_a_hole_is_filled_by_the_next_level_below(
    held: tuple[int, ...], wanted: int, level: int
) -> None:
    assert level_for(held, wanted) == level


@pytest.mark.parametrize(
    ("fixed", "sizes", "named"),
    [
        pytest.param(0, {0: 1}, "levels", id="level 0"),
        pytest.param(0, {5: -1}, "sizes", id="negative size"),
        pytest.param(-1, {5: 1}, "sizes", id="negative fixed size"),
    ],
)
def test_bad_sizes_are_refused(fixed: int, sizes: dict[int, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}.*not allowed"):
        LcbfuPolicy(10).admit("a", fixed, sizes)


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity_bytes: -1 is not allowed"):
        LcbfuPolicy(-1)
