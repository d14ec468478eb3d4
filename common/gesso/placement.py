"""Where in a fleet a prompt is known: cells of the embedding space to workers. Pure.

The space is cut at centroids (spherical k-means, Dhillon & Modha 2001); neighbouring centroids form a cell.
A cell goes to a worker by rendezvous hashing (Thaler & Ravishankar 1998) with bounded loads (Mirrokni et al.,
SODA 2018): to its highest-ranked worker that is not full. An entry is told to the `COPIES` workers that answer
for what is nearest, and a look-up asks the nearest `PROBES`: near a border either side knows. In a fleet of up
to `ALL_KNOW` everybody is told, so that a look-up asks one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

#: Workers that know of an entry, besides the one that holds it; measured, see bench/results/cache.json.
COPIES: Final = 4
#: Workers that a look-up asks.
PROBES: Final = 2
#: Up to so many workers all know of every entry: there it takes twice the telling, half the asking, and finds
#: all. What a look-up costs hardly depends on how much an index holds.
ALL_KNOW: Final = 8
#: With fewer workers a look-up asks them all.
PLACED_FROM: Final = 5
#: A worker's cells weigh at most so many times the mean.
BOUND: Final = 1.5


@dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids (n, d) of unit length, the cell of each (n,), and each cell's share of the prompts (cells,)."""

    centroids: F32
    cell_of: NDArray[np.int32]
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Raises ValueError on parts that do not fit."""
        n = len(self.centroids)
        if self.centroids.ndim != 2 or not n or self.cell_of.shape != (n,):
            raise ValueError(
                f"centroids: {self.centroids.shape} with cells {self.cell_of.shape} are not allowed: one "
                "cell for each centroid, at least one"
            )
        if not np.allclose(np.linalg.norm(self.centroids, axis=1), 1, atol=1e-2):
            raise ValueError("centroids: what there is is not allowed: unit length")
        cells = len(self.weights)
        if not ((self.cell_of >= 0) & (self.cell_of < cells)).all():
            raise ValueError(f"cell_of: what there is is not allowed: 0 to {cells - 1}")
        if not cells or not np.isfinite(self.weights).all() or (self.weights <= 0).any():
            raise ValueError("weights: what there is is not allowed: above 0, finite")

    @cached_property
    def version(self) -> str:
        """Names the content: 16 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.centroids, self.cell_of, self.weights):
            digest.update(str((part.shape, part.dtype.str)).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @property
    def dimensions(self) -> int:
        """Of the embeddings that it is for."""
        return int(self.centroids.shape[1])


@dataclass(frozen=True, eq=False)
class Placement:
    """Which worker answers for which cell; `owners` names a worker for each."""

    codebook: Codebook
    workers: tuple[str, ...]
    owners: tuple[str, ...]

    @classmethod
    def of(cls, codebook: Codebook, workers: Sequence[str]) -> Placement:
        """The placement over workers, in whatever order they are named."""
        names = tuple(sorted(set(workers)))
        return cls(codebook, names, owners_of(codebook.weights, names))

    @property
    def copies(self) -> int:
        """Workers that know of an entry."""
        return len(self.workers) if len(self.workers) <= ALL_KNOW else COPIES

    @property
    def probes(self) -> int:
        """Workers that a look-up asks."""
        return 1 if len(self.workers) <= ALL_KNOW else PROBES

    @cached_property
    def version(self) -> str:
        """Equal where codebook, workers and what they are told are."""
        text = "\n".join((self.codebook.version, str(self.copies), *self.workers))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @cached_property
    def _by_owner(self) -> tuple[F32, NDArray[np.int64], NDArray[np.int32]]:
        """The centroids in the order of their owners, where each owner's begin, and the owners' numbers."""
        number = {name: i for i, name in enumerate(self.workers)}
        owners = np.array([number[o] for o in self.owners], dtype=np.int32)
        owner_of = owners[self.codebook.cell_of]
        order = np.argsort(owner_of, kind="stable")
        there, starts = np.unique(owner_of[order], return_index=True)
        return np.ascontiguousarray(self.codebook.centroids[order]), starts, there

    def nearest(self, embedding: F32, count: int) -> tuple[str, ...]:
        """The `count` workers that answer for what is nearest to an embedding (d,), the nearest first.

        Raises ValueError on an embedding of another size.
        """
        if embedding.shape != (self.codebook.dimensions,):
            raise ValueError(
                f"embedding: shape {embedding.shape} is not allowed: ({self.codebook.dimensions},)"
            )
        if not self.workers:
            return ()
        centroids, starts, owners = self._by_owner
        best = np.maximum.reduceat(centroids @ embedding, starts)
        order = np.argsort(-best, kind="stable")[:count]
        return tuple([self.workers[i] for i in owners[order].tolist()])


def owners_of(weights: NDArray[np.float64], workers: Sequence[str]) -> tuple[str, ...]:
    """A worker for each cell: none holds more than `BOUND` times the mean, one cell at least.

    A worker that joins or leaves changes the owner of its own share of the cells, and of the few that bounds
    move on. Without workers there are no owners.
    """
    if not workers:
        return ()
    bound = BOUND * float(weights.sum()) / len(workers)
    loads = dict.fromkeys(workers, 0.0)
    owners = [""] * len(weights)
    # Heavy cells first, which fit the worst; of equals, by number.
    for cell in sorted(range(len(weights)), key=lambda c: (-weights[c], c)):
        ranked = sorted(workers, key=lambda w: rank(cell, w))
        fitting = (w for w in ranked if loads[w] + weights[cell] <= bound or not loads[w])
        owner = next(fitting, None) or min(ranked, key=lambda w: loads[w])
        owners[cell] = owner
        loads[owner] += float(weights[cell])
    return tuple(owners)


def rank(cell: int, worker: str) -> bytes:
    """The smaller, the more a worker is a cell's."""
    return hashlib.blake2b(f"{cell}\n{worker}".encode(), digest_size=8).digest()


def moved(before: Placement, after: Placement) -> float:
    """Share of the prompts whose cell has another owner afterwards."""
    pairs: Mapping[int, tuple[str, str]] = dict(
        enumerate(zip(before.owners, after.owners, strict=True))
    )
    weights = before.codebook.weights
    gone = sum(float(weights[c]) for c, (a, b) in pairs.items() if a != b)
    return gone / float(weights.sum())
