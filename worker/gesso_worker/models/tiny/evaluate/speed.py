"""Part ``speed``: seconds an image on one thread, by batch size and skipped steps."""

from __future__ import annotations

import time
from typing import Any, Final

import torch

from gesso_worker.models.tiny.sampling import STEPS, Parts

TEXT: Final = "a large red star above a small blue ring on a green background"
CASES: Final = ((1, 0), (1, 25), (8, 0))
REPEATS: Final = 3


def run() -> dict[str, Any]:
    """Best of a few runs for each case: encode, all steps with guidance, decode."""
    torch.set_num_threads(1)
    parts = Parts.load()
    out: dict[str, Any] = {"threads": 1, "steps": STEPS, "cases": []}
    for batch, skip in CASES:
        start = parts.noise(range(batch))
        best = float("inf")
        for _ in range(REPEATS):
            began = time.perf_counter()
            prompts = parts.encode([TEXT] * batch)
            parts.decode(parts.denoise(prompts, start, skip=skip).latents)
            best = min(best, time.perf_counter() - began)
        out["cases"].append(
            {"batch": batch, "skipped_steps": skip, "seconds_an_image": round(best / batch, 3)}
        )
    return out
