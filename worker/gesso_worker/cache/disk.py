"""The tier of a shard on disk: what lies there within its bound, and a thread that writes.

Whoever inserts never waits for the disk: entries to be written stand in a bounded queue by name, and the thread
asks for their latents when their turn comes.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from gesso_worker.cache.folder import Key, LatentFolder
from gesso_worker.cache.latent_file import CorruptError, Embedding, Latents, Stored, encode
from gesso_worker.cache.policy import EvictionPolicy, Item, LcbfuPolicy

logger = logging.getLogger(__name__)

#: Entries that wait for the writer; more stay in memory only.
QUEUE_ENTRIES: Final = 256
#: Uses are written so often, one write an item.
USES_S: Final = 1.0


@dataclass(frozen=True)
class Writable:
    """An entry as it is written: by level its latents, uses, and the requests that left them."""

    entry_id: str
    tenant: str
    isolation: str
    fingerprint: str
    embedding: Embedding
    latents: Mapping[int, Latents]
    hits: Mapping[int, int]
    origins: Mapping[int, str]


@dataclass
class DiskCounts:
    """Since the start: files that were not whole, entries that were not written for want of time, and by
    failing writes.
    """

    corrupt: int = 0
    unwritten: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Job:
    """What to write: a held entry by name, or one that is nowhere else."""

    entry_id: str
    entry: Writable | None = None
    done: Future[bool] = field(default_factory=Future)


class Owner(Protocol):
    """What the tier asks of its shard and tells it; called without the tier's lock."""

    def writable(self, entry_id: str) -> Writable | None:
        """The entry's latents in memory; None if none are left."""

    def may_hold(self, entry: Writable, levels: tuple[int, ...]) -> bool:
        """Whether there is memory for the book-keeping of levels on disk; kept for it from now on."""

    def held(self, entry: Writable, levels: tuple[int, ...]) -> None:
        """Levels of an entry are durable."""

    def gone(self, entry_id: str, levels: tuple[int, ...]) -> None:
        """Levels of an entry are not, or no longer, on disk."""


