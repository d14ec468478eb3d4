"""The attribute checker: says how much of what a scene states an image really shows.

A small convolutional network with one head a slot, trained on rendered scenes. It is the quality
score of the tiny SD-XL: exact, where a CLIP score is a proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from gesso_worker.models.tiny import folders, scenes

SLOT_NAMES: Final = tuple(scenes.SLOTS)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scores:
    """One entry an image: mean probability of the stated values, share of them right, and whether all are."""

    soft: Array
    hard: Array
    whole: Array


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, stride=2, padding=1),
        nn.SiLU(),
    )


class CheckerNet(nn.Module):
    """Images (n, 3, 64, 64) in -1..1 to logits for every slot."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 4, stride=2, padding=1), nn.SiLU())
        self.body = nn.Sequential(_block(24, 48), _block(48, 64), _block(64, 96))
        self.neck = nn.Sequential(nn.Flatten(), nn.Linear(96 * 16, 192), nn.SiLU())
        self.heads = nn.ModuleDict(
            {name: nn.Linear(192, len(v)) for name, v in scenes.SLOTS.items()}
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits by slot."""
        features = self.neck(self.body(self.stem(x)))
        return {name: head(features) for name, head in self.heads.items()}


class AttributeChecker:
    """Scores images against the scenes that their captions told."""

    def __init__(self, net: CheckerNet) -> None:
        self.net = net.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path | str | None = None) -> AttributeChecker:
        """The checker that ships with the tiny SD-XL, or the one at ``path``."""
        net = CheckerNet()
        net.load_state_dict({k: v.float() for k, v in load_file(path or folders.CHECKER).items()})
        return cls(net)

    @torch.inference_mode()
    def probabilities(self, images: Array) -> dict[str, Array]:
        """Probability of every value of every slot, of shape (n, values), for uint8 images (n, 64, 64, 3)."""
        parts: list[dict[str, torch.Tensor]] = []
        for i in range(0, len(images), 128):
            x = torch.from_numpy(np.ascontiguousarray(images[i : i + 128])).float()
            parts.append(self.net(x.permute(0, 3, 1, 2) / 127.5 - 1))
        return {
            name: torch.cat([p[name] for p in parts]).softmax(-1).numpy() for name in SLOT_NAMES
        }

    def score(self, images: Array, of: Sequence[scenes.Scene]) -> Scores:
        """Scores of uint8 images (n, 64, 64, 3) against what their scenes state."""
        if len(images) != len(of):
            raise ValueError(f"{len(images)} images for {len(of)} scenes")
        if not len(images):
            empty = np.zeros(0)
            return Scores(empty, empty, np.zeros(0, bool))
        found = self.probabilities(images)
        soft, hard = np.zeros(len(of)), np.zeros(len(of))
        for i, scene in enumerate(of):
            wanted = [
                (slot, scenes.SLOTS[slot].index(value))
                for slot, value in scenes.stated_values(scene).items()
            ]
            soft[i] = np.mean([found[slot][i, v] for slot, v in wanted])
            hard[i] = np.mean([found[slot][i].argmax() == v for slot, v in wanted])
        return Scores(soft, hard, hard == 1.0)
