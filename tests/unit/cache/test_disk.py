"""Latents on disk: there again after a restart, within both bounds, gone when they are withdrawn."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from cache_kit import LEVELS, PRINT, disk_shard, fill, flush, latents, reopened, taken, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso_worker.cache.folder import LatentFolder
from gesso_worker.cache.policy import ITEM_OVERHEAD_BYTES, entry_bytes
from gesso_worker.cache.records import Portable

FILE = 4096 + 512


def test_a_restart_on_the_same_folder_is_warm(path: Path) -> None:
    shard = disk_shard(path)
    ids = fill(shard, range(4))
    for _ in range(3):
        assert shard.fetch("t", ids[2], 12) is not None
    before = shard.ranked(PRINT)
    shard = reopened(shard, path)
    assert shard.stats().entries == 4
    assert shard.ranked(PRINT)[0] == before[0] == ids[2]
    for seed, entry in enumerate(ids):
        (match,) = shard.lookup("t", PRINT, vector(seed))
        assert (match.entry_id, match.held_levels) == (entry, LEVELS)
        for level in LEVELS:
            held = shard.fetch("t", entry, level)
            assert held is not None
            assert np.array_equal(held.latents, latents(seed)[level])
    again = shard.portable(ids[2])
    assert again is not None
    assert again.hits[10] == 4
    shard.close(20)


def test_new_ids_do_not_name_what_lies_there(path: Path) -> None:
    shard = disk_shard(path)
    old = fill(shard, range(3))
    shard = reopened(shard, path)
    assert not set(old) & set(fill(shard, range(10, 13)))
    shard.close(20)


@pytest.mark.parametrize(
    "change", [{"fingerprint": "weights-2"}, {"shared": True}], ids=["fingerprint", "isolation"]
)
def test_what_may_not_be_used_any_more_is_removed(path: Path, change: dict) -> None:
    shard = disk_shard(path)
    fill(shard, range(3))
    shard.close(20)
    shard = disk_shard(path, **change)
    assert shard.stats().entries == 0
    assert not list(path.rglob("*.safetensors"))
    shard.close(20)


def test_what_memory_has_no_room_for_is_served_from_disk(path: Path) -> None:
    memory = 42_000
    shard = disk_shard(path, memory=memory)
    ids = fill(shard, range(6))
    assert sum(len(e.latents) for e in shard._table._entries.values()) < 6 * len(LEVELS)
    for seed, entry in enumerate(ids):
        assert shard.lookup("t", PRINT, vector(seed))[0].held_levels == LEVELS
        held = shard.fetch("t", entry, 15)
        assert held is not None
        assert np.array_equal(held.latents, latents(seed)[15])
        assert shard.fetch("t", entry, 15, wait=False) is not None, "not kept in memory"
        assert shard.stats().used_bytes <= memory
    shard.close(20)


def test_without_waiting_only_memory_answers(path: Path) -> None:
    shard = disk_shard(path)
    (entry,) = fill(shard, range(1))
    shard = reopened(shard, path)
    assert shard.fetch("t", entry, 15, wait=False) is None
    assert shard.fetch("t", entry, 15) is not None
    shard.close(20)


def test_both_bounds_hold_at_every_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, disk = 40_000, 64 * 4096 + 20 * FILE
    shard = disk_shard(path, memory, disk)
    most, write = [0], LatentFolder.write

    def watched(self: LatentFolder, files: Any) -> list[int]:
        sizes = write(self, files)
        most.append(taken(path))
        return sizes

    monkeypatch.setattr(LatentFolder, "write", watched)
    for seed in range(60):
        shard.insert("t", PRINT, vector(seed), latents(seed))
        if seed % 4 == 0:
            flush(shard)
        stats = shard.stats()
        assert stats.used_bytes <= memory
        assert stats.disk_used_bytes <= disk
    flush(shard)
    files = list(path.rglob("*.safetensors"))
    assert 15 <= len(files) <= 20
    assert len(most) > 15
    assert max(most) <= disk
    shard = reopened(shard, path, memory=memory, disk=disk)
    assert len(list(path.rglob("*.safetensors"))) == len(files)
    shard = reopened(shard, path, memory=memory, disk=64 * 4096 + 8 * FILE)
    assert 0 < len(list(path.rglob("*.safetensors"))) <= 8
    shard.close(20)


def test_the_book_keeping_of_what_is_on_disk_counts_as_memory(path: Path) -> None:
    entry = entry_bytes(16) + len(LEVELS) * ITEM_OVERHEAD_BYTES
    shard = disk_shard(path, memory=10 * entry)
    fill(shard, range(30))
    stats = shard.stats()
    assert stats.used_bytes <= 10 * entry
    assert 3 <= stats.entries <= 8
    assert shard._table.policy.pinned_bytes <= 5 * entry
    shard = reopened(shard, path, memory=4 * entry)
    assert shard.stats().used_bytes <= 4 * entry
    shard.close(20)


def test_reported_bytes_cover_the_memory_of_entries_on_disk(path: Path) -> None:
    shard = disk_shard(path, memory=1 << 24)
    for seed in range(200):
        shard.insert("tenant", PRINT, vector(seed), latents(seed))
        if seed % 50 == 49:
            flush(shard)
    shard.close(20)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        shard = disk_shard(path, memory=1 << 24)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # FAISS's own copy of the embeddings and its table of ids are not traced.
    assert grown + 200 * (4 * 16 + 64) <= shard.stats().used_bytes
    shard.close(20)


def test_what_a_request_left_can_be_withdrawn_from_everywhere(path: Path) -> None:
    shard = disk_shard(path)
    bad, good = fill(shard, range(2))
    assert shard.withdraw("r0") == len(LEVELS)
    assert shard.fetch("t", bad, 15) is None
    assert shard.lookup("t", PRINT, vector(0))[0].entry_id == good
    assert shard.insert("t", PRINT, vector(0), latents(0), origin="r0") is None
    portable = Portable("t", vector(0), latents(0), {}, dict.fromkeys(LEVELS, "r0"))
    assert not shard.store(PRINT, portable)
    shard = reopened(shard, path)
    assert shard.fetch("t", bad, 15) is None
    assert shard.fetch("t", good, 15) is not None
    assert shard.withdraw("r1") == len(LEVELS), "who left it is not known any more"
    shard.close(20)


@pytest.mark.parametrize("how", ["withdraw", "retract"])
def test_what_is_withdrawn_while_it_is_written_does_not_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    shard = disk_shard(path)
    begun, gate, write = threading.Event(), threading.Event(), LatentFolder.write

    def held_up(self: LatentFolder, files: object) -> list[int]:
        begun.set()
        gate.wait(20)
        return write(self, files)

    monkeypatch.setattr(LatentFolder, "write", held_up)
    entry = shard.insert("t", PRINT, vector(0), latents(0), origin="r0")
    assert begun.wait(20)
    threading.Timer(0.1, gate.set).start()
    assert getattr(shard, how)("r0") in (None, len(LEVELS))
    flush(shard)
    assert shard.fetch("t", str(entry), 15) is None
    assert not list(path.rglob("*.safetensors"))
    shard.close(20)


def test_another_shards_entry_goes_to_disk_where_memory_is_full(path: Path) -> None:
    shard = disk_shard(path, memory=90_000)
    ids = fill(shard, range(12))
    held = sum(len(shard._table._entries[i].latents) for i in ids)
    portable = Portable("t", vector(99), latents(99), {15: 3})
    assert shard.store(PRINT, portable)
    # Its book-keeping takes the room of three.
    assert held - 3 <= sum(len(shard._table._entries[i].latents) for i in ids)
    (match,) = shard.lookup("t", PRINT, vector(99))
    assert match.held_levels == LEVELS
    got = shard.fetch("t", match.entry_id, 15)
    assert got is not None
    assert np.array_equal(got.latents, latents(99)[15])
    again = shard.portable(match.entry_id)
    assert again is not None
    assert again.hits[15] == 4
    assert set(again.latents) == set(LEVELS)
    shard.close(20)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 7), st.sets(st.sampled_from(LEVELS))),
        st.tuples(st.just("fetch"), st.integers(0, 7), st.integers(0, 20)),
        st.tuples(st.just("withdraw"), st.integers(0, 7)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("reopen")),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(operations, st.integers(0, 60_000), st.integers(0, 30 * FILE))
def test_any_order_of_events_keeps_the_books(events: list[tuple], memory: int, disk: int) -> None:
    disk += 66 * 4096
    with TemporaryDirectory() as made:
        path = Path(made)
        shard = disk_shard(path, memory, disk)
        made_by: dict[int, set[int]] = {}
        withdrawn: set[int] = set()
        for event in events:
            if event[0] == "insert" and event[2]:
                seed, levels = event[1], tuple(event[2])
                kept = shard.insert("t", PRINT, vector(seed), latents(seed, levels), f"r{seed}")
                assert kept is None or seed not in withdrawn
                made_by.setdefault(seed, set()).update(levels)
            elif event[0] == "fetch":
                for match in shard.lookup("t", PRINT, vector(event[1]), 1):
                    held = shard.fetch("t", match.entry_id, event[2])
                    if held is None or match.similarity < 0.999:
                        continue
                    assert held.level in made_by[event[1]]
                    assert event[1] not in withdrawn
                    assert np.array_equal(held.latents, latents(event[1])[held.level])
            elif event[0] == "withdraw":
                shard.withdraw(f"r{event[1]}")
                withdrawn.add(event[1])
            elif event[0] == "flush":
                flush(shard)
            elif event[0] == "reopen":
                shard.close(20)
                shard = disk_shard(path, memory, disk)
                withdrawn.clear()
                made_by = {s: set(LEVELS) for s in range(8)}
            stats = shard.stats()
            assert stats.used_bytes <= memory
            assert stats.disk_used_bytes <= disk
        flush(shard)
        assert shard.stats().disk_failed == shard.stats().disk_corrupt == 0
        on_disk = {(i, level) for i, entry in shard._table._entries.items() for level in entry.disk}
        files = {f.name for f in path.rglob("*.safetensors")}
        assert files == {f"{i}.{level}.safetensors" for i, level in on_disk}
        assert shard._table.policy.pinned_bytes == sum(
            entry_bytes(16) + ITEM_OVERHEAD_BYTES * len(entry.disk)
            for entry in shard._table._entries.values()
            if entry.disk
        )
        shard.close(20)
