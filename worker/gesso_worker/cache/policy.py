"""Which latents stay: LCBFU (least computationally beneficial and frequently used) within a byte bound. Pure.

An item is the latent of one entry at one level K. Its score is hits x K, the denoising steps it has
saved; the smallest goes first, the oldest of equals (NIRVANA, NSDI'24). Items of the entry that is being
admitted do not make room for itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Cosine similarity above which a prompt is the same prompt: its entry is refreshed, none added.
DUPLICATE: Final = 0.9999
#: Memory of an entry and of an item beyond embedding and latents, measured (CPython 3.11) and rounded up.
ENTRY_OVERHEAD_BYTES: Final = 1536
ITEM_OVERHEAD_BYTES: Final = 512


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
class _Held:
    size: int
    hits: int
    order: int


def level_for(held: Iterable[int], wanted: int) -> int:
    """The largest held level of at most `wanted` that skips anything; 0 if there is none."""
    return max((level for level in held if 0 < level <= wanted), default=0)


class LcbfuPolicy:
    """Book-keeping of sizes and scores; holds no latents. Not thread-safe.

    An entry costs `fixed` bytes (its embedding, its place in the index) as long as it holds any item.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Raises ValueError for a negative bound. 0 admits nothing."""
        if capacity_bytes < 0:
            raise ValueError(f"capacity_bytes: {capacity_bytes} is not allowed: 0 or more")
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._items: dict[Item, _Held] = {}
        self._fixed: dict[str, int] = {}
        self._levels: dict[str, set[int]] = {}
        # (score, order, item), at most what the item's are now, since both only grow; put right when popped.
        self._heap: list[tuple[int, int, Item]] = []
        self._order = 0

    def levels(self, entry_id: str) -> tuple[int, ...]:
        """Levels held of an entry, ascending; empty if it is not held."""
        return tuple(sorted(self._levels.get(entry_id, ())))

    def ranked(self) -> tuple[str, ...]:
        """Every entry, the one that has saved most steps first, of equals the newest: as eviction keeps
        them.
        """

        def worth(entry_id: str) -> tuple[int, int]:
            held = [(lv, self._items[Item(entry_id, lv)]) for lv in self._levels[entry_id]]
            return sum(h.hits * lv for lv, h in held), max(h.order for _, h in held)

        return tuple(sorted(self._levels, key=worth, reverse=True))

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
        Refused, with nothing changed, if the entry alone is above the bound, or without `evict` where there is
        no room for it.
        Raises ValueError for levels below 1 or sizes below 0.
        """
        if any(level < 1 for level in sizes):
            raise ValueError(f"levels {sorted(sizes)} are not allowed: 1 or more")
        if fixed < 0 or any(size < 0 for size in sizes.values()):
            raise ValueError(f"sizes: {fixed}, {dict(sizes)} are not allowed: 0 or more")
        if not sizes:
            return Admission(False, (), "no latents")
        others = [lv for lv in self._levels.get(entry_id, ()) if lv not in sizes]
        kept = sum(self._items[Item(entry_id, level)].size for level in others)
        alone = fixed + sum(sizes.values()) + kept
        if alone > self.capacity_bytes:
            return Admission(False, (), f"{alone} bytes: above the bound of {self.capacity_bytes}")
        now = self._fixed.get(entry_id, 0) + sum(
            self._items[Item(entry_id, level)].size for level in self._levels.get(entry_id, ())
        )
        if not evict and self.used_bytes + alone - now > self.capacity_bytes:
            return Admission(False, (), f"{self.capacity_bytes - self.used_bytes} bytes are free")
        evicted = self._make_room(alone - now, entry_id)
        self.used_bytes += alone - now
        self._fixed[entry_id] = fixed
        held = self._levels.setdefault(entry_id, set())
        for level in sorted(sizes):
            item = Item(entry_id, level)
            before = self._items.get(item)
            used = max(before.hits if before else 0, (hits or {}).get(level, 0))
            self._items[item] = _Held(sizes[level], used, self._order)
            if before is None:
                heapq.heappush(self._heap, (used * level, self._order, item))
            self._order += 1
            held.add(level)
        return Admission(True, evicted, "made room" if evicted else "fits")

    def hit(self, entry_id: str, level: int) -> None:
        """Counts a use of an item; one that is not held is ignored."""
        held = self._items.get(Item(entry_id, level))
        if held is not None:
            held.hits += 1

    def _make_room(self, needed: int, protected: str) -> tuple[Item, ...]:
        evicted, spared = [], []
        while self.used_bytes + needed > self.capacity_bytes:
            score, order, item = heapq.heappop(self._heap)
            held = self._items[item]
            current = (held.hits * item.level, held.order)
            if item.entry_id == protected:
                spared.append((*current, item))
            elif current != (score, order):
                heapq.heappush(self._heap, (*current, item))
            else:
                self._drop(item)
                evicted.append(item)
        for entry in spared:
            heapq.heappush(self._heap, entry)
        return tuple(evicted)

    def _drop(self, item: Item) -> None:
        self.used_bytes -= self._items.pop(item).size
        levels = self._levels[item.entry_id]
        levels.remove(item.level)
        if not levels:
            del self._levels[item.entry_id]
            self.used_bytes -= self._fixed.pop(item.entry_id)
