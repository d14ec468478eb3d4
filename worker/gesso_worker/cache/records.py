"""What a shard gives out, takes in and tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gesso_worker.cache.latent_file import Embedding, Latents
from gesso_worker.cache.policy import ITEM_OVERHEAD_BYTES, entry_bytes


@dataclass(frozen=True)
class Match:
    """A cached prompt near the one asked for; `held_levels` ascending, never empty; its embedding, (d,).

    `worker` has it; empty: this one.
    """

    entry_id: str
    similarity: float
    held_levels: tuple[int, ...]
    embedding: Embedding = field(compare=False, repr=False)
    worker: str = ""


@dataclass(frozen=True)
class HeldLatents:
    """The latent (1, C, H, W) of an entry before step `level`."""

    level: int
    latents: Latents
    fingerprint: str


@dataclass(frozen=True)
class Portable:
    """An entry as it goes from shard to shard: by level its latents, uses, and the requests that left them."""

    tenant: str
    embedding: Embedding
    latents: Mapping[int, Latents]
    hits: Mapping[int, int]
    origins: Mapping[int, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that it takes of a shard."""
        latents = sum(a.nbytes + ITEM_OVERHEAD_BYTES for a in self.latents.values())
        return latents + entry_bytes(self.embedding.size)


@dataclass(frozen=True)
class ShardStats:
    """`used_bytes` counts embeddings, latents and their book-keeping; it never exceeds `capacity_bytes`.

    The same for the disk, all 0 without one. `disk_corrupt` files were not whole, and dropped; `disk_unwritten`
    entries stayed in memory only, for want of time or room, `disk_failed` since writing failed.
    """

    entries: int
    used_bytes: int
    capacity_bytes: int
    disk_used_bytes: int = 0
    disk_capacity_bytes: int = 0
    disk_corrupt: int = 0
    disk_unwritten: int = 0
    disk_failed: int = 0


@dataclass(frozen=True)
class Post:
    """What others need to know of an entry to find it: whose it is, its embedding (d,), and its levels."""

    entry_id: str
    tenant: str
    embedding: Embedding
    held_levels: tuple[int, ...]
