"""Recall of look-ups that ask two of the shards, against one index of everything; what a change moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesso.placement import PROBES, Codebook, Placement, moved
from gesso_router.codebook_training import train_codebook

F32 = NDArray[np.float32]


def figures(
    held: F32, asked: F32, codebook: Codebook | None = None, shards: tuple[int, ...] = (8, 16)
) -> list[dict[str, Any]]:
    """By shards and workers that know of an entry. A codebook is trained on what is held, unless given."""
    book = codebook if codebook is not None else train_codebook(held)
    nearest = np.concatenate(
        [(asked[i : i + 512] @ held.T).argmax(1) for i in range(0, len(asked), 512)]
    )
    best = np.einsum("ij,ij->i", asked, held[nearest])
    near = best >= 0.65
    table = []
    for count in shards:
        placed = Placement.of(book, [f"worker-{i}" for i in range(count)])
        probes = [set(placed.nearest(q, PROBES)) for q in asked]
        order = {n: placed.nearest(held[n], 5) for n in set(nearest.tolist())}
        owners = [placed.nearest(row, 1)[0] for row in held[:: max(1, len(held) // 2000)]]
        loads = np.bincount([placed.workers.index(o) for o in owners], minlength=count)
        row: dict[str, Any] = {
            "shards": count,
            "probes": PROBES,
            "centroids": len(book.centroids),
            "cells": len(book.weights),
            "held": len(held),
            "asked": len(asked),
            "largest_load_over_mean": float(loads.max() / loads.mean()),
        }
        for copies in (1, 2, 3, 4, 5):
            found = np.array(
                [
                    bool(p & set(order[n][:copies]))
                    for p, n in zip(probes, nearest.tolist(), strict=True)
                ]
            )
            row[f"recall_at_1_copies_{copies}"] = float(found.mean())
            row[f"recall_at_1_copies_{copies}_similar"] = float(found[near].mean())
        names = placed.workers
        shares = [
            moved(Placement.of(book, (*names[:i], *names[i + 1 :])), placed) for i in range(count)
        ]
        row["moved_when_one_joins"] = float(np.mean(shares))
        row["most_moved"] = max(shares)
        row["fair_share"] = 1 / count
        table.append(row)
    return table
