"""The monotone coupling: an alternative to Argus's ODA that reaches the planned shares in one draw.

Prompts in the order of their optimal K take the places in the order of K' (quantile to quantile). On a line it
is the optimal transport between the two distributions for every convex cost (Villani 2003, "Topics in Optimal
Transportation"). Across each boundary between levels it moves no more prompts than the shares force it to, and
so does ODA with its chaining: where a move loses the sum of what its steps lose, both lose the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from gesso_operator.planning.baselines.oda import Matrix, shares


def monotone(optimal: Sequence[float], planned: Sequence[float]) -> Matrix:
    """Row-stochastic P[optimal K][K'] that maps the shares `optimal` to `planned` in one draw.

    Levels without prompts go where the next prompt would. Raises ValueError on shares that are none.
    """
    h, f = shares(optimal, planned)
    n = len(h)
    ends = [0.0, *accumulate(f)]
    ends[-1] = max(1.0, ends[-1])
    rows = []
    low = 0.0
    for share in h:
        high = low + share
        row = [max(0.0, min(high, ends[k + 1]) - max(low, ends[k])) for k in range(n)]
        total = sum(row)
        if total > 0:
            row = [p / total for p in row]
        else:
            row = [0.0] * n
            # The first level that ends beyond: where low is the very end, the last with a share.
            beyond = [k for k in range(n) if ends[k + 1] > low and f[k] > 0]
            row[beyond[0] if beyond else max(k for k in range(n) if f[k] > 0)] = 1.0
        rows.append(tuple(row))
        low = high
    return tuple(rows)
