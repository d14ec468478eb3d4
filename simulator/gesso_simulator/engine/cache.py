"""The cache of a simulated fleet: a shard on each worker that fills and evicts as the live one does.

Policy of eviction, sizes and what counts as the same prompt are `gesso_worker.cache.policy`'s. Of an entry only
book-keeping and the prompt's embedding are held, no latents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gesso_router.routing.baselines.nirvana import tolerated_k
from gesso_router.routing.quality import Match
from gesso_router.settings import RouterSettings
from gesso_worker.cache.policy import (
    DUPLICATE,
    ITEM_OVERHEAD_BYTES,
    POLICIES,
    EvictionPolicy,
    entry_bytes,
)

F32 = NDArray[np.float32]

_FIRST_ROWS = 256


#: The live cache's.
LCBFU = "LCBFU"


def eviction_policy(name: str) -> type[EvictionPolicy]:
    """By its name. Raises ValueError on another than there are."""
    if name not in POLICIES:
        raise ValueError(f"eviction: {name!r} is not allowed: one of {', '.join(POLICIES)}")
    return POLICIES[name]


class SimulatedCache:
    """A `gesso_simulator.scenarios.spec.CacheModel` over given embeddings; all prompts are one tenant's.

    Equal calls in equal order give equal answers.
    """

    def __init__(
        self,
        vectors: F32,
        ladder: tuple[int, ...],
        steps: int,
        capacity_bytes: int,
        latent_bytes: int,
        lookup_limit: int = RouterSettings.lookup_limit,
        eviction: str = LCBFU,
    ) -> None:
        """Empty. `vectors` (p, d) are the prompts' unit vectors; prompt p + i is prompt i asked again.

        `capacity_bytes` is that of each worker, `latent_bytes` the size of one latent, `lookup_limit` the most
        entries that a shard answers with, `eviction` one of `POLICIES`. Raises ValueError on vectors not of
        length 1 and numbers out of range.
        """
        lengths = np.linalg.norm(vectors, axis=1) if vectors.ndim == 2 else np.zeros(1)
        if not len(lengths) or not np.allclose(lengths, 1.0, atol=1e-3):
            raise ValueError(
                f"vectors: shape {vectors.shape} is not allowed: unit vectors, one a prompt"
            )
        if latent_bytes < 1:
            raise ValueError(f"latent_bytes: {latent_bytes} is not allowed: 1 or more")
        if lookup_limit < 1:
            raise ValueError(f"lookup_limit: {lookup_limit} is not allowed: 1 or more")
        eviction_policy(eviction)(capacity_bytes)
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self._ladder = ladder
        self._steps = steps
        self._capacity = capacity_bytes
        self._latent_bytes = latent_bytes
        self._limit = lookup_limit
        self._eviction = eviction
        self._shards: dict[str, _Shard] = {}
        self._next = 0
        self._lookups = self._found = self._near = 0
        self._similarity = 0.0
        self._images = self._used = 0
        self._evictions = 0

    def lookup(self, prompt: int, now_s: float) -> tuple[Match, ...]:
        """See CacheModel. As the live router gets them: the nearest few of every shard, best first."""
        query = self._vectors[prompt % len(self._vectors)]
        matches = [m for shard in self._shards.values() for m in shard.nearest(query, self._limit)]
        matches.sort(key=lambda m: -m.similarity)
        self._lookups += 1
        if matches:
            self._found += 1
            self._similarity += matches[0].similarity
            self._near += any(
                m.held_levels[0] <= tolerated_k(m.similarity, self._steps) for m in matches
            )
        return tuple(matches)

    def served(
        self,
        prompt: int,
        skipped_steps: int,
        worker: str,
        now_s: float,
        match: Match | None,
        keep: bool,
    ) -> None:
        """See CacheModel."""
        self._images += 1
        if match is not None:
            self._used += 1
            if match.worker in self._shards:
                self._shards[match.worker].policy.hit(match.entry_id, skipped_steps)
        size = self._latent_bytes + ITEM_OVERHEAD_BYTES
        kept = dict.fromkeys([k for k in self._ladder if k > skipped_steps], size)
        if not keep or not kept:
            return
        shard = self._shards.get(worker)
        if shard is None:
            shard = _Shard(worker, self._capacity, self._vectors.shape[1], self._eviction)
            self._shards[worker] = shard
        vector = self._vectors[prompt % len(self._vectors)]
        self._evictions += shard.insert(f"{worker}-{self._next}", vector, kept)
        self._next += 1

    def lost(self, worker: str, now_s: float) -> None:
        """See CacheModel."""
        self._shards.pop(worker, None)

    def entries(self, worker: str) -> dict[str, tuple[int, ...]]:
        """Levels held by entry on a worker, in no order that means anything."""
        shard = self._shards.get(worker)
        return {e: shard.policy.levels(e) for e in shard.ids} if shard else {}

    def used_bytes(self, worker: str) -> int:
        """Bytes that a worker's shard would take, book-keeping included; never above its capacity."""
        return self._shards[worker].policy.used_bytes if worker in self._shards else 0

    def figures(self) -> dict[str, float]:
        """What became of the cache so far.

        `cache_hit_ratio`: share of look-ups that found an entry held at a level that NIRVANA's thresholds let
        the prompt start from; `cache_used_ratio`: share of images that did start from one;
        `cache_mean_similarity` of the nearest entry, over look-ups that found any; `cache_entries` held now,
        all workers together; `cache_evictions`: latents that had to make room. Means over nothing are 0.
        """
        return {
            "cache_hit_ratio": self._near / max(1, self._lookups),
            "cache_used_ratio": self._used / max(1, self._images),
            "cache_mean_similarity": self._similarity / max(1, self._found),
            "cache_entries": float(sum(len(shard.ids) for shard in self._shards.values())),
            "cache_evictions": float(self._evictions),
        }


