"""Latents on disk where files, disk or process fail: durable once acknowledged, never other than written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from cache_kit import LEVELS, PRINT, disk_shard, fill, flush, latents, reopened, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso_worker.cache import disk as disk_module
from gesso_worker.cache.folder import FolderError, LatentFolder
from gesso_worker.cache.shard import Shard


def corrupt(path: Path, level: int) -> None:
    (file,) = path.rglob(f"*.{level}.safetensors")
    data = bytearray(file.read_bytes())
    data[-7] ^= 4
    file.write_bytes(data)


def test_a_flipped_latent_is_dropped_counted_and_the_next_level_taken(path: Path) -> None:
    shard = disk_shard(path)
    (entry,) = fill(shard, range(1))
    shard = reopened(shard, path)
    corrupt(path, 15)
    held = shard.fetch("t", entry, 15)
    assert held is not None
    assert held.level == 10
    assert shard.stats().disk_corrupt == 1
    assert shard.lookup("t", PRINT, vector(0))[0].held_levels == (5, 10)
    assert not list(path.rglob("*.15.safetensors"))
    for level in (5, 10):
        corrupt(path, level)
    shard = reopened(shard, path)
    assert shard.fetch("t", entry, 15) is None
    assert shard.lookup("t", PRINT, vector(0)) == ()
    assert shard.stats().entries == 0
    shard.close(20)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_happens_to_a_file_its_latents_are_right_or_gone(data: st.DataObject) -> None:
    with TemporaryDirectory() as made:
        shard = disk_shard(Path(made))
        (entry,) = fill(shard, range(1))
        shard.close(20)
        files = sorted(Path(made).rglob("*.safetensors"))
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] ^= data.draw(st.integers(1, 255))
        else:
            content = content[:at]
        file.write_bytes(content)
        shard = disk_shard(Path(made))
        found = {}
        for level in LEVELS:
            held = shard.fetch("t", entry, level)
            if held is not None:
                found[held.level] = held.latents
        assert len(found) == len(LEVELS) - 1
        assert all(np.array_equal(a, latents(0)[level]) for level, a in found.items())
        assert shard.stats().disk_corrupt == 1
        shard.close(20)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cache_kit import PRINT, disk_shard, latents, vector
shard = disk_shard(Path(sys.argv[1]))
told = shard.held
def held(entry, levels):
    told(entry, levels)
    # One write, so that a line is whole or not there.
    sys.stdout.write(f"{entry.entry_id} {','.join(map(str, levels))}\\n")
    sys.stdout.flush()
shard.held = held
print("begun", flush=True)
for seed in range(100_000):
    shard.insert("t", PRINT, vector(seed), latents(seed))
    if seed % 50 == 49:
        shard._disk.flush(60)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_what_was_acknowledged_survives_a_kill(path: Path, attempt: int) -> None:
    command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        time.sleep(random.Random(attempt).uniform(0.2, 0.7))
        writer.send_signal(signal.SIGKILL)
        lines = writer.stdout.read().splitlines()
    acknowledged = dict(line.split() for line in lines)
    assert acknowledged, "killed before anything was written"
    shard = disk_shard(path)
    assert shard.stats().disk_corrupt == 0
    for entry, levels in acknowledged.items():
        seed = int(entry.rsplit("-", 1)[1])
        for level in map(int, levels.split(",")):
            held = shard.fetch("t", entry, level)
            assert held is not None
            assert held.level == level
            assert np.array_equal(held.latents, latents(seed)[level])
            assert shard.lookup("t", PRINT, vector(seed))[0].entry_id == entry
    assert not list(path.rglob("*.tmp"))
    shard.close(20)


def test_a_full_queue_costs_durability_and_is_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_module, "QUEUE_ENTRIES", 2)
    shard = disk_shard(path)
    gate, write = threading.Event(), LatentFolder.write

    def held_up(self: LatentFolder, files: object) -> list[int]:
        gate.wait(20)
        return write(self, files)

    monkeypatch.setattr(LatentFolder, "write", held_up)
    began = time.monotonic()
    ids = [shard.insert("t", PRINT, vector(s), latents(s)) for s in range(10)]
    assert time.monotonic() - began < 5, "an insert waited for the disk"
    assert None not in ids
    assert all(shard.fetch("t", str(i), 15, wait=False) is not None for i in ids)
    gate.set()
    flush(shard)
    assert 7 <= shard.stats().disk_unwritten <= 8
    shard = reopened(shard, path)
    assert shard.stats().entries == 10 - shard_unwritten(ids, shard)
    shard.close(20)


def shard_unwritten(ids: list[str | None], shard: Shard) -> int:
    return sum(shard.fetch("t", str(i), 15) is None for i in ids)


def test_a_disk_that_fails_costs_durability_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = disk_shard(path)
    (first,) = fill(shard, range(1))

    def full(file: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        (second,) = fill(shard, range(1, 2))
    assert shard.stats().disk_failed == 1
    assert shard.fetch("t", second, 15) is not None
    assert not list(path.rglob("*.tmp"))
    (third,) = fill(shard, range(2, 3))
    shard = reopened(shard, path)
    found = [shard.fetch("t", i, 15) is not None for i in (first, second, third)]
    assert found == [True, False, True]
    shard.close(20)


def test_a_folder_is_one_workers_at_a_time(path: Path) -> None:
    shard = disk_shard(path)
    with pytest.raises(FolderError, match="another worker is using it"):
        disk_shard(path)
    shard.close(20)
    disk_shard(path).close(20)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="Not a directory"):
        LatentFolder(tmp_path / "file" / "cache")
