"""This worker's part of the approximate cache: embeddings in FAISS, latents by level in memory and on disk.

Entries lie in partitions by tenant and fingerprint, each with an index of its own, so that neither is a filter
that could be forgotten. A latent may lie in memory, on disk or in both; either bound holds at all times. One
lock guards the book-keeping; what is done under it is short, and nothing under it waits for the disk.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gesso_worker.cache.directory import Directory, Partition
from gesso_worker.cache.disk import DiskTier, Writable
from gesso_worker.cache.latent_file import Embedding, Latents, Stored
from gesso_worker.cache.policy import (
    DUPLICATE,
    ITEM_OVERHEAD_BYTES,
    LcbfuPolicy,
    entry_bytes,
    level_for,
)
from gesso_worker.cache.records import HeldLatents, Match, Portable, ShardStats

#: Of the memory, what the book-keeping of entries on disk may take at most.
_PINNED_SHARE: Final = 0.5
#: Withdrawn requests that are remembered, since their latents may still be under way.
_WITHDRAWN: Final = 4096
_WRITE_S: Final = 5.0


@dataclass(slots=True)
class _Entry:
    number: int
    partition: Partition
    latents: dict[int, Latents]
    #: The requests that left the latents, where they are known.
    origins: dict[int, str]
    #: Levels on disk, durable, with the requests that left them; replaced, never changed.
    disk: Mapping[int, str]

    @property
    def levels(self) -> list[int]:
        return sorted({*self.disk, *self.latents})


class Shard:
    """Thread-safe. Latents handed in are copied; those handed out are read-only and must not be changed."""

    def __init__(
        self,
        owner: str,
        capacity_bytes: int,
        shared: bool = False,
        disk: DiskTier | None = None,
        fingerprint: str = "",
    ) -> None:
        """`shared`: all tenants are one (isolation `Shared`).

        With `disk`, what lies there under `fingerprint` and the same isolation is held from the start; the rest
        is removed.
        """
        self._lock = threading.RLock()
        self._shared = shared
        self._policy = LcbfuPolicy(capacity_bytes)
        self._disk = disk
        self._entries: dict[str, _Entry] = {}
        self._directory = Directory(self._lock)
        self._withdrawn: OrderedDict[str, None] = OrderedDict()
        self._next = 0
        # Ids of a worker that was started anew must not name other entries of its former life.
        self._prefix = f"{owner}-{secrets.token_hex(4)}"
        if disk is not None:
            with self._lock:
                self._reopen(disk, fingerprint)
            disk.start()

    @property
    def on_disk(self) -> bool:
        """Whether a fetch may have to wait for the disk."""
        return self._disk is not None

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
        origin: str = "",
    ) -> str | None:
        """Keeps a run's latents by level; gives the entry's id, or None if they are not kept.

        That is where they exceed the bound, are not finite, or `origin`, the request that left them, was
        withdrawn. A prompt that is there already (similarity above `DUPLICATE`) gets the new latents under its
        old id.
        """
        if not all(np.isfinite(array).all() for array in latents.values()):
            return None
        copies = {level: _own(array) for level, array in latents.items()}
        partition = self._partition(tenant, fingerprint)
        with self._lock:
            if origin and origin in self._withdrawn:
                return None
            entry_id = self._known(partition, embedding) or self._new_id()
            origins = dict.fromkeys(copies, origin) if origin else {}
            if not self._put(partition, embedding, entry_id, copies, origins, {}, True):
                return None
        if self._disk is not None:
            self._disk.put(entry_id)
        return entry_id

    def store(self, fingerprint: str, entry: Portable) -> bool:
        """Takes in another shard's entry, as far as there is room: whether it is there afterwards.

        No latents are evicted from memory for its own, and of a prompt that is there already only missing
        levels are taken. What memory has no room for goes to disk, and that is waited for.
        Raises ValueError on an embedding of another size.
        """
        partition = self._partition(entry.tenant, fingerprint)
        with self._lock:
            copies = {
                level: _own(array)
                for level, array in entry.latents.items()
                if entry.origins.get(level, "") not in self._withdrawn
            }
            if not copies:
                return False
            known = self._known(partition, entry.embedding)
            if known is not None:
                held = self._entries[known].levels
                copies = {level: array for level, array in copies.items() if level not in held}
                if not copies:
                    return True
            entry_id = known or self._new_id()
            fits = self._put(
                partition, entry.embedding, entry_id, copies, entry.origins, entry.hits, False
            )
        if self._disk is None:
            return fits
        if fits:
            self._disk.put(entry_id)
            return True
        return self._disk.write(
            Writable(
                entry_id,
                partition[0],
                self._isolation,
                fingerprint,
                entry.embedding,
                copies,
                entry.hits,
                entry.origins,
            ),
            _WRITE_S,
        )

    def withdraw(self, origin: str) -> int:
        """Forgets what a request left, and refuses what it may leave yet; the number of latents that went.

        May wait for the disk.
        """
        with self._lock:
            self._withdrawn[origin] = None
            while len(self._withdrawn) > _WITHDRAWN:
                self._withdrawn.popitem(last=False)
            memory = self._left_by(origin, disk=False)
            for entry_id, levels in memory.items():
                for level in levels:
                    self._policy.drop(entry_id, level)
                    self._forget_memory(entry_id, level)
            disk = self._left_by(origin, disk=True)
        for entry_id, levels in disk.items():
            assert self._disk is not None
            self._disk.drop(entry_id, levels)
        went = (
            (i, level)
            for found in (memory, disk)
            for i, levels in found.items()
            for level in levels
        )
        return len(set(went))

    def _left_by(self, origin: str, disk: bool) -> dict[str, tuple[int, ...]]:
        """Levels by entry that a request left in memory, or on disk."""
        return {
            entry_id: levels
            for entry_id, entry in self._entries.items()
            if (
                levels := tuple(
                    level
                    for level, of in (entry.disk if disk else entry.origins).items()
                    if of == origin
                )
            )
        }

    def ranked(self, fingerprint: str) -> tuple[str, ...]:
        """The entries under a fingerprint, the one that has saved most steps first, of equals the newest."""
        with self._lock:
            found = [i for i, e in self._entries.items() if e.partition[1] == fingerprint]
            worth = {i: self._saved(i) for i in found}
            return tuple(sorted(found, key=lambda i: (-worth[i], -self._entries[i].number)))

    def portable(self, entry_id: str) -> Portable | None:
        """An entry as it can be stored elsewhere; None if it is gone. Counts no use; may wait for the disk."""
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is None:
                return None
            embedding = self._directory.embedding(entry.partition, entry.number)
            hits = self._hits(entry_id)
            latents, origins = dict(entry.latents), {**entry.disk, **entry.origins}
            missing = [level for level in entry.disk if level not in latents]
        for level in missing:
            assert self._disk is not None
            found = self._disk.read(entry_id, level)
            if found is not None:
                latents[level] = found
        if not latents:
            return None
        return Portable(entry.partition[0], embedding, latents, hits, origins)

    def fetch(
        self,
        tenant: str,
        entry_id: str,
        wanted: int,
        fingerprint: str | None = None,
        wait: bool = True,
    ) -> HeldLatents | None:
        """The latents of an entry at the largest held level of at most `wanted`, and counts the use.

        None if the entry is gone, holds no such level, is another tenant's, or lies under another fingerprint
        than the one given. Without `wait` also where that level is on disk only.
        """
        while True:
            with self._lock:
                entry = self._entries.get(entry_id)
                if entry is None or entry.partition[0] != self._tenant(tenant):
                    return None
                if fingerprint is not None and entry.partition[1] != fingerprint:
                    return None
                level = level_for(entry.levels, wanted)
                if not level:
                    return None
                if level in entry.latents:
                    self._use(entry_id, level)
                    return HeldLatents(level, entry.latents[level], entry.partition[1])
            if not wait or self._disk is None:
                return None
            latents = self._disk.read(entry_id, level)
            if latents is None:
                continue  # dropped: the next level below
            with self._lock:
                if self._entries.get(entry_id) is not entry or level not in entry.levels:
                    continue
                self._promote(entry_id, entry, level, latents)
                self._use(entry_id, level)
            return HeldLatents(level, latents, entry.partition[1])

    def stats(self) -> ShardStats:
        """Entries and bytes, now."""
        with self._lock:
            policy = self._policy
            stats = ShardStats(len(self._entries), policy.used_bytes, policy.capacity_bytes)
        disk = self._disk
        if disk is None:
            return stats
        return ShardStats(
            stats.entries,
            stats.used_bytes,
            stats.capacity_bytes,
            disk.used_bytes,
            disk.capacity_bytes,
            disk.counts.corrupt,
            disk.counts.unwritten,
            disk.counts.failed,
        )

    @property
    def free_bytes(self) -> int:
        """Bytes that entries of other shards may take, in memory and on disk."""
        stats = self.stats()
        disk = stats.disk_capacity_bytes - stats.disk_used_bytes
        return max(0, stats.capacity_bytes - stats.used_bytes) + max(0, disk)

    def close(self, timeout_s: float) -> None:
        """Writes what is not on disk yet, as far as there is time, and lets go of the folder."""
        if self._disk is not None:
            self._disk.close(timeout_s)

    # What the disk tier asks and tells.

    def writable(self, entry_id: str) -> Writable | None:
        """See Owner."""
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is None or not entry.latents:
                return None
            tenant, fingerprint = entry.partition
            return Writable(
                entry_id,
                tenant,
                self._isolation,
                fingerprint,
                self._directory.embedding(entry.partition, entry.number),
                dict(entry.latents),
                self._policy.hits(entry_id),
                dict(entry.origins),
            )

    def may_hold(self, entry: Writable, levels: tuple[int, ...]) -> bool:
        """See Owner."""
        assert self._disk is not None
        while True:
            with self._lock:
                held = self._entries.get(entry.entry_id)
                disk = held.disk if held is not None else {}
                extra = ITEM_OVERHEAD_BYTES * len({*disk, *levels})
                fixed = entry_bytes(entry.embedding.size)
                before = 0 if not disk else fixed + ITEM_OVERHEAD_BYTES * len(disk)
                most = _PINNED_SHARE * self._policy.capacity_bytes
                if self._policy.pinned_bytes - before + fixed + extra <= most:
                    admission = self._policy.pin(entry.entry_id, fixed, extra)
                    for item in admission.evicted:
                        self._forget_memory(item.entry_id, item.level)
                    return admission.admitted
            if not self._disk.make_way(entry.entry_id):
                return False

    def held(self, entry: Writable, levels: tuple[int, ...]) -> None:
        """See Owner."""
        assert self._disk is not None
        refused = [lv for lv in levels if entry.origins.get(lv, "") in self._withdrawn]
        with self._lock:
            if entry.entry_id not in self._entries:
                self._add(entry.entry_id, (entry.tenant, entry.fingerprint), entry.embedding)
            held = self._entries[entry.entry_id]
            held.disk = {**held.disk, **{lv: entry.origins.get(lv, "") for lv in levels}}
        if refused:
            self._disk.drop(entry.entry_id, tuple(refused))

    def gone(self, entry_id: str, levels: tuple[int, ...]) -> None:
        """See Owner."""
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is not None:
                entry.disk = {lv: of for lv, of in entry.disk.items() if lv not in levels}
                if entry.disk:
                    fixed = entry_bytes(self._directory.dimensions(entry.partition))
                    self._policy.pin(entry_id, fixed, ITEM_OVERHEAD_BYTES * len(entry.disk))
                else:
                    self._policy.unpin(entry_id)
                self._forget_entry(entry_id, entry)
            else:
                self._policy.unpin(entry_id)

    # Under the lock.

    def _reopen(self, disk: DiskTier, fingerprint: str) -> None:
        isolation = self._isolation

        def wanted(stored: Stored) -> bool:
            return stored.fingerprint == fingerprint and stored.isolation == isolation

        surplus: list[Stored] = []
        most = _PINNED_SHARE * self._policy.capacity_bytes
        sizes: dict[tuple[str, str], int] = {}
        for stored in disk.open(self, wanted):
            partition = (stored.tenant, stored.fingerprint)
            fits = sizes.setdefault(partition, stored.embedding.size) == stored.embedding.size
            entry = self._entries.get(stored.entry_id)
            count = 1 + (len(entry.disk) if entry is not None else 0)
            fixed = entry_bytes(stored.embedding.size)
            cost = ITEM_OVERHEAD_BYTES + (0 if entry is not None else fixed)
            if not fits or self._policy.pinned_bytes + cost > most:
                surplus.append(stored)
                continue
            self._policy.pin(stored.entry_id, fixed, ITEM_OVERHEAD_BYTES * count)
            if entry is None:
                self._add(stored.entry_id, partition, stored.embedding)
                entry = self._entries[stored.entry_id]
            entry.disk = {**entry.disk, stored.level: stored.origin}
        for stored in surplus:
            disk.drop(stored.entry_id, (stored.level,))

    @property
    def _isolation(self) -> str:
        return "Shared" if self._shared else "Tenant"

    def _tenant(self, tenant: str) -> str:
        return "" if self._shared else tenant

    def _partition(self, tenant: str, fingerprint: str) -> Partition:
        return (self._tenant(tenant), fingerprint)

    def _new_id(self) -> str:
        self._next += 1
        return f"{self._prefix}-{self._next - 1}"

    def _nearest(self, partition: Partition, embedding: Embedding, limit: int) -> tuple[Match, ...]:
        return tuple(
            Match(
                entry_id,
                similarity,
                tuple(self._entries[entry_id].levels),
                self._directory.embedding(partition, number),
            )
            for entry_id, number, similarity in self._directory.nearest(partition, embedding, limit)
        )

    def _known(self, partition: Partition, embedding: Embedding) -> str | None:
        """The entry of the same prompt."""
        nearest = self._directory.nearest(partition, embedding, 1)
        return nearest[0][0] if nearest and nearest[0][2] > DUPLICATE else None

    def _hits(self, entry_id: str) -> dict[int, int]:
        hits = self._disk.hits(entry_id) if self._disk is not None else {}
        for level, number in self._policy.hits(entry_id).items():
            hits[level] = max(number, hits.get(level, 0))
        return hits

    def _saved(self, entry_id: str) -> int:
        return sum(level * number for level, number in self._hits(entry_id).items())

    def _use(self, entry_id: str, level: int) -> None:
        self._policy.hit(entry_id, level)
        if self._disk is not None:
            self._disk.hit(entry_id, level)

    def _promote(self, entry_id: str, entry: _Entry, level: int, latents: Latents) -> None:
        """What was used on disk is kept in memory, too, in place of what is worth less."""
        admission = self._policy.admit(
            entry_id,
            entry_bytes(self._directory.dimensions(entry.partition)),
            {level: latents.nbytes + ITEM_OVERHEAD_BYTES},
            self._hits(entry_id),
        )
        for item in admission.evicted:
            self._forget_memory(item.entry_id, item.level)
        if admission.admitted:
            entry.latents[level] = _own(latents)
            if entry.disk[level]:
                entry.origins[level] = entry.disk[level]

    def _put(
        self,
        partition: Partition,
        embedding: Embedding,
        entry_id: str,
        latents: Mapping[int, Latents],
        origins: Mapping[int, str],
        hits: Mapping[int, int],
        evict: bool,
    ) -> bool:
        sizes = {level: array.nbytes + ITEM_OVERHEAD_BYTES for level, array in latents.items()}
        admission = self._policy.admit(entry_id, entry_bytes(embedding.size), sizes, hits, evict)
        for item in admission.evicted:
            self._forget_memory(item.entry_id, item.level)
        if not admission.admitted:
            return False
        if entry_id not in self._entries:
            self._add(entry_id, partition, embedding)
        entry = self._entries[entry_id]
        for level, array in latents.items():
            entry.latents[level] = array
            entry.origins.pop(level, None)
            if origins.get(level):
                entry.origins[level] = origins[level]
        return True

    def _add(self, entry_id: str, partition: Partition, embedding: Embedding) -> None:
        number = self._directory.add(partition, entry_id, embedding)
        self._entries[entry_id] = _Entry(number, partition, {}, {}, {})

    def _forget_memory(self, entry_id: str, level: int) -> None:
        """A level is no longer in memory; the policy knows."""
        entry = self._entries[entry_id]
        del entry.latents[level]
        entry.origins.pop(level, None)
        self._forget_entry(entry_id, entry)

    def _forget_entry(self, entry_id: str, entry: _Entry) -> None:
        """The entry goes with its last level."""
        if not entry.latents and not entry.disk:
            del self._entries[entry_id]
            self._directory.remove(entry.partition, entry.number)


def _own(array: Latents) -> Latents:
    """A read-only copy that holds no larger array alive."""
    copy = array.copy(order="C")
    copy.flags.writeable = False
    return copy
