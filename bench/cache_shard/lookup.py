"""Look-ups: the shard's index against exact search and HNSW, by size; tenants apart and together."""

from __future__ import annotations

import threading
import time
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cache_shard.figures import timed
from cache_shard.prompts import enlarged
from gesso_worker.cache.directory import Directory
from gesso_worker.cache.index import train

F32 = NDArray[np.float32]
QUERIES = 1000
_PARTITION = ("", "bench")


def by_size(base: F32, count: int) -> dict[str, Any]:
    """The directory of a shard that has grown to `count` entries one by one, against exact search."""
    rows, queries = enlarged(base, count, 1), enlarged(base, QUERIES, 2)
    directory = Directory(threading.RLock())
    began = time.perf_counter()
    for number, row in enumerate(rows):
        with directory.lock:
            directory.add(_PARTITION, str(number), row)
    grown_s = time.perf_counter() - began
    if not directory.settle(900):
        raise TimeoutError("the index was not made in a quarter of an hour")
    exact = faiss.IndexFlatIP(rows.shape[1])
    exact.add(rows)
    slow = QUERIES if count <= 100_000 else 100
    truth, flat = timed([lambda q=q: exact.search(q[None], 1)[1][0, 0] for q in queries[:slow]])
    found, ours = timed([lambda q=q: _nearest(directory, q) for q in queries])
    recall = np.mean([f == t for f, t in zip(found, truth, strict=False)])
    return {
        "entries": count,
        "exact": directory.exact(_PARTITION),
        "recall_at_1": float(recall),
        "recall_over": len(truth),
        **ours,
        "flat": flat,
        "flat_over_ours_p50": flat["p50_ms"] / ours["p50_ms"],
        "index_bytes": int(rows.nbytes),
        "add_ms": grown_s / count * 1e3,
    }


def _nearest(directory: Directory, query: F32) -> int:
    with directory.lock:
        found = directory.nearest(_PARTITION, query, 2)
        directory.embedding(_PARTITION, found[0][1])
    return int(found[0][0])


def crossover(base: F32, sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Exact search against inverted lists, a look-up and a removal each, by size."""
    table = []
    for count in sizes:
        rows, queries = enlarged(base, count, 1), enlarged(base, 300, 2)
        numbers = np.arange(count)
        flat = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.shape[1]))
        flat.add_with_ids(rows, numbers)
        lists = train(rows, count).lists
        lists.add_with_ids(rows, numbers)
        row: dict[str, float] = {"entries": count}
        for name, index in (("flat", flat), ("lists", lists)):
            _, times = timed([lambda q=q, i=index: i.search(q[None], 2) for q in queries])
            gone = [np.array([n], dtype=np.int64) for n in range(0, 100)]
            _, removal = timed([lambda g=g, i=index: i.remove_ids(g) for g in gone])
            row[f"{name}_p50_ms"] = times["p50_ms"]
            row[f"{name}_remove_p50_ms"] = removal["p50_ms"]
        table.append(row)
    return table


def hnsw(base: F32, count: int) -> dict[str, float]:
    """What HNSW would take instead; FAISS's has no removal."""
    rows, queries = enlarged(base, count, 1), enlarged(base, QUERIES, 2)
    index = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 64
    index.hnsw.efSearch = 32
    began = time.perf_counter()
    index.add(rows)
    built_s = time.perf_counter() - began
    exact = faiss.IndexFlatIP(rows.shape[1])
    exact.add(rows)
    truth = exact.search(queries, 1)[1][:, 0]
    found, times = timed([lambda q=q: index.search(q[None], 1)[1][0, 0] for q in queries])
    return {
        "entries": count,
        "recall_at_1": float(np.mean(np.array(found) == truth)),
        **times,
        "add_ms": built_s / count * 1e3,
    }


def tenants(base: F32, count: int, number: int) -> dict[str, Any]:
    """`number` tenants' entries in an index each, and in one with a selector of the tenant's."""
    rows, queries = enlarged(base, count, 1), enlarged(base, 500, 2)
    of = np.random.default_rng(3).integers(0, number, count)
    apart = Directory(threading.RLock())
    with apart.lock:
        for i, row in enumerate(rows):
            apart.add((str(of[i]), "bench"), str(i), row)
    apart.settle(900)
    together = train(rows[:65_536], count).lists
    together.add_with_ids(rows, np.arange(count))
    members = [np.flatnonzero(of == t) for t in range(number)]
    asked = np.random.default_rng(4).integers(0, number, len(queries))
    truth = [
        members[t][(rows[members[t]] @ q).argmax()] for t, q in zip(asked, queries, strict=True)
    ]

    # Made beforehand, as a service would.
    selectors = [faiss.IDSelectorBatch(m) for m in members]
    settings = [
        faiss.SearchParametersIVF(sel=chosen, nprobe=together.nprobe) for chosen in selectors
    ]

    def one(t: int, q: F32) -> int:
        with apart.lock:
            return int(apart.nearest((str(t), "bench"), q, 1)[0][0])

    def selected(t: int, q: F32) -> int:
        return int(together.search(q[None], 1, params=settings[t])[1][0, 0])

    report: dict[str, Any] = {"entries": count, "tenants": number}
    for name, way in (("index_each", one), ("selector", selected)):
        found, times = timed(
            [lambda t=t, q=q, w=way: w(t, q) for t, q in zip(asked, queries, strict=True)]
        )
        report[name] = {"recall_at_1": float(np.mean(np.array(found) == truth)), **times}
    return report
