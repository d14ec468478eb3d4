"""What this worker knows of others' entries: embeddings and levels by worker, within a byte bound; no latents.

A hint, never the truth: an entry may be gone by the time it is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gesso.placement import Placement
from gesso_worker.cache.directory import Directory, Partition
from gesso_worker.cache.latent_file import Embedding
from gesso_worker.cache.policy import entry_bytes
from gesso_worker.cache.records import Match, Post

Key = tuple[str, str]


@dataclass(slots=True)
class _Signpost:
    number: int
    partition: Partition
    levels: tuple[int, ...]


class Signposts:
    """Thread-safe. Beyond the bound the oldest go."""

    def __init__(
        self,
        capacity_bytes: int,
        shared: bool = False,
        reserve: Callable[[int], bool] = lambda size: True,
    ) -> None:
        """`shared`: all tenants are one. `reserve` accounts for the bytes in use, and says whether it can."""
        self.capacity_bytes = capacity_bytes
        self._reserve = reserve
        self._shared = shared
        self._lock = threading.RLock()
        self._directory = Directory(self._lock)
        self._held: OrderedDict[Key, _Signpost] = OrderedDict()
        self._used = 0
        self._next = 0
        self._keys: dict[str, Key] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    @property
    def used_bytes(self) -> int:
        """Bytes of memory; never above the bound."""
        with self._lock:
            return self._used

    def keep(self, worker: str, fingerprint: str, posts: Sequence[Post]) -> int:
        """Takes what a worker tells of its entries; one without levels is forgotten. How many are kept.

        Raises ValueError on an embedding of another size.
        """
        kept = 0
        with self._lock:
            for post in posts:
                key = (worker, post.entry_id)
                held = self._held.get(key)
                if held is not None and post.held_levels:
                    held.levels = post.held_levels
                    kept += 1
                    continue
                if held is not None:
                    self._forget(key)
                if post.held_levels:
                    kept += self._add(key, fingerprint, post)
        return kept

    def lookup(
        self, tenant: str, fingerprint: str, embedding: Embedding, limit: int
    ) -> tuple[Match, ...]:
        """The nearest entries of other workers, best first. Raises ValueError on another size."""
        partition = ("" if self._shared else tenant, fingerprint)
        with self._lock:
            found = []
            for name, number, similarity in self._directory.nearest(partition, embedding, limit):
                worker, entry_id = self._keys[name]
                found.append(
                    Match(
                        entry_id,
                        similarity,
                        self._held[worker, entry_id].levels,
                        self._directory.embedding(partition, number),
                        worker,
                    )
                )
            return tuple(found)

    def prune(self, placement: Placement, name: str) -> None:
        """Forgets what `name`, this worker, does not answer for, and entries of workers that are gone.

        Takes the lock for one entry at a time.
        """
        with self._lock:
            keys = list(self._held)
        for key in keys:
            with self._lock:
                held = self._held.get(key)
                if held is None:
                    continue
                embedding = self._directory.embedding(held.partition, held.number)
                if key[0] not in placement.workers or name not in targets(
                    placement, key[0], embedding
                ):
                    self._forget(key)

    def _add(self, key: Key, fingerprint: str, post: Post) -> bool:
        size = entry_bytes(post.embedding.size)
        if size > self.capacity_bytes:
            return False
        while self._held and self._used + size > self.capacity_bytes:
            self._forget(next(iter(self._held)))
        if not self._reserve(self._used + size):
            return False
        partition = ("" if self._shared else post.tenant, fingerprint)
        name = str(self._next)
        number = self._directory.add(partition, name, post.embedding)
        self._next += 1
        self._keys[name] = key
        self._held[key] = _Signpost(number, partition, post.held_levels)
        self._used += size
        return True

    def _forget(self, key: Key) -> None:
        held = self._held.pop(key)
        self._used -= entry_bytes(self._directory.dimensions(held.partition))
        del self._keys[self._directory.name(held.number)]
        self._directory.remove(held.partition, held.number)
        self._reserve(self._used)


def targets(placement: Placement, holder: str, embedding: Embedding) -> tuple[str, ...]:
    """Who is told of an entry that `holder` has; none where the codebook is for embeddings of another size."""
    if embedding.size != placement.codebook.dimensions:
        return ()
    nearest = placement.nearest(embedding, placement.copies)
    return tuple(name for name in nearest if name != holder)
