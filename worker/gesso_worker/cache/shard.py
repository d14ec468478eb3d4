"""This worker's part of the approximate cache: embeddings in FAISS, latents by level in memory and on disk.

Entries lie in partitions by tenant and fingerprint, each with an index of its own, so that neither is a filter
that could be forgotten. A latent may lie in memory, on disk or in both; either bound holds at all times. One
lock guards the book-keeping; what is done under it is short, and nothing under it waits for the disk.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gesso_worker.cache.directory import Partition
from gesso_worker.cache.disk import DiskTier, Writable
from gesso_worker.cache.entries import EntryTable
from gesso_worker.cache.latent_file import Embedding, Latents, Stored
from gesso_worker.cache.origins import Origins, means
from gesso_worker.cache.policy import level_for
from gesso_worker.cache.records import HeldLatents, Match, Portable, Post, ShardStats

_WRITE_S: Final = 5.0


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
        self._table = EntryTable(self._lock, capacity_bytes)
        self._disk = disk
        self._origins = Origins()
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
            partition = self._partition(tenant, fingerprint)
            return tuple(self._table.nearest(partition, embedding, limit))

    def insert(
        self,
        tenant: str,
        fingerprint: str,
        embedding: Embedding,
        latents: Mapping[int, Latents],
        origin: str = "",
        wanted: Callable[[], bool] = lambda: True,
    ) -> str | None:
        """Keeps a run's latents by level; gives the entry's id, or None if they are not kept.

        That is where they exceed the bound, are not finite, or `origin`, the request that left them, was
        withdrawn or is not `wanted`. A prompt that is there already (similarity above `DUPLICATE`) gets the new
        latents under its old id.
        """
        if not all(np.isfinite(array).all() for array in latents.values()):
            return None
        copies = {level: _own(array) for level, array in latents.items()}
        partition = self._partition(tenant, fingerprint)
        with self._lock:
            if not wanted() or self._origins.refused(origin):
                return None
            entry_id = self._table.known(partition, embedding) or self._new_id()
            origins = dict.fromkeys(copies, origin) if origin else {}
            if not self._table.put(partition, embedding, entry_id, copies, origins, {}, True):
                return None
            self._origins.left(origin)
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
                if not self._origins.refused(entry.origins.get(level, ""))
            }
            known = self._table.known(partition, entry.embedding)
            held = self._table.get(known) if known is not None else None
            missing = {lv: a for lv, a in copies.items() if held is None or lv not in held.levels}
            if not missing:
                return bool(copies)
            entry_id = known or self._new_id()
            fits = self._table.put(
                partition, entry.embedding, entry_id, missing, entry.origins, entry.hits, False
            )
        if self._disk is None:
            return fits
        if fits:
            self._disk.put(entry_id)
            return True
        made = self._writable(
            entry_id, partition, entry.embedding, missing, entry.hits, entry.origins
        )
        return self._disk.write(made, _WRITE_S)

    def withdraw(self, request: str) -> int:
        """Forgets what a request left, and refuses what it may leave yet; the number of latents that went.

        The request is named as its `origin` is, or as that before its last dot. May wait for the disk.
        """
        with self._lock:
            self._origins.withdraw(request)
        return self._forget_left(lambda origin: means(request, origin))

    def retract(self, origin: str) -> None:
        """Forgets what a request has left that failed in the end. May wait for the disk."""
        with self._lock:
            left = self._origins.retract(origin)
        if left:
            self._forget_left(lambda other: other == origin)

    def ranked(self, fingerprint: str) -> tuple[str, ...]:
        """The entries under a fingerprint, the one that has saved most steps first, of equals the newest."""
        with self._lock:
            newest_first = self._table.under(fingerprint)[::-1]
            return tuple(sorted(newest_first, key=self._saved, reverse=True))

    def portable(self, entry_id: str) -> Portable | None:
        """An entry as it can be stored elsewhere; None if it is gone. Counts no use; may wait for the disk."""
        with self._lock:
            entry = self._table.get(entry_id)
            if entry is None:
                return None
            embedding, hits = self._table.embedding(entry), self._hits(entry_id)
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
                entry = self._table.get(entry_id)
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
                if self._table.get(entry_id) is not entry or level not in entry.disk:
                    continue
                # What was used on disk is kept in memory, too, in place of what is worth less.
                self._table.put(
                    entry.partition,
                    self._table.embedding(entry),
                    entry_id,
                    {level: _own(latents)},
                    entry.disk,
                    self._hits(entry_id),
                    True,
                )
                self._use(entry_id, level)
            return HeldLatents(level, latents, entry.partition[1])

    def watch(self) -> None:
        """From now on remembers which entries change, all that are there first; see `changes`."""
        with self._lock:
            self._table.changed = dict.fromkeys(self._table.ids())

    def changes(self, most: int) -> list[str]:
        """Entries that changed, or are gone, and were not given yet."""
        with self._lock:
            changed = self._table.changed
            if not changed:
                return []
            given = [i for i, _ in zip(changed, range(most), strict=False)]
            for entry_id in given:
                del changed[entry_id]
            return given

    def post(self, entry_id: str, fingerprint: str) -> Post | None:
        """What others need to know of an entry under a fingerprint; None if it is gone."""
        with self._lock:
            entry = self._table.get(entry_id)
            if entry is None or entry.partition[1] != fingerprint:
                return None
            return self._table.post(entry_id)

    @property
    def ungiven(self) -> int:
        """How many `changes` has yet to give."""
        with self._lock:
            return len(self._table.changed or ())

    def reserve(self, size: int) -> bool:
        """Takes `size` bytes of the memory, in place of what it took before; False if they cannot be had."""
        with self._lock:
            return self._table.reserve(size)

    def stats(self) -> ShardStats:
        """Entries and bytes, now."""
        with self._lock:
            policy = self._table.policy
            entries, used, capacity = len(self._table), policy.used_bytes, policy.capacity_bytes
        disk = self._disk
        if disk is None:
            return ShardStats(entries, used, capacity)
        counts = disk.counts
        return ShardStats(
            entries,
            used,
            capacity,
            disk.used_bytes,
            disk.capacity_bytes,
            counts.corrupt,
            counts.unwritten,
            counts.failed,
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

    # What the tier on disk asks and tells.

    def writable(self, entry_id: str) -> Writable | None:
        """See Owner."""
        with self._lock:
            entry = self._table.get(entry_id)
            if entry is None or not entry.latents:
                return None
            return self._writable(
                entry_id,
                entry.partition,
                self._table.embedding(entry),
                dict(entry.latents),
                self._table.policy.hits(entry_id),
                dict(entry.origins),
            )

    def may_hold(self, entry: Writable, levels: tuple[int, ...]) -> bool:
        """See Owner."""
        assert self._disk is not None
        while True:
            with self._lock:
                if self._table.pin_disk(entry.entry_id, entry.embedding.size, levels):
                    return True
            if not self._disk.make_way(entry.entry_id):
                return False

    def held(self, entry: Writable, levels: tuple[int, ...]) -> None:
        """See Owner."""
        assert self._disk is not None
        with self._lock:
            origins = {level: entry.origins.get(level, "") for level in levels}
            refused = tuple(lv for lv, origin in origins.items() if self._origins.refused(origin))
            held = self._table.get(entry.entry_id)
            if held is None:
                partition = (entry.tenant, entry.fingerprint)
                held = self._table.add(partition, entry.embedding, entry.entry_id)
            self._table.set_disk(entry.entry_id, {**held.disk, **origins})
        if refused:
            self._disk.drop(entry.entry_id, refused)

    def gone(self, entry_id: str, levels: tuple[int, ...]) -> None:
        """See Owner."""
        with self._lock:
            entry = self._table.get(entry_id)
            left = entry.disk if entry is not None else {}
            self._table.set_disk(entry_id, {lv: of for lv, of in left.items() if lv not in levels})

    def _writable(
        self,
        entry_id: str,
        partition: Partition,
        embedding: Embedding,
        latents: Mapping[int, Latents],
        hits: Mapping[int, int],
        origins: Mapping[int, str],
    ) -> Writable:
        tenant, fingerprint = partition
        return Writable(
            entry_id, tenant, self._isolation, fingerprint, embedding, latents, hits, origins
        )

    def _reopen(self, disk: DiskTier, fingerprint: str) -> None:
        isolation = self._isolation

        def wanted(stored: Stored) -> bool:
            return stored.fingerprint == fingerprint and stored.isolation == isolation

        surplus: list[Stored] = []
        sizes: dict[Partition, int] = {}
        for stored in disk.open(self, wanted):
            entry_id, partition = stored.entry_id, (stored.tenant, stored.fingerprint)
            size = stored.embedding.size
            fits = sizes.setdefault(partition, size) == size
            if not fits or not self._table.pin_disk(entry_id, size, (stored.level,)):
                surplus.append(stored)
                continue
            entry = self._table.get(entry_id)
            if entry is None:
                entry = self._table.add(partition, stored.embedding, entry_id)
            self._table.set_disk(entry_id, {**entry.disk, stored.level: stored.origin})
        for stored in surplus:
            disk.drop(stored.entry_id, (stored.level,))

    # Small ones, under the lock.

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

    def _hits(self, entry_id: str) -> dict[int, int]:
        hits = self._disk.hits(entry_id) if self._disk is not None else {}
        for level, number in self._table.policy.hits(entry_id).items():
            hits[level] = max(number, hits.get(level, 0))
        return hits

    def _saved(self, entry_id: str) -> int:
        return sum(level * number for level, number in self._hits(entry_id).items())

    def _use(self, entry_id: str, level: int) -> None:
        self._table.policy.hit(entry_id, level)
        if self._disk is not None:
            self._disk.hit(entry_id, level)

    # Not under the lock.

    def _forget_left(self, meant: Callable[[str], bool]) -> int:
        with self._lock:
            memory = self._table.left_by(meant, disk=False)
            for entry_id, levels in memory.items():
                for level in levels:
                    self._table.drop_memory(entry_id, level)
        went = {(i, level) for i, levels in memory.items() for level in levels}
        if self._disk is not None:
            # What is being written is there when this is let in; what is written later is no longer in memory.
            with self._disk.quiet:
                with self._lock:
                    disk = self._table.left_by(meant, disk=True)
                for entry_id, levels in disk.items():
                    self._disk.drop(entry_id, levels)
            went.update((i, level) for i, levels in disk.items() for level in levels)
        return len(went)


def _own(array: Latents) -> Latents:
    """A read-only copy that holds no larger array alive."""
    copy = array.copy(order="C")
    copy.flags.writeable = False
    return copy
