"""Entries, and shards with a disk, for the cache's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gesso_worker.cache.disk import DiskTier
from gesso_worker.cache.folder import LatentFolder
from gesso_worker.cache.shard import Shard

SIZE = 16
PRINT = "weights-1"
SHAPE = (1, 4, 8, 8)
LEVELS = (5, 10, 15)


def vector(seed: int, size: int = SIZE) -> np.ndarray:
    """A unit vector."""
    v = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    return v / np.linalg.norm(v)


def latents(seed: int, levels: tuple[int, ...] = LEVELS) -> dict[int, np.ndarray]:
    """Latents that are unlike those of any other seed and level."""
    return {
        level: np.random.default_rng([seed, level]).standard_normal(SHAPE).astype(np.float32)
        for level in levels
    }


def disk_shard(
    path: Path, memory: int = 1 << 22, disk: int = 1 << 26, shared: bool = False, **more: str
) -> Shard:
    """A shard on a folder; what lies there under PRINT is held."""
    tier = DiskTier(LatentFolder(path), disk)
    return Shard("worker-0", memory, shared, tier, more.get("fingerprint", PRINT))


def flush(shard: Shard) -> None:
    """Waits until everything is durable."""
    assert shard._disk is not None
    assert shard._disk.flush(20)


def taken(path: Path) -> int:
    """Bytes of the disk that a folder takes, itself included."""
    size = path.stat().st_blocks * 512
    for found in path.rglob("*"):
        try:
            size += found.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return size


def fill(shard: Shard, seeds: range, tenant: str = "t") -> list[str]:
    """Ids of entries that are there, and on disk."""
    ids = []
    for seed in seeds:
        entry = shard.insert(tenant, PRINT, vector(seed), latents(seed), origin=f"r{seed}")
        assert entry is not None
        ids.append(entry)
        flush(shard)
    return ids


def reopened(shard: Shard, path: Path, **more: int) -> Shard:
    """The shard that finds what another one left."""
    shard.close(20)
    return disk_shard(path, **more)
