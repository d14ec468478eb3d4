"""Under what a latent may be used: the same weights, scheduler, steps, size, guidance and negative prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelIdentity:
    """What all requests of one worker share. `scheduler_config` is a diffusers configuration."""

    weights_digest: str
    scheduler: str
    scheduler_config: Mapping[str, Any]
    steps: int
    width: int
    height: int


def fingerprint(identity: ModelIdentity, guidance_scale: float, negative_prompt: str = "") -> str:
    """32 hexadecimal digits. Guidance of 1 and below is none, and then the negative prompt has no effect."""
    guided = guidance_scale > 1
    # Keys that start with an underscore tell of library versions, not of the schedule.
    config = {k: v for k, v in identity.scheduler_config.items() if not k.startswith("_")}
    told = {
        "weights": identity.weights_digest,
        "scheduler": identity.scheduler,
        "config": config,
        "steps": identity.steps,
        "size": [identity.width, identity.height],
        "guidance": float(guidance_scale) if guided else 1.0,
        "negative": negative_prompt if guided else "",
    }
    text = json.dumps(told, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
