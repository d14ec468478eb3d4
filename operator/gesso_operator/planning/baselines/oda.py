"""Argus's route plan: redirection probabilities between the optimal and the planned share of each level.

ODA (Argus, Middleware'25) goes from the largest K down. A level with more prompts than its share passes the
surplus to the next slower level; one with fewer pulls from the nearest slower levels in turn until it is
filled. Whoever has been passed down is drawn again at its new level: a single draw often misses the planned
shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Matrix = tuple[tuple[float, ...], ...]


def oda(optimal: Sequence[float], planned: Sequence[float]) -> Matrix:
    """Row-stochastic P[optimal K][K'] over the levels, ascending in K; to be applied with `chained`.

    `optimal` and `planned` are the shares h and f, brought to sum 1. Raises ValueError on shares that are none.
    """
    h, f = shares(optimal, planned)
    n = len(h)
    mass = list(h)
    rows = [[0.0] * n for _ in range(n)]
    down = [0.0] * n
    for i in reversed(range(n)):
        gap = mass[i] - f[i]
        if gap > 0 and i:
            down[i] = gap / mass[i]
            mass[i] -= gap
            mass[i - 1] += gap
            continue
        for j in reversed(range(i)):
            # Nothing has come down to j yet, so that what is there are its own prompts.
            taken = min(max(0.0, -gap), mass[j])
            if taken > 0:
                rows[j][i] = taken / h[j]
                mass[j] -= taken
                gap += taken
    for i, row in enumerate(rows):
        stay = max(0.0, 1.0 - sum(row))
        row[i] = stay * (1.0 - down[i])
        if i:
            row[i - 1] = stay * down[i]
    return tuple(tuple(row) for row in rows)


def chained(matrix: Matrix) -> Matrix:
    """Where prompts end up that are drawn again after each move to a slower level."""
    rows: list[list[float]] = []
    for i, row in enumerate(matrix):
        final = [p if j >= i else 0.0 for j, p in enumerate(row)]
        for j in range(i):
            for k, p in enumerate(rows[j]):
                final[k] += row[j] * p
        rows.append(final)
    return tuple(tuple(row) for row in rows)


def reached(optimal: Sequence[float], matrix: Matrix) -> tuple[float, ...]:
    """The shares of the levels after prompts of these optimal levels went by the matrix once."""
    return tuple(
        sum(p * row[k] for p, row in zip(optimal, matrix, strict=True)) for k in range(len(matrix))
    )


def expected_loss(optimal: Sequence[float], matrix: Matrix, loss: Sequence[float]) -> float:
    """Mean loss of quality: `loss[k']` less `loss[k]` for a prompt of optimal level k served at a larger k'."""
    return sum(
        h * p * max(0.0, loss[served] - loss[best])
        for best, (h, row) in enumerate(zip(optimal, matrix, strict=True))
        for served, p in enumerate(row)
    )


def shares(
    optimal: Sequence[float], planned: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both brought to sum 1. Raises ValueError on unlike lengths, negative numbers, or nothing at all."""
    if len(optimal) != len(planned):
        raise ValueError(f"planned: {len(planned)} levels are not allowed: {len(optimal)}")
    found = []
    for name, values in (("optimal", optimal), ("planned", planned)):
        total = math.fsum(values)
        if min(values, default=-1.0) < 0 or not 0 < total < math.inf:
            raise ValueError(f"{name}: {tuple(values)} is not allowed: 0 or more, not all 0")
        found.append(tuple(v / total for v in values))
    return found[0], found[1]