class DiskTier:
    """Thread-safe. `start` begins the writer."""

    def __init__(self, folder: LatentFolder, capacity_bytes: int) -> None:
        """`capacity_bytes` bounds all that the folder takes of the disk."""
        self.capacity_bytes = capacity_bytes
        self.counts = DiskCounts()
        self._folder = folder
        self._policy: EvictionPolicy = LcbfuPolicy(max(0, capacity_bytes - folder.own_bytes))
        self._lock = threading.Lock()
        # Held while files come into being, so that what is dropped is not half there.
        self._writing = threading.RLock()
        self._queue: queue.Queue[_Job | None] = queue.Queue(QUEUE_ENTRIES)
        self._used: set[Key] = set()
        self._owner: Owner
        self._thread: threading.Thread | None = None

    @property
    def quiet(self) -> threading.RLock:
        """Held, nothing is written."""
        return self._writing

    @property
    def used_bytes(self) -> int:
        """Bytes of the disk that are taken; never above the bound."""
        with self._lock:
            own = min(self._folder.own_bytes, self.capacity_bytes)
            return own + self._policy.used_bytes

    def open(self, owner: Owner, wanted: Callable[[Stored], bool]) -> list[Stored]:
        """What lies in the folder, oldest first.

        Files that are not whole, not `wanted`, or above the bound are removed.
        """
        self._owner = owner
        found: list[tuple[Stored, int]] = []
        for stored, size in self._folder.scan():
            if stored is None:
                self.counts.corrupt += 1
            elif wanted(stored):
                found.append((stored, size))
            else:
                self._folder.remove((stored.entry_id, stored.level))
        found.sort(key=lambda f: (f[0].written_ns, f[0].level))
        gone: set[Key] = set()
        for stored, size in found:
            admission = self._policy.admit(
                stored.entry_id, 0, {stored.level: size}, {stored.level: stored.hits}
            )
            gone.update(admission.evicted)
            if not admission.admitted:
                gone.add((stored.entry_id, stored.level))
        for key in gone:
            self._folder.remove(key)
        return [s for s, _ in found if (s.entry_id, s.level) not in gone]

    def start(self) -> None:
        """Begins to write what is put."""
        self._thread = threading.Thread(target=self._run, name="cache-disk", daemon=True)
        self._thread.start()

    def put(self, entry_id: str) -> bool:
        """Has an entry written soon; False, and counted, if too many wait. Never waits."""
        try:
            self._queue.put_nowait(_Job(entry_id))
        except queue.Full:
            with self._lock:
                self.counts.unwritten += 1
            return False
        return True

    def write(self, entry: Writable, timeout_s: float) -> bool:
        """Writes an entry that is not in memory; whether all its levels are durable now."""
        job = _Job(entry.entry_id, entry)
        try:
            self._queue.put(job, timeout=timeout_s)
            return job.done.result(timeout_s)
        except (queue.Full, TimeoutError):
            return False

    def levels(self, entry_id: str) -> tuple[int, ...]:
        """Levels of an entry that are on disk, or are being written."""
        with self._lock:
            return self._policy.levels(entry_id)

    def hits(self, entry_id: str) -> dict[int, int]:
        """Uses of an entry by level on disk."""
        with self._lock:
            return self._policy.hits(entry_id)

    def hit(self, entry_id: str, level: int) -> None:
        """Counts a use, written a little later."""
        with self._lock:
            if level in self._policy.levels(entry_id):
                self._policy.hit(entry_id, level)
                self._used.add((entry_id, level))

    def read(self, entry_id: str, level: int) -> Latents | None:
        """A level's latents; None if it is gone. One that is not whole is dropped, counted and None."""
        key = (entry_id, level)
        try:
            latents = self._folder.read(key)
        except (CorruptError, OSError) as error:
            with self._lock:
                self.counts.corrupt += 1
            told = {"entry": entry_id, "level_k": level, "reason": str(error)}
            logger.error("cache_file_dropped", extra=told)
            latents = None
        if latents is None:
            self.drop(entry_id, (level,))
        return latents

    def drop(self, entry_id: str, levels: tuple[int, ...]) -> None:
        """Removes levels of an entry."""
        with self._writing:
            for level in levels:
                self._remove((entry_id, level))
                with self._lock:
                    self._policy.drop(entry_id, level)
            self._owner.gone(entry_id, levels)

    def make_way(self, protected: str) -> bool:
        """Removes the item that is worth the least, other than `protected`'s; False if there is none."""
        with self._lock:
            victim = self._policy.evict(protected)
        if victim is None:
            return False
        self._remove(victim)
        self._owner.gone(victim.entry_id, (victim.level,))
        return True

    def flush(self, timeout_s: float) -> bool:
        """Waits until all that was put before is written, or given up; False if that takes longer."""
        marker = _Job("")
        try:
            self._queue.put(marker, timeout=timeout_s)
            return marker.done.result(timeout_s)
        except (queue.Full, TimeoutError):
            return False

    def close(self, timeout_s: float) -> None:
        """Writes what waits, as far as there is time, and lets go of the folder."""
        if self._thread is not None:
            self.flush(timeout_s)
            try:
                self._queue.put(None, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return
        self._folder.close()

    def _run(self) -> None:
        next_uses = time.monotonic() + USES_S
        while True:
            try:
                job = self._queue.get(timeout=max(0.01, next_uses - time.monotonic()))
            except queue.Empty:
                job = _Job("")
            if job is None:
                self._write_uses()
                return
            try:
                job.done.set_result(self._serve(job) if job.entry_id else True)
            except Exception:
                logger.exception("an entry was not written")
                job.done.set_result(False)
            if time.monotonic() >= next_uses:
                self._write_uses()
                next_uses = time.monotonic() + USES_S

    def _serve(self, job: _Job) -> bool:
        with self._writing:
            entry = job.entry or self._owner.writable(job.entry_id)
            if entry is not None:
                return self._write(entry)
        with self._lock:
            self.counts.unwritten += 1
        return False

    def _write(self, entry: Writable) -> bool:
        there = self.levels(entry.entry_id)
        levels = tuple(level for level in sorted(entry.latents) if level not in there)
        if not levels:
            return True
        now = time.time_ns()
        files = {
            level: encode(_stored(entry, level, now), entry.latents[level]) for level in levels
        }
        charges = {level: self._folder.charge(len(data)) for level, data in files.items()}
        if not self._owner.may_hold(entry, levels) or not self._admit(entry, charges):
            self._owner.gone(entry.entry_id, levels)
            with self._lock:
                self.counts.unwritten += 1
            return False
        try:
            taken = self._folder.write([((entry.entry_id, lv), data) for lv, data in files.items()])
        except OSError as error:
            with self._lock:
                self.counts.failed += 1
                for level in levels:
                    self._policy.drop(entry.entry_id, level)
            self._owner.gone(entry.entry_id, levels)
            told = {"entry": entry.entry_id, "reason": str(error)}
            logger.error("cache_write_failed", extra=told)
            return False
        self._owner.held(entry, levels)
        more = {lv: size for lv, size in zip(levels, taken, strict=True) if size > charges[lv]}
        if more and not self._admit(entry, more):
            self.drop(entry.entry_id, levels)
            return False
        return True

    def _admit(self, entry: Writable, sizes: Mapping[int, int]) -> bool:
        """Makes room on the disk, before anything is written."""
        with self._lock:
            admission = self._policy.admit(entry.entry_id, 0, sizes, entry.hits)
        for item in admission.evicted:
            self._remove(item)
            self._owner.gone(item.entry_id, (item.level,))
        return admission.admitted

    def _remove(self, item: Item | Key) -> None:
        try:
            self._folder.remove((item[0], item[1]))
        except OSError as error:
            told = {"entry": item[0], "reason": str(error)}
            logger.error("cache_file_not_removed", extra=told)

    def _write_uses(self) -> None:
        with self._lock:
            used, self._used = self._used, set()
            hits = {key: self._policy.hits(key[0]).get(key[1], 0) for key in used}
        for key, number in hits.items():
            try:
                self._folder.set_hits(key, number)
            except OSError as error:
                logger.error("cache_uses_not_written", extra={"reason": str(error)})
                return


def _stored(entry: Writable, level: int, now_ns: int) -> Stored:
    return Stored(
        entry_id=entry.entry_id,
        level=level,
        tenant=entry.tenant,
        isolation=entry.isolation,
        fingerprint=entry.fingerprint,
        origin=entry.origins.get(level, ""),
        written_ns=now_ns,
        hits=entry.hits.get(level, 0),
        embedding=entry.embedding,
    )
