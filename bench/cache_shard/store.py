"""The tier on disk: writing entries and opening a folder again, against other ways to lay out files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gesso_worker.cache.disk import DiskTier
from gesso_worker.cache.folder import LatentFolder
from gesso_worker.cache.latent_file import Stored, encode
from gesso_worker.cache.shard import Shard

LEVELS = (5, 10, 15, 20, 25)
PRINT = "bench"


def figures(folder: Path, entries: int, shape: Sequence[int]) -> dict[str, Any]:
    """Milliseconds of an entry of five levels, durable; and of opening what was written."""
    rng = np.random.default_rng(0)
    latents = {level: rng.standard_normal(shape).astype(np.float16) for level in LEVELS}
    rows = rng.standard_normal((entries, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    tier = DiskTier(LatentFolder(folder / "ours"), 1 << 40)
    shard = Shard("bench", 1 << 34, disk=tier, fingerprint=PRINT)
    inserts = []
    began = time.perf_counter()
    for row in rows:
        at = time.perf_counter()
        shard.insert("", PRINT, row, latents)
        inserts.append(time.perf_counter() - at)
        if len(inserts) % 128 == 0:  # the queue's bound
            tier.flush(600)
    tier.flush(600)
    written_s = time.perf_counter() - began
    shard.close(60)
    began, began_cpu = time.perf_counter(), time.process_time()
    tier = DiskTier(LatentFolder(folder / "ours"), 1 << 40)
    again = Shard("bench", 1 << 34, disk=tier, fingerprint=PRINT)
    opened_s = time.perf_counter() - began
    opened_cpu_s = time.process_time() - began_cpu
    assert again.stats().entries == entries
    (match,) = again.lookup("", PRINT, rows[3])
    began = time.perf_counter()
    held = again.fetch("", match.entry_id, 25)
    first_read_s = time.perf_counter() - began
    assert held is not None
    again.close(60)
    stored = Stored("bench-0", 5, "", "Tenant", PRINT, "", 0, 0, rows[0])
    blob = encode(stored, latents[5])
    few = min(entries, 200)
    return {
        "entries": entries,
        "latent_bytes": latents[5].nbytes,
        "insert_p99_ms": float(np.percentile(inserts, 99) * 1e3),
        "write_ms_an_entry": written_s / entries * 1e3,
        "opened_s": opened_s,
        "opened_us_a_file": opened_s / entries / len(LEVELS) * 1e6,
        "opened_cpu_us_a_file": opened_cpu_s / entries / len(LEVELS) * 1e6,
        "first_read_ms": first_read_s * 1e3,
        "disk_bytes_over_latents": tier.used_bytes / (entries * len(LEVELS) * latents[5].nbytes),
        "instead_file_an_entry_ms": _files(folder / "entry", blob * len(LEVELS), few),
        "instead_segment_log_ms": _log(folder / "log", blob * len(LEVELS), few),
        "instead_file_a_latent_synced_singly_ms": len(LEVELS)
        * _files(folder / "single", blob, few),
    }


def _files(folder: Path, data: bytes, count: int) -> float:
    """Milliseconds to write a file durably: write, sync, rename, sync the folder."""
    folder.mkdir(parents=True)
    directory = os.open(folder, os.O_RDONLY)
    began = time.perf_counter()
    for number in range(count):
        path = folder / f"{number}.tmp"
        with path.open("wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        path.rename(folder / f"{number}")
        os.fsync(directory)
    spent_s = time.perf_counter() - began
    os.close(directory)
    return spent_s / count * 1e3


def _log(file: Path, data: bytes, count: int) -> float:
    """Milliseconds to append durably; room would be got back by copying what is left."""
    began = time.perf_counter()
    with file.open("wb", buffering=0) as log:
        for _ in range(count):
            log.write(data)
            os.fsync(log.fileno())
    return (time.perf_counter() - began) / count * 1e3
