"""Trains a codebook: `python -m gesso_router.codebook_training --embedding NAME --prompts FILE --out FILE`.

Spherical k-means (Dhillon & Modha, Machine Learning, 2001) of the prompts' embeddings, then of the centroids,
so that a cell is made of neighbouring centroids. A few thousand prompts suffice; they should be like those that
will be served.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gesso.codebook import from_bytes, to_bytes
from gesso.placement import Codebook
from gesso_router.text_tower import EmbeddingLoadError, load_encoder

F32 = NDArray[np.float32]

CENTROIDS = 1024
CELLS = 128
_BATCH = 64
_ROUNDS = 25
_CHUNK = 4096


def train_codebook(
    embeddings: F32, centroids: int = CENTROIDS, cells: int = CELLS, seed: int = 0
) -> Codebook:
    """A codebook for unit vectors like `embeddings` (n, d); fewer centroids and cells where n is small.

    Equal input gives an equal codebook. Raises ValueError without any embedding.
    """
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(
            f"embeddings: shape {embeddings.shape} is not allowed: (n, d), n at least 1"
        )
    distinct = np.unique(embeddings, axis=0)
    centroids = max(1, min(centroids, len(distinct) // 2 or 1))
    cells = max(1, min(cells, centroids))
    rng = np.random.default_rng(seed)
    fine, of = spherical_kmeans(distinct, centroids, rng)
    _, cell_of = spherical_kmeans(fine, cells, rng)
    used = np.unique(cell_of)
    cell_of = np.searchsorted(used, cell_of)
    # Half a prompt more: a cell without any is still asked for.
    weights = np.bincount(cell_of[of], minlength=len(used)) + 0.5
    made = Codebook(
        fine, cell_of.astype(np.int32), (weights / weights.sum()).astype(np.float32).astype(float)
    )
    return from_bytes(to_bytes(made))


def spherical_kmeans(
    rows: F32, count: int, rng: np.random.Generator
) -> tuple[F32, NDArray[np.int64]]:
    """`count` unit vectors and the nearest of them for each row; rows are unit vectors (n, d)."""
    means = rows[rng.choice(len(rows), count, replace=False)].copy()
    of = np.zeros(len(rows), dtype=np.int64)
    for turn in range(_ROUNDS):
        before = of
        of, products = _nearest(rows, means)
        if turn and np.array_equal(before, of):
            break
        sums = np.zeros_like(means)
        np.add.at(sums, of, rows)
        empty = np.flatnonzero(np.bincount(of, minlength=count) == 0)
        # Where nothing is left, it begins again at what fits its mean the worst.
        sums[empty] = rows[np.argsort(products)[: len(empty)]]
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        means = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), means).astype(np.float32)
    return means, _nearest(rows, means)[0]


def _nearest(rows: F32, means: F32) -> tuple[NDArray[np.int64], F32]:
    found, best = [], []
    for at in range(0, len(rows), _CHUNK):
        products = rows[at : at + _CHUNK] @ means.T
        found.append(products.argmax(axis=1))
        best.append(products.max(axis=1))
    return np.concatenate(found), np.concatenate(best)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads prompts, one a line, and writes a codebook; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gesso_router.codebook_training")
    parser.add_argument("--embedding", required=True, help="as spec.router.embedding")
    parser.add_argument("--prompts", required=True, type=Path, help="a text file, a prompt a line")
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    parser.add_argument("--centroids", type=int, default=CENTROIDS, help=f"default {CENTROIDS}")
    parser.add_argument("--cells", type=int, default=CELLS, help=f"default {CELLS}")
    given = parser.parse_args(arguments)
    try:
        prompts = list(dict.fromkeys(filter(str.strip, given.prompts.read_text().splitlines())))
        if not prompts:
            parser.error(f"--prompts: {given.prompts} holds no prompt")
        encode = load_encoder(given.embedding)
        rows = [encode(prompts[at : at + _BATCH]) for at in range(0, len(prompts), _BATCH)]
        made = train_codebook(np.concatenate(rows), given.centroids, given.cells)
        given.out.write_bytes(to_bytes(made))
    except (OSError, UnicodeDecodeError, EmbeddingLoadError) as error:
        parser.error(str(error))
    print(
        f"{given.out}: version {made.version}, {len(made.centroids)} centroids in {len(made.weights)} "
        f"cells, from {len(prompts)} prompts"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
