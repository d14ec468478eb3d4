"""Which latents stay within a byte bound: LCBFU, and LRU and FIFO to compare it with. Pure.

An item is the latent of one entry at one level K. The item of the smallest worth goes first; items of the entry
that is being admitted do not make room for itself. LCBFU (least computationally beneficial and frequently used;
NIRVANA, NSDI'24): worth is hits x K, the denoising steps that it has saved, the oldest of equals first.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Cosine similarity above which a prompt is the same prompt: its entry is refreshed, none added.
DUPLICATE: Final = 0.9999
#: Memory of an entry and of an item beyond embedding and latents, measured (CPython 3.11) and rounded up.
ENTRY_OVERHEAD_BYTES: Final = 1536
ITEM_OVERHEAD_BYTES: Final = 512


def entry_bytes(dimensions: int) -> int:
    """Memory of an entry beyond its items: its embedding, thrice while an index is made anew, and overhead."""
    return 12 * dimensions + ENTRY_OVERHEAD_BYTES


class Item(NamedTuple):
    """One latent: of which entry, before which step K."""

    entry_id: str
    level: int


@dataclass(frozen=True)
class Admission:
    """Whether an entry was taken in, what had to go for it in that order, and why."""

    admitted: bool
    evicted: tuple[Item, ...]
    reason: str


@dataclass(slots=True)
class Held:
    """What is known of an item; `order` and `used` count admissions and uses, of all items together."""

    size: int
    hits: int
    order: int
    used: int


def level_for(held: Iterable[int], wanted: int) -> int:
    """The largest held level of at most `wanted` that skips anything; 0 if there is none."""
    return max((level for level in held if 0 < level <= wanted), default=0)


class EvictionPolicy(ABC):
    """Book-keeping of sizes and worths; holds no latents. Not thread-safe.

    An entry costs `fixed` bytes (its embedding, its place in the index) while it holds any item or is pinned.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Raises ValueError for a negative bound. 0 admits nothing."""
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes: {capacity_bytes} is not allowed: 0 or more")
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        #: Of `used_bytes`, what pinned entries cost beyond their items.
        self.pinned_bytes = 0
        self._items: dict[Item, Held] = {}
        self._fixed: dict[str, int] = {}
        self._extra: dict[str, int] = {}
        self._levels: dict[str, set[int]] = {}
        # (*worth, item), at most what the item's is now, since worths only grow; put right when popped.
        self._heap: list[tuple[int, int, Item]] = []
        self._clock = 0

    @staticmethod
    @abstractmethod
    def worth(level: int, held: Held) -> tuple[int, int]:
        """The smallest goes first. Unlike among items, and never smaller after a use or an admission."""

    def levels(self, entry_id: str) -> tuple[int, ...]:
        """Levels held of an entry, ascending; empty if it is not held."""
        return tuple(sorted(self._levels.get(entry_id, ())))

    def ranked(self) -> tuple[str, ...]:
        """Every entry that holds items, the one that has saved most steps first, of equals the newest."""

        def saved(entry_id: str) -> tuple[int, int]:
            held = [(lv, self._items[Item(entry_id, lv)]) for lv in self._levels[entry_id]]
            return sum(h.hits * lv for lv, h in held), max(h.order for _, h in held)

        return tuple(sorted(self._levels, key=saved, reverse=True))

    def hits(self, entry_id: str) -> dict[int, int]:
        """How often each held level of an entry was used; empty if it is not held."""
        return {lv: self._items[Item(entry_id, lv)].hits for lv in self._levels.get(entry_id, ())}

    def admit(
        self,
        entry_id: str,
        fixed: int,
        sizes: Mapping[int, int],
        hits: Mapping[int, int] | None = None,
        evict: bool = True,
    ) -> Admission:
        """Takes in an entry's latents, `sizes` bytes by level; `hits` of it are known from elsewhere.

        An entry that is held keeps its hits and other levels; latents given anew count as new.
        Refused, with nothing changed, if the entry does not fit even alone, or without `evict` where there is
        no room for it.
        Raises ValueError for levels below 1 or sizes below 0.
        """
        if any(level < 1 for level in sizes):
            raise ValueError(f"levels {sorted(sizes)} are not allowed: 1 or more")
        if fixed < 0 or any(size < 0 for size in sizes.values()):
            raise ValueError(f"sizes: {fixed}, {dict(sizes)} are not allowed: 0 or more")
        if not sizes:
            return Admission(False, (), "no latents")
        own = self._own_bytes(entry_id)
        others = [lv for lv in self._levels.get(entry_id, ()) if lv not in sizes]
        kept = sum(self._items[Item(entry_id, level)].size for level in others)
        alone = fixed + self._extra.get(entry_id, 0) + sum(sizes.values()) + kept
        least = self.pinned_bytes - self._pinned(entry_id)
        if alone + least > self.capacity_bytes:
            room = self.capacity_bytes - least
            return Admission(False, (), f"{alone} bytes: above the bound of {room}")
        if not evict and self.used_bytes + alone - own > self.capacity_bytes:
            return Admission(False, (), f"{self.capacity_bytes - self.used_bytes} bytes are free")
        evicted = self._make_room(alone - own, entry_id)
        self.used_bytes += alone - own
        self.pinned_bytes -= self._pinned(entry_id)
        self._fixed[entry_id] = fixed
        self.pinned_bytes += self._pinned(entry_id)
        held = self._levels.setdefault(entry_id, set())
        for level in sorted(sizes):
            item = Item(entry_id, level)
            before = self._items.get(item)
            used = max(before.hits if before else 0, (hits or {}).get(level, 0))
            now = self._items[item] = Held(sizes[level], used, self._clock, self._clock)
            if before is None:
                heapq.heappush(self._heap, (*self.worth(level, now), item))
            self._clock += 1
            held.add(level)
        return Admission(True, evicted, "made room" if evicted else "fits")

    def hit(self, entry_id: str, level: int) -> None:
        """Counts a use of an item; one that is not held is ignored."""
        held = self._items.get(Item(entry_id, level))
        if held is not None:
            held.hits += 1
            held.used = self._clock
            self._clock += 1

    def pin(self, entry_id: str, fixed: int, extra: int) -> Admission:
        """Charges an entry `fixed` and `extra` bytes until `unpin`, whatever items it has. Evicts for it.

        Pinning again changes both. Refused, with nothing changed, if that does not fit even with no items left
        but the entry's own.
        """
        own = self._own_bytes(entry_id)
        items = sum(
            self._items[Item(entry_id, level)].size for level in self._levels.get(entry_id, ())
        )
        then = fixed + extra + items
        if then + self.pinned_bytes - self._pinned(entry_id) > self.capacity_bytes:
            return Admission(False, (), "no room to pin it")
        evicted = self._make_room(then - own, entry_id)
        self.used_bytes += then - own
        self.pinned_bytes -= self._pinned(entry_id)
        self._fixed[entry_id], self._extra[entry_id] = fixed, extra
        self.pinned_bytes += fixed + extra
        return Admission(True, evicted, "made room" if evicted else "fits")

    def unpin(self, entry_id: str) -> None:
        """Ends a pin; one that is not there is ignored."""
        if entry_id not in self._extra:
            return
        self.pinned_bytes -= self._pinned(entry_id)
        self.used_bytes -= self._extra.pop(entry_id)
        if entry_id not in self._levels:
            self.used_bytes -= self._fixed.pop(entry_id)

    def drop(self, entry_id: str, level: int) -> None:
        """Forgets an item; one that is not held is ignored."""
        item = Item(entry_id, level)
        if item in self._items:
            self._drop(item)

    def evict(self, protected: str = "") -> Item | None:
        """Makes the item go that is worth the least, other than `protected`'s; None if there is none."""
        spared, victim = [], None
        while self._heap and victim is None:
            *worth, item = heapq.heappop(self._heap)
            held = self._items.get(item)
            if held is None:
                continue
            current = self.worth(item.level, held)
            if item.entry_id == protected:
                spared.append((*current, item))
            elif list(current) != worth:
                heapq.heappush(self._heap, (*current, item))
            else:
                victim = item
                self._drop(item)
        for entry in spared:
            heapq.heappush(self._heap, entry)
        return victim

    def _make_room(self, needed: int, protected: str) -> tuple[Item, ...]:
        evicted = []
        while self.used_bytes + needed > self.capacity_bytes:
            victim = self.evict(protected)
            assert victim is not None, "what is admitted fits when all else has gone"
            evicted.append(victim)
        return tuple(evicted)

    def _own_bytes(self, entry_id: str) -> int:
        items = sum(
            self._items[Item(entry_id, level)].size for level in self._levels.get(entry_id, ())
        )
        return self._fixed.get(entry_id, 0) + self._extra.get(entry_id, 0) + items

    def _pinned(self, entry_id: str) -> int:
        """What a pinned entry costs beyond its items; 0 for any other."""
        if entry_id not in self._extra:
            return 0
        return self._fixed[entry_id] + self._extra[entry_id]

    def _drop(self, item: Item) -> None:
        self.used_bytes -= self._items.pop(item).size
        levels = self._levels[item.entry_id]
        levels.remove(item.level)
        if not levels:
            del self._levels[item.entry_id]
            if item.entry_id not in self._extra:
                self.used_bytes -= self._fixed.pop(item.entry_id)


class LcbfuPolicy(EvictionPolicy):
    """The least hits x K goes first, of equals the oldest."""

    @staticmethod
    def worth(level: int, held: Held) -> tuple[int, int]:
        """See EvictionPolicy."""
        return held.hits * level, held.order


class LruPolicy(EvictionPolicy):
    """The least recently used goes first; to be admitted is a use."""

    @staticmethod
    def worth(level: int, held: Held) -> tuple[int, int]:
        """See EvictionPolicy."""
        return held.used, 0


class FifoPolicy(EvictionPolicy):
    """The oldest goes first."""

    @staticmethod
    def worth(level: int, held: Held) -> tuple[int, int]:
        """See EvictionPolicy."""
        return held.order, 0


#: By the names that a user gives.
POLICIES: Final[dict[str, type[EvictionPolicy]]] = {
    "LCBFU": LcbfuPolicy,
    "LRU": LruPolicy,
    "FIFO": FifoPolicy,
}
