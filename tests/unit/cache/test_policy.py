"""Each policy against a plain reference, and the byte bound whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_worker.cache.policy import POLICIES, Item, LcbfuPolicy, level_for


@dataclass
class Plain:
    """One latent in the reference."""

    entry: str
    level: int
    size: int
    hits: int
    age: int
    used: int


WORTH: dict[str, Callable[[Plain], tuple[int, int]]] = {
    "LCBFU": lambda i: (i.hits * i.level, i.age),
    "LRU": lambda i: (i.used, 0),
    "FIFO": lambda i: (i.age, 0),
}


class Reference:
    """A policy as its definition reads: look at everything at each eviction."""

    def __init__(self, name: str, capacity: int) -> None:
        self.worth = WORTH[name]
        self.capacity = capacity
        self.items: list[Plain] = []
        self.fixed: dict[str, int] = {}
        self.pins: dict[str, int] = {}
        self.clock = 0

    @property
    def used(self) -> int:
        held = {i.entry for i in self.items} | set(self.pins)
        return (
            sum(i.size for i in self.items)
            + sum(self.fixed[entry] for entry in held)
            + sum(self.pins.values())
        )

    def pinned(self, but: str) -> int:
        return sum(self.fixed[e] + extra for e, extra in self.pins.items() if e != but)

    def make_room(self, entry: str) -> list[tuple[str, int]]:
        evicted = []
        while self.used > self.capacity:
            victim = min((i for i in self.items if i.entry != entry), key=self.worth)
            self.items.remove(victim)
            evicted.append((victim.entry, victim.level))
        return evicted

    def admit(self, entry: str, fixed: int, sizes: dict[int, int]) -> list[tuple[str, int]] | None:
        hits = {i.level: i.hits for i in self.items if i.entry == entry}
        others = sum(i.size for i in self.items if i.entry == entry and i.level not in sizes)
        alone = fixed + self.pins.get(entry, 0) + sum(sizes.values()) + others
        if not sizes or alone + self.pinned(entry) > self.capacity:
            return None
        self.items = [i for i in self.items if i.entry != entry or i.level not in sizes]
        self.fixed[entry] = fixed
        for level in sorted(sizes):
            made = Plain(entry, level, sizes[level], hits.get(level, 0), self.clock, self.clock)
            self.items.append(made)
            self.clock += 1
        return self.make_room(entry)

    def pin(self, entry: str, fixed: int, extra: int) -> list[tuple[str, int]] | None:
        own = sum(i.size for i in self.items if i.entry == entry)
        if own + fixed + extra + self.pinned(entry) > self.capacity:
            return None
        self.fixed[entry], self.pins[entry] = fixed, extra
        return self.make_room(entry)

    def hit(self, entry: str, level: int) -> None:
        for item in self.items:
            if (item.entry, item.level) == (entry, level):
                item.hits += 1
                item.used = self.clock
                self.clock += 1

    def levels(self, entry: str) -> tuple[int, ...]:
        return tuple(sorted(i.level for i in self.items if i.entry == entry))


entries = st.sampled_from("abcdef")
levels = st.sampled_from([5, 10, 15, 20, 25])
events = st.one_of(
    st.tuples(
        st.just("admit"),
        entries,
        st.integers(0, 5),
        st.dictionaries(levels, st.integers(0, 20), max_size=5),
    ),
    st.tuples(st.just("hit"), entries, levels),
    st.tuples(st.just("pin"), entries, st.integers(0, 5), st.integers(0, 10)),
    st.tuples(st.just("unpin"), entries),
    st.tuples(st.just("drop"), entries, levels),
)


@pytest.mark.parametrize("name", POLICIES)
@given(st.integers(0, 120), st.lists(events, max_size=60))
def test_the_same_evictions_as_the_reference_and_never_above_the_bound(
    name: str, capacity: int, events: list[tuple]
) -> None:
    policy, reference = POLICIES[name](capacity), Reference(name, capacity)
    for kind, *given_ in events:
        if kind in ("admit", "pin"):
            expected = getattr(reference, kind)(*given_)
            admission = getattr(policy, kind)(*given_)
            assert admission.admitted == (expected is not None)
            assert [tuple(i) for i in admission.evicted] == (expected or [])
        elif kind == "hit":
            policy.hit(*given_)
            reference.hit(*given_)
        elif kind == "unpin":
            policy.unpin(*given_)
            reference.pins.pop(*given_, None)
        else:
            policy.drop(*given_)
            reference.items = [i for i in reference.items if [i.entry, i.level] != given_]
        assert policy.used_bytes == reference.used <= capacity
        assert policy.pinned_bytes == reference.pinned("")
        assert all(policy.levels(e) == reference.levels(e) for e in "abcdef")


@pytest.mark.parametrize(
    ("name", "gone"),
    [("LCBFU", Item("b", 25)), ("LRU", Item("c", 10)), ("FIFO", Item("a", 5))],
)
def test_the_policies_differ_where_their_definitions_do(name: str, gone: Item) -> None:
    policy = POLICIES[name](30)
    for entry, level in (("a", 5), ("b", 25), ("c", 10)):
        policy.admit(entry, 0, {level: 10})
    for entry, level in (("a", 5), ("c", 10), ("a", 5)):
        policy.hit(entry, level)
    if name == "LRU":
        policy.admit("b", 0, {25: 10})
    assert policy.evict() == gone
    assert policy.evict(protected="a") != Item("a", 5)


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
