"""The entries of a shard: which latents are in memory, which on disk, and what they cost in memory.

No locks and no files: the shard holds its lock around every call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gesso_worker.cache.directory import Directory, Partition
from gesso_worker.cache.latent_file import Embedding, Latents
from gesso_worker.cache.policy import (
    DUPLICATE,
    ITEM_OVERHEAD_BYTES,
    EvictionPolicy,
    LcbfuPolicy,
    entry_bytes,
)
from gesso_worker.cache.records import Match, Post

#: Of the memory, what the book-keeping of entries on disk may take at most.
PINNED_SHARE: Final = 0.5
#: Not the id of any entry.
_RESERVED: Final = ""


@dataclass(slots=True)
class Entry:
    """One prompt's latents; `number` is its place in the directory."""

    number: int
    partition: Partition
    latents: dict[int, Latents]
    #: The requests that left the latents, where they are known.
    origins: dict[int, str]
    #: Levels on disk, durable, with the requests that left them; replaced, never changed.
    disk: Mapping[int, str]

    @property
    def levels(self) -> tuple[int, ...]:
        """Held levels, ascending."""
        return tuple(sorted({*self.disk, *self.latents}))


class EntryTable:
    """Never holds more bytes in memory than `policy.capacity_bytes`."""

    def __init__(self, lock: threading.RLock, capacity_bytes: int) -> None:
        """Raises ValueError for a negative bound."""
        self.policy: EvictionPolicy = LcbfuPolicy(capacity_bytes)
        self.directory = Directory(lock)
        #: Entries whose levels changed; None where nobody asks.
        self.changed: dict[str, None] | None = None
        self._entries: dict[str, Entry] = {}
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, entry_id: str) -> Entry | None:
        """An entry; None if it is gone."""
        return self._entries.get(entry_id)

    def ids(self) -> list[str]:
        """Every entry, oldest first."""
        return list(self._entries)

    def under(self, fingerprint: str) -> list[str]:
        """Entries under a fingerprint, oldest first."""
        return [i for i, e in self._entries.items() if e.partition[1] == fingerprint]

    def nearest(self, partition: Partition, embedding: Embedding, limit: int) -> list[Match]:
        """The nearest entries, best first. Raises ValueError on an embedding of another size."""
        return [
            Match(
                entry_id,
                similarity,
                self._entries[entry_id].levels,
                self.directory.embedding(partition, number),
            )
            for entry_id, number, similarity in self.directory.nearest(partition, embedding, limit)
        ]

    def known(self, partition: Partition, embedding: Embedding) -> str | None:
        """The entry of the same prompt. Raises ValueError on an embedding of another size."""
        nearest = self.directory.nearest(partition, embedding, 1)
        return nearest[0][0] if nearest and nearest[0][2] > DUPLICATE else None

    def embedding(self, entry: Entry) -> Embedding:
        """A copy of an entry's embedding."""
        return self.directory.embedding(entry.partition, entry.number)

    def post(self, entry_id: str) -> Post | None:
        """What others need to know of an entry; None if it is gone."""
        entry = self._entries.get(entry_id)
        if entry is None:
            return None
        return Post(entry_id, entry.partition[0], self.embedding(entry), entry.levels)

    def left_by(self, meant: Callable[[str], bool], disk: bool) -> dict[str, tuple[int, ...]]:
        """Levels by entry that requests left in memory, or on disk."""
        found = {
            entry_id: tuple(
                level
                for level, origin in (entry.disk if disk else entry.origins).items()
                if origin and meant(origin)
            )
            for entry_id, entry in self._entries.items()
        }
        return {entry_id: levels for entry_id, levels in found.items() if levels}

    def put(
        self,
        partition: Partition,
        embedding: Embedding,
        entry_id: str,
        latents: Mapping[int, Latents],
        origins: Mapping[int, str],
        hits: Mapping[int, int],
        evict: bool,
    ) -> bool:
        """Takes latents into memory; False, with nothing changed, where there is no room for them."""
        sizes = {level: array.nbytes + ITEM_OVERHEAD_BYTES for level, array in latents.items()}
        admission = self.policy.admit(entry_id, entry_bytes(embedding.size), sizes, hits, evict)
        for item in admission.evicted:
            self.forget_memory(item.entry_id, item.level)
        if not admission.admitted:
            return False
        entry = self._entries.get(entry_id) or self.add(partition, embedding, entry_id)
        for level, array in latents.items():
            entry.latents[level] = array
            entry.origins.pop(level, None)
            if origins.get(level):
                entry.origins[level] = origins[level]
        self._change(entry_id)
        return True

    def add(self, partition: Partition, embedding: Embedding, entry_id: str) -> Entry:
        """An entry without latents yet, whose bytes are accounted for already."""
        number = self.directory.add(partition, entry_id, embedding)
        entry = self._entries[entry_id] = Entry(number, partition, {}, {}, {})
        return entry

    def reserve(self, size: int) -> bool:
        """Accounts for `size` bytes that are no entry's, in place of those before; False without room."""
        admission = self.policy.pin(_RESERVED, 0, size)
        for item in admission.evicted:
            self.forget_memory(item.entry_id, item.level)
        if admission.admitted:
            self._reserved = size
        return admission.admitted

    def pin_disk(self, entry_id: str, dimensions: int, levels: tuple[int, ...]) -> bool:
        """Accounts for an entry with more levels on disk; False, with nothing changed, if there is no room."""
        entry = self._entries.get(entry_id)
        held = entry.disk if entry is not None else {}
        fixed = entry_bytes(dimensions)
        extra = ITEM_OVERHEAD_BYTES * len({*held, *levels})
        before = fixed + ITEM_OVERHEAD_BYTES * len(held) if held else 0
        most = PINNED_SHARE * self.policy.capacity_bytes
        if self.policy.pinned_bytes - self._reserved - before + fixed + extra > most:
            return False
        admission = self.policy.pin(entry_id, fixed, extra)
        for item in admission.evicted:
            self.forget_memory(item.entry_id, item.level)
        return admission.admitted

    def set_disk(self, entry_id: str, levels: Mapping[int, str]) -> None:
        """Which levels of an entry are on disk now, as was accounted for, and who left them."""
        entry = self._entries.get(entry_id)
        if entry is None:
            self.policy.unpin(entry_id)
            return
        entry.disk = levels
        if levels:
            fixed = entry_bytes(self.directory.dimensions(entry.partition))
            self.policy.pin(entry_id, fixed, ITEM_OVERHEAD_BYTES * len(levels))
        else:
            self.policy.unpin(entry_id)
        self._change(entry_id)
        self._forget_empty(entry_id, entry)

    def drop_memory(self, entry_id: str, level: int) -> None:
        """Lets go of a latent in memory."""
        self.policy.drop(entry_id, level)
        self.forget_memory(entry_id, level)

    def forget_memory(self, entry_id: str, level: int) -> None:
        """A latent is no longer in memory; the policy knows."""
        entry = self._entries[entry_id]
        del entry.latents[level]
        entry.origins.pop(level, None)
        if level not in entry.disk:
            self._change(entry_id)
        self._forget_empty(entry_id, entry)

    def _forget_empty(self, entry_id: str, entry: Entry) -> None:
        """The entry goes with its last level."""
        if not entry.latents and not entry.disk:
            del self._entries[entry_id]
            self.directory.remove(entry.partition, entry.number)

    def _change(self, entry_id: str) -> None:
        if self.changed is not None:
            self.changed[entry_id] = None
