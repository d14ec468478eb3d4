"""Recall of look-ups that ask one or two of the shards, against one index of all; what a change moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gesso.placement import COPIES, PROBES, Codebook, Placement, moved
from gesso_router.codebook_training import train_codebook

F32 = NDArray[np.float32]


#: Workers that may know of an entry.
KNOWN_TO = (1, 2, 3, COPIES, 5, 6, 8)


def recall_of(probes: int, copies: int) -> str:
    """What a recall is called."""
    return f"recall_at_1_probes_{probes}_copies_{copies}"


def figures(
    held: F32, asked: F32, codebook: Codebook | None = None, shards: tuple[int, ...] = (8, 16, 32)
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
        probes = [placed.nearest(q, PROBES) for q in asked]
        order = {n: placed.nearest(held[n], max(KNOWN_TO)) for n in set(nearest.tolist())}
        owners = [placed.nearest(row, 1)[0] for row in held[:: max(1, len(held) // 2000)]]
        loads = np.bincount([placed.workers.index(o) for o in owners], minlength=count)
        row: dict[str, Any] = {
            "shards": count,
            "probes": placed.probes,
            "copies": placed.copies,
            "centroids": len(book.centroids),
            "cells": len(book.weights),
            "held": len(held),
            "asked": len(asked),
            "largest_load_over_mean": float(loads.max() / loads.mean()),
        }
        for count_asked in range(1, PROBES + 1):
            for copies in KNOWN_TO:
                found = np.array(
                    [
                        not set(order[n][:copies]).isdisjoint(p[:count_asked])
                        for p, n in zip(probes, nearest.tolist(), strict=True)
                    ]
                )
                name = recall_of(count_asked, copies)
                row[name] = float(found.mean())
                row[f"{name}_similar"] = float(found[near].mean())
        names = placed.workers
        shares = [
            moved(Placement.of(book, (*names[:i], *names[i + 1 :])), placed) for i in range(count)
        ]
        row["moved_when_one_joins"] = float(np.mean(shares))
        row["most_moved"] = max(shares)
        row["fair_share"] = 1 / count
        table.append(row)
    return table