class _Shard:
    """One worker's entries: vectors in the first rows of a matrix, always without a gap."""

    def __init__(self, worker: str, capacity_bytes: int, size: int, eviction: str) -> None:
        self.policy = eviction_policy(eviction)(capacity_bytes)
        self.ids: list[str] = []
        self._worker = worker
        self._row: dict[str, int] = {}
        self._matrix = np.zeros((_FIRST_ROWS, size), dtype=np.float32)

    def nearest(self, query: F32, limit: int) -> list[Match]:
        """The entries with the largest cosine, best first, the lower row among equals."""
        count = len(self.ids)
        cosine = self._matrix[:count] @ query
        found = []
        for _ in range(min(limit, count)):
            row = int(cosine.argmax())
            entry_id = self.ids[row]
            found.append(
                Match(
                    entry_id,
                    self._worker,
                    min(1.0, float(cosine[row])),
                    self.policy.levels(entry_id),
                    self._matrix[row].copy(),
                )
            )
            cosine[row] = -np.inf
        return found

    def insert(self, entry_id: str, vector: F32, sizes: dict[int, int]) -> int:
        """Keeps latents of these sizes by level, under the entry of the same prompt if one is held.

        Gives the number of latents evicted for it.
        """
        nearest = self.nearest(vector, 1)
        known = bool(nearest) and nearest[0].similarity > DUPLICATE
        name = nearest[0].entry_id if known else entry_id
        admission = self.policy.admit(name, entry_bytes(len(vector)), sizes)
        for item in admission.evicted:
            if item.entry_id in self._row and not self.policy.levels(item.entry_id):
                self._remove(item.entry_id)
        if admission.admitted and not known:
            self._add(name, vector)
        return len(admission.evicted)

    def _add(self, entry_id: str, vector: F32) -> None:
        row = len(self.ids)
        if row == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
        self._matrix[row] = vector
        self._row[entry_id] = row
        self.ids.append(entry_id)

    def _remove(self, entry_id: str) -> None:
        """The last row moves into the gap."""
        row, last = self._row.pop(entry_id), self.ids.pop()
        if last != entry_id:
            self.ids[row] = last
            self._row[last] = row
            self._matrix[row] = self._matrix[len(self.ids)]
