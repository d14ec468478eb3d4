"""How near each prompt of a log comes to those before it: for logs that do not say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1024


def similarity_to_earlier(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine (p,) between each prompt and the nearest one earlier in the log, from unit vectors (p, d).

    A cache in which nothing is evicted would find it. NaN for the first prompt, -1 to 1 for the others.
    """
    count = len(vectors)
    best = np.full(count, np.nan)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        cosine = vectors[start:stop] @ vectors[:stop].T
        # Only columns before the row's own prompt are earlier.
        later = np.arange(stop)[None, :] >= np.arange(start, stop)[:, None]
        cosine[later] = -np.inf
        nearest = cosine.max(axis=1)
        found = np.isfinite(nearest)
        best[start:stop][found] = np.clip(nearest[found], -1.0, 1.0)
    return best
