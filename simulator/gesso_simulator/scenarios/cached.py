"""Prompts that come without similarity: the cache that each policy's run fills, and how good its images are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gesso.api import ModelSpec
from gesso.builtin import builtin_path, is_builtin
from gesso_simulator.engine.cache import LCBFU, SimulatedCache, eviction_policy
from gesso_simulator.scenarios.calibrated import Calibration, prompt_factors
from gesso_simulator.scenarios.similarity import similarity_to_earlier
from gesso_simulator.scenarios.spec import F64, I64, QualityAt

#: SD-XL's autoencoder: channels of a latent, and pixels to one of its cells, each way.
SDXL_CHANNELS, SDXL_FACTOR = 4, 8


@dataclass(frozen=True)
class CachedPrompts:
    """Of p prompts, and again of the same p asked a second time or later, hence arrays of 2 p rows.

    `cache` makes an empty cache. `best_similarity` (2 p,) is what a cache would find that keeps all, even what
    no policy made: no cache finds more; NaN where there is nothing earlier. `quality_at_best` (2 p, k) are the
    true curves there, `quality_at` those at what was really used.
    """

    cache: Callable[[], SimulatedCache]
    best_similarity: F64
    quality_at_best: F64
    quality_at: QualityAt
    note: str


def cached_prompts(
    vectors: NDArray[np.float32],
    calibrated: Calibration,
    seed: int,
    capacity_bytes: int,
    latent_bytes: int,
    eviction: str = LCBFU,
) -> CachedPrompts:
    """From the prompts' unit vectors (p, d), in the order asked; capacity of each worker's shard in bytes.

    Raises ValueError on another eviction policy than there are.
    """
    eviction_policy(eviction)
    count = len(vectors)
    factor = prompt_factors(count, seed)
    # The second time a prompt is asked it may find itself.
    best = np.concatenate([similarity_to_earlier(vectors), np.ones(count)])

    def quality_at(prompts: I64, similarity: F64) -> F64:
        return np.maximum(0.0, calibrated.quality(similarity, factor[prompts % count]))

    def cache() -> SimulatedCache:
        return SimulatedCache(
            vectors,
            calibrated.ladder,
            calibrated.steps,
            capacity_bytes,
            latent_bytes,
            eviction=eviction,
        )

    note = (
        f"cache: simulated, {capacity_bytes} bytes on each worker, {latent_bytes} a latent, {eviction}; bounds "
        "as if it held every earlier prompt"
    )
    return CachedPrompts(cache, best, quality_at(np.arange(2 * count), best), quality_at, note)


def latent_bytes(model: ModelSpec | None) -> int:
    """Bytes of one latent as a worker keeps it; None: of SD-XL at 1024 x 1024 in float16.

    Channels and scale are those of the model's autoencoder where its files are here, else SD-XL's. Raises
    ValueError for a builtin model that is not there.
    """
    if model is None:
        return 2 * SDXL_CHANNELS * (1024 // SDXL_FACTOR) ** 2
    channels, factor = SDXL_CHANNELS, SDXL_FACTOR
    folder = builtin_path(model.source) if is_builtin(model.source) else Path(model.source)
    config = folder / "vae" / "config.json"
    if config.is_file():
        vae = json.loads(config.read_text(encoding="utf-8"))
        channels = int(vae.get("latent_channels", channels))
        # Each block but the last halves the size.
        factor = int(2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1))
    number = 2 if model.dtype == "float16" else 4  # bfloat16 is kept as float32
    return number * channels * (model.width // factor) * (model.height // factor)
