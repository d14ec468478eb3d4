"""LCBFU, LRU and FIFO on the same prompts in their real order: hits, and denoising steps skipped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gesso_router.routing.baselines.nirvana import tolerated_k
from gesso_router.routing.keep import keep_latents
from gesso_router.routing.quality import held_at
from gesso_simulator.engine.cache import SimulatedCache
from gesso_worker.cache.policy import ITEM_OVERHEAD_BYTES, POLICIES, entry_bytes

F32 = NDArray[np.float32]
LADDER = (0, 5, 10, 15, 20, 25)
STEPS = 50
LATENT_BYTES = 131_072


def figures(rows: F32, shares: tuple[float, ...]) -> list[dict[str, float | str]]:
    """By policy and capacity, as a share of what all prompts would take. `rows` (n, d) in the order asked.

    K is the largest that NIRVANA's thresholds let a prompt skip and that its nearest entries hold; what is kept
    is as live.
    """
    whole = entry_bytes(rows.shape[1]) + 5 * (LATENT_BYTES + ITEM_OVERHEAD_BYTES)
    table: list[dict[str, float | str]] = []
    for share in shares:
        for name in POLICIES:
            capacity = int(share * len(rows)) * whole
            cache = SimulatedCache(rows, LADDER, STEPS, capacity, LATENT_BYTES, eviction=name)
            hits = skipped = 0
            for prompt in range(len(rows)):
                matches = cache.lookup(prompt, float(prompt))
                options = [
                    (held_at(tolerated_k(m.similarity, STEPS), m.held_levels), m) for m in matches
                ]
                k, match = max(options, key=lambda o: (o[0], o[1].similarity), default=(0, None))
                hits += k > 0
                skipped += k
                keep = keep_latents(k, 1.0 if k == 0 else 0.9, STEPS, matches, LADDER)
                cache.served(prompt, k, "w", float(prompt), match if k else None, keep)
            table.append(
                {
                    "policy": name,
                    "capacity_share": share,
                    "hit_ratio": hits / len(rows),
                    "mean_skipped_steps": skipped / len(rows),
                    "evictions": cache.figures()["cache_evictions"],
                }
            )
    return table
