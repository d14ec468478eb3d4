"""This worker's part of the approximate cache: embeddings in FAISS, latents by level, within a byte bound.

Entries lie in partitions by tenant and fingerprint, each with an exact inner-product index of its own, so
that neither is a filter that could be forgotten. One lock guards everything; what is done under it is short.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from gesso_worker.cache.policy import (
    DUPLICATE,
    ENTRY_OVERHEAD_BYTES,
    ITEM_OVERHEAD_BYTES,
    LcbfuPolicy,
    level_for,
)

Latents = NDArray[np.float32] | NDArray[np.float16]
Embedding = NDArray[np.float32]


@dataclass(frozen=True)
class Match:
    """A cached prompt near the one asked for; `held_levels` ascending, never empty; its embedding, (d,)."""

    entry_id: str
    similarity: float
    held_levels: tuple[int, ...]
    embedding: Embedding = field(compare=False, repr=False)


@dataclass(frozen=True)
class HeldLatents:
    """The latent (1, C, H, W) of an entry before step `level`."""

    level: int
    latents: Latents
    fingerprint: str


@dataclass(frozen=True)
class Portable:
    """An entry as it goes from shard to shard: whose it is, latents and uses by level."""

    tenant: str
    embedding: Embedding
    latents: Mapping[int, Latents]
    hits: Mapping[int, int]

    @property
    def size(self) -> int:
        """Bytes that it takes of a shard."""
        latents = sum(a.nbytes + ITEM_OVERHEAD_BYTES for a in self.latents.values())
        return latents + _fixed(self.embedding)


@dataclass(frozen=True)
class ShardStats:
    """`used_bytes` counts embeddings, latents and their book-keeping; it never exceeds `capacity_bytes`."""

    entries: int
    used_bytes: int
    capacity_bytes: int


@dataclass(slots=True)
class _Entry:
    number: int
    partition: tuple[str, str]
    latents: dict[int, Latents]


class Shard:
    """Thread-safe. Latents handed in are copied; those handed out are read-only and must not be changed."""

    def __init__(self, owner: str, capacity_bytes: int, shared: bool = False) -> None:
        """`shared`: all tenants are one (isolation `Shared`)."""
        self._lock = threading.Lock()
        self._shared = shared
        self._policy = LcbfuPolicy(capacity_bytes)
        self._entries: dict[str, _Entry] = {}
        self._ids: dict[int, str] = {}
        self._indexes: dict[tuple[str, str], Any] = {}
        self._next = 0
        # Ids of a worker that was started anew must not name entries of its former life.
        self._prefix = f"{owner}-{secrets.token_hex(4)}"
        faiss.omp_set_num_threads(1)

    def lookup(
        self, tenant: str, fingerprint: str, embedding: Embedding, limit: int = 1
    ) -> tuple[Match, ...]:
        """The nearest entries, best first. Raises ValueError on an embedding of another size."""
        with self._lock:
            return self._nearest(self._partition(tenant, fingerprint), embedding, limit)

    def insert(
        self,
        tenant: str,
        fingerprint: str,
        embedding: Embedding,
        latents: Mapping[int, Latents],
    ) -> str | None:
        """Keeps a run's latents by level; gives the entry's id, or None if they exceed the bound.

        A prompt that is there already (similarity above `DUPLICATE`) gets the new latents under its old id.
        """
        copies = {level: _own(array) for level, array in latents.items()}
        partition = self._partition(tenant, fingerprint)
        with self._lock:
            known = self._known(partition, embedding)
            return self._put(partition, embedding, known, copies, {}, evict=True)

    def store(self, fingerprint: str, entry: Portable) -> bool:
        """Takes in another shard's entry, as far as there is room: whether it is there afterwards.

        Nothing is evicted for it, and of a prompt that is there already only missing levels are taken.
        Raises ValueError on an embedding of another size.
        """
        copies = {level: _own(array) for level, array in entry.latents.items()}
        partition = self._partition(entry.tenant, fingerprint)
        with self._lock:
            known = self._known(partition, entry.embedding)
            if known is not None:
                held = self._entries[known].latents
                copies = {level: array for level, array in copies.items() if level not in held}
                if not copies:
                    return True
            return bool(
                self._put(partition, entry.embedding, known, copies, entry.hits, evict=False)
            )

    def ranked(self, fingerprint: str) -> tuple[str, ...]:
        """The entries under a fingerprint, the one that eviction would keep the longest first."""
        with self._lock:
            return tuple(
                i for i in self._policy.ranked() if self._entries[i].partition[1] == fingerprint
            )

    def portable(self, entry_id: str) -> Portable | None:
        """An entry as it can be stored elsewhere; None if it is gone. Counts no use."""
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is None:
                return None
            embedding = self._indexes[entry.partition].reconstruct(entry.number)
            hits = self._policy.hits(entry_id)
            return Portable(entry.partition[0], embedding, dict(entry.latents), hits)

    def fetch(
        self, tenant: str, entry_id: str, wanted: int, fingerprint: str | None = None
    ) -> HeldLatents | None:
        """The latents of an entry at the largest held level of at most `wanted`, and counts the use.

        None if the entry is gone, holds no such level, is another tenant's, or lies under another fingerprint
        than the one given.
        """
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is None or entry.partition[0] != self._tenant(tenant):
                return None
            if fingerprint is not None and entry.partition[1] != fingerprint:
                return None
            level = level_for(entry.latents, wanted)
            if not level:
                return None
            self._policy.hit(entry_id, level)
            return HeldLatents(level, entry.latents[level], entry.partition[1])

    def stats(self) -> ShardStats:
        """Entries and bytes, now."""
        with self._lock:
            policy = self._policy
            return ShardStats(len(self._entries), policy.used_bytes, policy.capacity_bytes)

    def _tenant(self, tenant: str) -> str:
        return "" if self._shared else tenant

    def _partition(self, tenant: str, fingerprint: str) -> tuple[str, str]:
        return (self._tenant(tenant), fingerprint)

    def _nearest(
        self, partition: tuple[str, str], embedding: Embedding, limit: int
    ) -> tuple[Match, ...]:
        index = self._indexes.get(partition)
        if index is None:
            return ()
        if embedding.size != index.d:
            raise ValueError(f"embedding: {embedding.size} numbers are not allowed: {index.d} here")
        query = np.ascontiguousarray(embedding, dtype=np.float32).reshape(1, -1)
        similarities, numbers = index.search(query, min(limit, index.ntotal))
        return tuple(
            Match(
                entry_id,
                min(1.0, float(s)),
                tuple(sorted(self._entries[entry_id].latents)),
                index.reconstruct(int(n)),
            )
            for s, n in zip(similarities[0], numbers[0], strict=True)
            if (entry_id := self._ids.get(int(n))) is not None
        )

    def _known(self, partition: tuple[str, str], embedding: Embedding) -> str | None:
        """The entry of the same prompt."""
        nearest = self._nearest(partition, embedding, 1)
        return nearest[0].entry_id if nearest and nearest[0].similarity > DUPLICATE else None

    def _put(
        self,
        partition: tuple[str, str],
        embedding: Embedding,
        known: str | None,
        latents: Mapping[int, Latents],
        hits: Mapping[int, int],
        evict: bool,
    ) -> str | None:
        entry_id = known or f"{self._prefix}-{self._next}"
        sizes = {level: array.nbytes + ITEM_OVERHEAD_BYTES for level, array in latents.items()}
        admission = self._policy.admit(entry_id, _fixed(embedding), sizes, hits, evict)
        for item in admission.evicted:
            self._forget(item.entry_id, item.level)
        if not admission.admitted:
            return None
        if known is None:
            self._add(entry_id, partition, embedding)
        self._entries[entry_id].latents.update(latents)
        return entry_id

    def _add(self, entry_id: str, partition: tuple[str, str], embedding: Embedding) -> None:
        index = self._indexes.get(partition)
        if index is None:
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(embedding.size))
            self._indexes[partition] = index
        vector = np.ascontiguousarray(embedding, dtype=np.float32).reshape(1, -1)
        index.add_with_ids(vector, np.array([self._next], dtype=np.int64))
        self._entries[entry_id] = _Entry(self._next, partition, {})
        self._ids[self._next] = entry_id
        self._next += 1

    def _forget(self, entry_id: str, level: int) -> None:
        entry = self._entries[entry_id]
        del entry.latents[level]
        if entry.latents:
            return
        del self._entries[entry_id], self._ids[entry.number]
        index = self._indexes[entry.partition]
        index.remove_ids(np.array([entry.number], dtype=np.int64))
        if not index.ntotal:
            del self._indexes[entry.partition]


def _fixed(embedding: Embedding) -> int:
    """Bytes of an entry beyond its latents."""
    return embedding.size * 4 + ENTRY_OVERHEAD_BYTES


def _own(array: Latents) -> Latents:
    """A read-only copy that holds no larger array alive."""
    copy = array.copy(order="C")
    copy.flags.writeable = False
    return copy
