"""Cells go to workers evenly, stay put when others come and go, and either side of a border knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.builtin import builtin_path
from gesso.codebook import FILE_NAME, CodebookError, from_bytes, read_codebook, to_bytes
from gesso.placement import ALL_KNOW, BOUND, Codebook, Placement, moved, owners_of, rank


def unit(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def codebook(centroids: int = 64, cells: int = 16, seed: int = 0) -> Codebook:
    rng = np.random.default_rng(seed)
    made = Codebook(
        unit(centroids, seed=seed),
        np.concatenate([np.arange(cells), rng.integers(0, cells, centroids - cells)]).astype(
            np.int32
        ),
        rng.uniform(0.5, 2, cells),
    )
    return from_bytes(to_bytes(made))


names = st.lists(st.from_regex(r"[a-z]{1,8}-[0-9]{1,2}", fullmatch=True), min_size=1, unique=True)
weights = st.lists(st.floats(0.01, 10), min_size=1, max_size=80).map(np.array)


@given(weights, names)
def test_no_worker_is_above_the_bound_but_for_cells_that_fit_nowhere(
    weights: np.ndarray, workers: list[str]
) -> None:
    owners = owners_of(weights, workers)
    bound = BOUND * weights.sum() / len(workers)
    loads = {w: sum(x for x, o in zip(weights, owners, strict=True) if o == w) for w in workers}
    assert sum(loads.values()) == pytest.approx(weights.sum())
    # A cell that would put everyone above goes to the least loaded.
    assert all(load <= bound + weights.max() for load in loads.values())
    if len(weights) >= 8 * len(workers) and weights.max() <= 2 * weights.min():
        assert max(loads.values()) <= bound + 1e-9


@given(weights, names, st.randoms())
def test_the_order_of_workers_does_not_matter(
    weights: np.ndarray, workers: list[str], random: object
) -> None:
    shuffled = list(workers)
    random.shuffle(shuffled)
    book = Codebook(unit(len(weights)), np.arange(len(weights), dtype=np.int32), weights)
    one, other = Placement.of(book, workers), Placement.of(book, shuffled)
    assert one.owners == other.owners
    assert one.version == other.version


def test_without_bounds_in_the_way_every_cell_is_where_rendezvous_hashing_puts_it() -> None:
    workers = [f"worker-{i}" for i in range(4)]
    cells = np.ones(400)
    owners = owners_of(cells, workers)
    first = [min(workers, key=lambda w: rank(cell, w)) for cell in range(400)]
    assert np.mean([a == b for a, b in zip(owners, first, strict=True)]) > 0.97


@pytest.mark.parametrize("count", [5, 8, 16, 32])
def test_a_worker_that_joins_or_leaves_moves_little_more_than_its_share(count: int) -> None:
    book = codebook(1024, 512)
    workers = [f"worker-{i}" for i in range(count + 1)]
    for gone in range(0, count + 1, 4):
        fewer = Placement.of(book, workers[:gone] + workers[gone + 1 :])
        more = Placement.of(book, workers)
        assert 1 / (count + 1) / BOUND / 2 <= moved(fewer, more) <= 2 / (count + 1)


def test_it_tells_the_nearest_owners_first() -> None:
    book = codebook()
    placed = Placement.of(book, [f"worker-{i}" for i in range(6)])
    for row in unit(50, seed=3):
        order = np.argsort(-(book.centroids @ row))
        expected = list(dict.fromkeys(placed.owners[book.cell_of[c]] for c in order))
        assert list(placed.nearest(row, 3)) == expected[:3]


def test_a_worker_without_a_cell_is_never_asked() -> None:
    placed = Placement.of(codebook(16, 2), [f"worker-{i}" for i in range(6)])
    assert set(placed.nearest(unit(1)[0], 6)) == set(placed.owners)


def test_another_size_is_refused() -> None:
    placed = Placement.of(codebook(), ["a"])
    with pytest.raises(ValueError, match=r"embedding: shape \(3,\) is not allowed: \(8,\)"):
        placed.nearest(np.ones(3, np.float32), 1)


def test_a_codebook_is_the_same_after_a_journey(tmp_path: Path) -> None:
    book = codebook()
    (tmp_path / FILE_NAME).write_bytes(to_bytes(book))
    again = read_codebook(tmp_path / FILE_NAME)
    assert again.version == book.version
    assert np.array_equal(again.centroids, book.centroids)
    assert codebook(seed=1).version != book.version


@given(st.binary(max_size=200))
def test_what_is_no_codebook_is_refused(data: bytes) -> None:
    with pytest.raises(CodebookError, match="codebook: "):
        from_bytes(data)


@given(st.integers(0, 8 * 600), st.booleans())
def test_a_damaged_codebook_is_refused_or_one_that_may_be(bit: int, cut: bool) -> None:
    data = bytearray(to_bytes(codebook(8, 4)))
    if cut:
        del data[bit % len(data) :]
    else:
        data[bit // 8 % len(data)] ^= 1 << bit % 8
    try:
        made = from_bytes(bytes(data))
    except CodebookError:
        return
    Placement.of(made, ["a", "b"]).nearest(np.zeros(made.dimensions, np.float32), 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"centroids": np.zeros((2, 3), np.float32)}, "unit length"),
        ({"cell_of": np.array([0, 7], np.int32)}, "cell_of"),
        ({"cell_of": np.array([0], np.int32)}, "one cell for each centroid"),
        ({"weights": np.array([1.0, 0.0])}, "weights"),
        ({"weights": np.array([1.0, np.nan])}, "weights"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict, named: str) -> None:
    parts = {
        "centroids": unit(2, 3),
        "cell_of": np.array([0, 1], np.int32),
        "weights": np.array([0.5, 0.5]),
    }
    with pytest.raises(ValueError, match=named):
        Codebook(**{**parts, **change})


@pytest.mark.parametrize(("workers", "recall"), [(ALL_KNOW, 1.0), (ALL_KNOW + 1, 0.95)])
def test_the_tiny_models_codebook_finds_the_nearest_by_few_probes(
    workers: int, recall: float
) -> None:
    from gesso_router.text_tower import load_encoder
    from gesso_worker.models.tiny.captions import caption
    from gesso_worker.models.tiny.scenes import mutate, sample_scene

    encode = load_encoder("builtin://tiny-clip")
    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng) for _ in range(600)]
    held = encode([caption(s, rng) for s in scenes])
    asked = encode([caption(mutate(s, rng), rng) for s in scenes[:300]])
    book = read_codebook(builtin_path("builtin://tiny-clip") / FILE_NAME)
    placed = Placement.of(book, [f"worker-{i}" for i in range(workers)])
    known = [set(placed.nearest(row, placed.copies)) for row in held]
    nearest = (asked @ held.T).argmax(axis=1)
    found = [
        bool(known[n] & set(placed.nearest(q, placed.probes)))
        for n, q in zip(nearest, asked, strict=True)
    ]
    assert np.mean(found) >= recall
    loads = np.bincount([placed.workers.index(placed.nearest(row, 1)[0]) for row in held])
    assert loads.max() <= 2 * loads.mean()
