"""The index finds the nearest, exactly while small, and almost always once it has gone over to lists."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from cache_kit import PRINT, latents, vector
from hypothesis import given
from hypothesis import strategies as st

from gesso_worker.cache import directory, index
from gesso_worker.cache.directory import Directory
from gesso_worker.cache.index import VectorIndex, train
from gesso_worker.cache.shard import Shard

DIMENSIONS = 24


def prompts(count: int, seed: int = 0, size: int = DIMENSIONS) -> np.ndarray:
    """Unit vectors in groups, as prompts are, (count, size)."""
    rng = np.random.default_rng(seed)
    groups = np.random.default_rng(99).standard_normal((50, size))
    found = groups[rng.integers(0, 50, count)] + 0.7 * rng.standard_normal((count, size))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(index, "LISTS_FROM", 300)
    return


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=60),
    st.integers(0, 60),
    st.integers(1, 5),
)
def test_whatever_comes_and_goes_it_finds_what_is_there(
    events: list[tuple[bool, int]], switch_at: int, limit: int
) -> None:
    rows = prompts(16)
    found, held = VectorIndex(DIMENSIONS), set()
    copying = False
    for at, (add, number) in enumerate(events):
        if at == switch_at and len(held) > 1:
            sample = found.vectors(found.sample())
            trained = train(sample, len(held))
            trained.lists.nprobe = trained.lists.nlist
            found.begin(trained)
            copying = True
        elif copying and at % 3 == 0:
            copying = not found.copy()
        if add and number not in held:
            found.add(number, rows[number])
            held.add(number)
        elif not add and number in held:
            found.remove(number)
            held.remove(number)
        assert len(found) == len(held)
        query = prompts(1, seed=at)[0]
        best = sorted(held, key=lambda n: -float(rows[n] @ query))[:limit]
        answer = found.search(query, limit)
        assert [n for n, _ in answer] == best
        assert all(s == pytest.approx(float(rows[n] @ query), abs=1e-5) for n, s in answer)
        assert all(np.array_equal(found.vector(n), rows[n]) for n in held)


def test_lists_find_nearly_all_that_exact_search_finds(small: None) -> None:
    rows, queries = prompts(4000), prompts(300, seed=1)
    lock = threading.RLock()
    found = Directory(lock)
    for row in rows:
        with lock:
            found.add(("t", PRINT), "e", row)
    assert found.settle(30)
    assert not found.exact(("t", PRINT))
    best = (queries @ rows.T).argmax(axis=1)
    with lock:
        nearest = [found.nearest(("t", PRINT), q, 1)[0][1] for q in queries]
    assert np.mean(np.array(nearest) == best) >= 0.97


def test_a_shard_goes_over_while_it_serves(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CHUNK", 16)
    monkeypatch.setattr(index, "CHUNK", 16)
    shard = Shard("worker-0", 40 << 20)
    ids = []
    for seed in range(1500):
        ids.append(shard.insert("t", PRINT, vector(seed), latents(seed % 7, (5,))))
        if seed % 10 == 9:
            assert shard.lookup("t", PRINT, vector(seed - 5))[0].entry_id == ids[seed - 5]
        if seed % 100 == 99:
            shard.withdraw("nobody")
    assert shard._table.directory.settle(30)
    assert not shard._table.directory.exact(("t", PRINT))
    assert shard.stats().entries == 1500
    found = [shard.lookup("t", PRINT, vector(s))[0].entry_id == ids[s] for s in range(1500)]
    assert np.mean(found) >= 0.97


def test_a_partition_that_empties_meanwhile_is_let_go(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def held_up(sample: np.ndarray, entries: int) -> index.Trained:
        gate.wait(20)
        return train(sample, entries)

    monkeypatch.setattr(directory, "train", held_up)
    lock = threading.RLock()
    found = Directory(lock)
    numbers = [found.add(("t", PRINT), "e", row) for row in prompts(300)]
    with lock:
        for number in numbers:
            found.remove(("t", PRINT), number)
        again = found.add(("t", PRINT), "again", prompts(1)[0])
    gate.set()
    assert found.settle(20)
    with lock:
        assert found.nearest(("t", PRINT), prompts(1)[0], 3)[0][:2] == ("again", again)


def test_another_size_is_refused() -> None:
    found = VectorIndex(DIMENSIONS)
    found.add(0, prompts(1)[0])
    with pytest.raises(ValueError, match="embedding: 3 numbers are not allowed: 24 here"):
        found.search(np.ones(3, np.float32), 1)
