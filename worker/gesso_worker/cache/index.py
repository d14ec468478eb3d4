"""The embeddings of one partition: FAISS, exact while there are few, inverted lists from `LISTS_FROM` on.

Going over happens beside the index in use: trained on a sample, filled chunk by chunk, then taken. How many
lists a look-up scans is measured on the sample, so that `TARGET_RECALL` holds whatever the embeddings are like.
The caller holds one lock around every call but `train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

#: Entries from which inverted lists are faster, removal included; measured, see bench/results/cache.json.
LISTS_FROM: Final = 8192
#: Recall@1 that the number of scanned lists is chosen for, on held vectors against all others.
TARGET_RECALL: Final = 0.99
#: Trained anew when the index has grown, or shrunk, by this factor.
STALE_FACTOR: Final = 4
_MOST_SAMPLE: Final = 65_536
_PROBES: Final = 256
#: faiss.DirectMap.Hashtable, which its stubs lack: removal and reconstruction by number.
_HASHTABLE: Final = 2
#: Vectors copied at once: less than a millisecond.
CHUNK: Final = 128
#: New prompts are less like held ones than held ones are like each other.
_FEWEST_SCANNED: Final = 8


@dataclass(frozen=True)
class Trained:
    """Empty inverted lists, and for how many entries they were made."""

    lists: Any
    entries: int


class VectorIndex:
    """Unit vectors of one size by number, searched by inner product: at most 12 bytes a dimension and entry."""

    def __init__(self, size: int) -> None:
        """Empty; `size` is the vectors'."""
        self.size = size
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(size))
        self._trained = 0
        self._numbers: set[int] = set()
        self._incoming: Any = None
        self._uncopied: list[int] = []
        self._goal = 0

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def exact(self) -> bool:
        """Whether every vector is looked at."""
        return not self._trained

    def add(self, number: int, vector: F32) -> None:
        """Adds a vector (size,) under a number that is not there."""
        row, ids = _row(vector), np.array([number], dtype=np.int64)
        self._index.add_with_ids(row, ids)
        if self._incoming is not None:
            self._incoming.add_with_ids(row, ids)
        self._numbers.add(number)

    def remove(self, number: int) -> None:
        """Removes a vector that is there."""
        ids = np.array([number], dtype=np.int64)
        self._index.remove_ids(ids)
        if self._incoming is not None:
            self._incoming.remove_ids(ids)
        self._numbers.remove(number)

    def search(self, vector: F32, limit: int) -> list[tuple[int, float]]:
        """At most `limit` numbers with their inner products, best first. Raises ValueError on another size."""
        if vector.size != self.size:
            raise ValueError(f"embedding: {vector.size} numbers are not allowed: {self.size} here")
        products, numbers = self._index.search(_row(vector), min(limit, max(1, len(self))))
        return [(int(n), float(p)) for p, n in zip(products[0], numbers[0], strict=True) if n >= 0]

    def vector(self, number: int) -> F32:
        """A copy of the vector (size,) under a number that is there."""
        found: F32 = self._index.reconstruct(number)
        return found

    @property
    def stale(self) -> bool:
        """Whether it should be trained: it has outgrown what it is."""
        if self._incoming is not None or len(self) < LISTS_FROM:
            return False
        return (
            not self._trained
            or not self._trained / STALE_FACTOR < len(self) < self._trained * STALE_FACTOR
        )

    def sample(self) -> NDArray[np.int64]:
        """Numbers whose vectors to train on."""
        numbers = np.fromiter(self._numbers, dtype=np.int64, count=len(self))
        if len(numbers) > _MOST_SAMPLE:
            numbers = np.random.default_rng(0).choice(numbers, _MOST_SAMPLE, replace=False)
        return numbers

    def vectors(self, numbers: NDArray[np.int64]) -> F32:
        """The vectors (n, size) of those numbers that are still there."""
        left = np.array([n for n in numbers if n in self._numbers], dtype=np.int64)
        if not len(left):
            return np.zeros((0, self.size), dtype=np.float32)
        found: F32 = self._index.reconstruct_batch(left)
        return found

    def begin(self, trained: Trained) -> None:
        """From now on fills `trained` beside the index in use; `copy` until it says so."""
        self._incoming, self._goal = trained.lists, trained.entries
        self._uncopied = list(self._numbers)

    def copy(self) -> bool:
        """Copies a chunk; True once the filled lists are the index in use."""
        chunk = self._uncopied[-CHUNK:]
        del self._uncopied[-CHUNK:]
        left = np.array([n for n in chunk if n in self._numbers], dtype=np.int64)
        if len(left):
            self._incoming.add_with_ids(self.vectors(left), left)
        if self._uncopied:
            return False
        self._index, self._incoming, self._trained = self._incoming, None, self._goal
        return True


def train(sample: F32, entries: int) -> Trained:
    """Inverted lists for `entries` vectors like a sample (n, size). Takes seconds; touches no index."""
    lists = _lists_for(2 * entries, len(sample))
    made = faiss.IndexIVFFlat(
        faiss.IndexFlatIP(sample.shape[1]), sample.shape[1], lists, faiss.METRIC_INNER_PRODUCT
    )
    made.cp.niter = 8
    made.cp.min_points_per_centroid = 1
    made.cp.max_points_per_centroid = 64
    made.train(sample)
    made.add(sample)
    made.nprobe = _scanned_for(made, sample, lists)
    made.reset()
    made.set_direct_map_type(_HASHTABLE)
    return Trained(made, entries)


def _lists_for(entries: int, sample: int) -> int:
    """A power of two near four times the root, each list with a few vectors to be trained on."""
    wanted = 2 ** round(np.log2(4 * np.sqrt(max(1, entries))))
    return int(max(1, min(wanted, sample // 8)))


def _scanned_for(lists: Any, sample: F32, most: int) -> int:
    """The fewest lists, by powers of two, with which vectors of the sample find their nearest neighbour."""
    rows = np.random.default_rng(1).choice(len(sample), min(_PROBES, len(sample)), replace=False)
    queries = sample[rows]
    lists.nprobe = most
    best = _neighbours(lists, queries, rows)
    scanned = min(_FEWEST_SCANNED, most)
    while scanned < most:
        lists.nprobe = scanned
        if np.mean(_neighbours(lists, queries, rows) >= best - 1e-6) >= TARGET_RECALL:
            break
        scanned *= 2
    return min(scanned, most)


def _neighbours(lists: Any, queries: F32, rows: NDArray[np.int64]) -> F32:
    """The similarity of each query's nearest vector other than itself, -1 where none was found."""
    products, numbers = lists.search(queries, 2)
    products = np.where((numbers == rows[:, None]) | (numbers < 0), -1.0, products)
    best: F32 = products.max(axis=1)
    return best


def _row(vector: F32) -> F32:
    return np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
