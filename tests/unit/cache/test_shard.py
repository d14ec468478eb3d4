"""Look-up, isolation, eviction and honesty about memory."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from gesso_worker.cache import policy
from gesso_worker.cache.policy import ITEM_OVERHEAD_BYTES
from gesso_worker.cache.shard import Shard

SIZE = 16
PRINT = "weights-1"
SHAPE = (1, 4, 4, 4)


def vector(seed: int, near: np.ndarray | None = None, share: float = 0.0) -> np.ndarray:
    v = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    v /= np.linalg.norm(v)
    if near is not None:
        v = share * v + (1 - share) * near
        v /= np.linalg.norm(v)
    return v.astype(np.float32)


def latents(*levels: int, fill: float = 1.0) -> dict[int, np.ndarray]:
    return {level: np.full(SHAPE, fill * level, np.float32) for level in levels}


def entry_bytes(levels: int) -> int:
    item = 4 * int(np.prod(SHAPE)) + ITEM_OVERHEAD_BYTES
    return policy.entry_bytes(SIZE) + levels * item


@pytest.fixture
def shard() -> Shard:
    return Shard("worker-0", 1 << 20)


def test_lookup_finds_the_nearest_first(shard: Shard) -> None:
    a = vector(1)
    near, far = vector(2, a, 0.3), vector(3)
    ids = [shard.insert("t", PRINT, v, latents(10, 5)) for v in (far, near)]
    matches = shard.lookup("t", PRINT, a, 5)
    assert [m.entry_id for m in matches] == ids[::-1]
    assert matches[0].similarity == pytest.approx(float(near @ a), abs=1e-5)
    assert matches[0].held_levels == (5, 10)
    assert len(shard.lookup("t", PRINT, a, 1)) == 1
    assert all(np.array_equal(m.embedding, v) for m, v in zip(matches, (near, far), strict=True))


@pytest.mark.parametrize(
    ("tenant", "fingerprint"),
    [pytest.param("other", PRINT, id="tenant"), pytest.param("t", "weights-2", id="fingerprint")],
)
def test_nothing_is_seen_or_fetched_under_another(
    shard: Shard, tenant: str, fingerprint: str
) -> None:
    entry = shard.insert("t", PRINT, vector(1), latents(5))
    assert entry is not None
    assert shard.lookup(tenant, fingerprint, vector(1)) == ()
    assert shard.fetch(tenant, entry, 5, fingerprint) is None
    assert shard.fetch("t", entry, 5, PRINT) is not None


def test_a_shared_cache_is_one_for_all_tenants() -> None:
    shard = Shard("worker-0", 1 << 20, shared=True)
    entry = shard.insert("a", PRINT, vector(1), latents(5))
    assert entry is not None
    assert [m.entry_id for m in shard.lookup("b", PRINT, vector(1))] == [entry]
    assert shard.fetch("b", entry, 5) is not None


def test_fetch_gives_the_largest_level_held_below(shard: Shard) -> None:
    entry = shard.insert("t", PRINT, vector(1), latents(5, 15))
    assert entry is not None
    held = shard.fetch("t", entry, 10)
    assert held is not None
    assert (held.level, held.fingerprint) == (5, PRINT)
    assert np.array_equal(held.latents, latents(5)[5])
    assert shard.fetch("t", entry, 4) is None
    assert shard.fetch("t", "gone", 25) is None


def test_the_same_prompt_refreshes_its_entry(shard: Shard) -> None:
    first = shard.insert("t", PRINT, vector(1), latents(5, 10))
    again = shard.insert("t", PRINT, vector(1), latents(10, 15, fill=2.0))
    assert again == first
    assert first is not None
    assert shard.stats().entries == 1
    assert shard.lookup("t", PRINT, vector(1))[0].held_levels == (5, 10, 15)
    held = shard.fetch("t", first, 10)
    assert held is not None
    assert held.latents[0, 0, 0, 0] == 20


def test_the_bound_holds_and_evicted_entries_are_not_found() -> None:
    shard = Shard("worker-0", 3 * entry_bytes(2))
    ids = [shard.insert("t", PRINT, vector(seed), latents(5, 10)) for seed in range(5)]
    stats = shard.stats()
    assert (stats.entries, stats.used_bytes) == (3, stats.capacity_bytes)
    assert shard.lookup("t", PRINT, vector(0))[0].entry_id not in ids[:2]
    assert shard.fetch("t", str(ids[0]), 25) is None
    found = [m.entry_id for m in shard.lookup("t", PRINT, vector(4), 5)]
    assert (found[0], len(found)) == (ids[4], 3)


def test_used_latents_outlive_unused_ones() -> None:
    shard = Shard("worker-0", 2 * entry_bytes(1))
    old = shard.insert("t", PRINT, vector(0), latents(25))
    assert old is not None
    shard.fetch("t", old, 25)
    for seed in range(1, 6):
        shard.insert("t", PRINT, vector(seed), latents(25))
    assert shard.fetch("t", old, 25) is not None


def test_an_entry_above_the_bound_is_not_kept() -> None:
    shard = Shard("worker-0", entry_bytes(1))
    assert shard.insert("t", PRINT, vector(0), latents(5, 10)) is None
    assert shard.stats().entries == 0
    assert shard.lookup("t", PRINT, vector(0)) == ()


def test_embeddings_of_another_size_are_refused(shard: Shard) -> None:
    shard.insert("t", PRINT, vector(0), latents(5))
    with pytest.raises(ValueError, match="embedding: 8 numbers are not allowed: 16 here"):
        shard.lookup("t", PRINT, np.ones(8, np.float32))


def test_ids_of_a_former_life_name_nothing() -> None:
    first = Shard("worker-0", 1 << 20).insert("t", PRINT, vector(0), latents(5))
    second = Shard("worker-0", 1 << 20)
    second.insert("t", PRINT, vector(1), latents(5))
    assert second.fetch("t", str(first), 5) is None


def test_latents_are_the_shards_own_and_read_only(shard: Shard) -> None:
    batch = np.ones((8, 4, 4, 4), np.float32)
    entry = shard.insert("t", PRINT, vector(0), {5: batch[:1]})
    batch[:] = 7
    held = shard.fetch("t", str(entry), 5)
    assert held is not None
    assert held.latents.base is None
    assert held.latents.max() == 1
    with pytest.raises(ValueError, match="read-only"):
        held.latents[0] = 0


def test_reported_bytes_cover_the_memory_really_taken() -> None:
    count, levels = 300, (5, 10, 15, 20, 25)
    vectors = [vector(seed) for seed in range(count)]
    given = [latents(*levels) for _ in range(count)]
    shard = Shard("worker-0", 1 << 26)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for v, arrays in zip(vectors, given, strict=True):
            shard.insert("tenant", PRINT, v, arrays)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # FAISS's own copy of the embeddings and its table of ids are not traced.
    taken += count * (4 * SIZE + 64)
    used = shard.stats().used_bytes
    assert taken <= used <= 2 * taken


def test_threads_may_insert_look_up_and_fetch_at_once() -> None:
    shard = Shard("worker-0", 20 * entry_bytes(2))
    failures: list[BaseException] = []

    def work(base: int) -> None:
        try:
            for seed in range(base, base + 60):
                shard.insert("t", PRINT, vector(seed), latents(5, 10))
                for match in shard.lookup("t", PRINT, vector(seed + 1), 4):
                    held = shard.fetch("t", match.entry_id, 10)
                    assert held is None or held.latents[0, 0, 0, 0] == held.level
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    stats = shard.stats()
    assert stats.entries == len(shard.lookup("t", PRINT, vector(0), 64)) >= 20
    assert stats.used_bytes <= stats.capacity_bytes
