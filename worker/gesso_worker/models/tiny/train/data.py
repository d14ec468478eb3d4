"""Stage ``data``: renders the training set once, as memory-mapped arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from gesso_worker.models.tiny import captions, renderer, scenes, tokenizer
from gesso_worker.models.tiny.train.common import Options

SCENES: Final = 120_000
#: Wordings kept of each scene.
WORDINGS: Final = 2
SLOT_NAMES: Final = tuple(scenes.SLOTS)
#: Anchor points in pixels of the 3x3 grid that the spatial probes ask about.
GRID: Final = (18.0, 32.0, 46.0)


@dataclass(frozen=True)
class Dataset:
    """Arrays of n scenes.

    images: uint8 (n, 64, 64, 3). tokens: (n, 2, 32), padded with 0. labels, stated: (n, 11); a label
    is the index of the value in :data:`scenes.SLOTS`, -1 where the slot does not exist. cells: (n, 9),
    the thing at each anchor: 0 nothing, 1 the first, 2 the second.
    """

    images: np.ndarray[Any, Any]
    tokens: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    stated: np.ndarray[Any, Any]
    cells: np.ndarray[Any, Any]


def labels_of(scene: scenes.Scene) -> tuple[list[int], list[bool]]:
    """Label of every slot (-1: does not exist) and whether the caption states it."""
    values = scenes.values(scene)
    labels = [
        scenes.SLOTS[slot].index(values[slot]) if slot in values else -1 for slot in SLOT_NAMES
    ]
    return labels, [slot in scene.stated and slot in values for slot in SLOT_NAMES]


def cells_of(scene: scenes.Scene) -> list[int]:
    """Which thing (1, 2) is at each anchor of the 3x3 grid, row by row; 0 is none."""
    cells = [0] * 9
    for i, (x, y) in enumerate(renderer.CENTRES[scene.layout]):
        column = int(np.argmin([abs(x - g) for g in GRID]))
        row = int(np.argmin([abs(y - g) for g in GRID]))
        cells[3 * row + column] = 1 + (i if scene.is_pair else 0)
    return cells


def first_pad(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens padded as the first tokenizer pads them, from tokens padded with 0."""
    after = torch.cumsum((tokens == tokenizer.EOS).int(), dim=-1) > 0
    return torch.where(after, torch.full_like(tokens, tokenizer.PAD_1), tokens)


def run(options: Options) -> None:
    """Render the set unless it is there."""
    folder = options.work / "data"
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    n = options.steps or SCENES
    rng = np.random.default_rng(options.seed)
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, 64, 64, 3)
    )
    tokens = np.zeros((n, WORDINGS, tokenizer.POSITIONS), np.uint16)
    labels = np.zeros((n, len(SLOT_NAMES)), np.int8)
    stated = np.zeros((n, len(SLOT_NAMES)), bool)
    cells = np.zeros((n, 9), np.int8)
    for i in tqdm(range(n), desc="data", mininterval=5):
        scene = scenes.sample_scene(rng, held_out=False)
        images[i] = renderer.render(scene, rng)
        for j in range(WORDINGS):
            tokens[i, j] = tokenizer.encode(captions.caption(scene, rng))
        labels[i], stated[i] = labels_of(scene)
        cells[i] = cells_of(scene)
    images.flush()
    for name, array in (
        ("tokens", tokens),
        ("labels", labels),
        ("stated", stated),
        ("cells", cells),
    ):
        np.save(folder / f"{name}.npy", array)
    (folder / "done").touch()


def load(work: Path) -> Dataset:
    """The rendered set; images stay on disk until read."""
    folder = work / "data"
    arrays = {
        name: np.load(folder / f"{name}.npy") for name in ("tokens", "labels", "stated", "cells")
    }
    return Dataset(images=np.load(folder / "images.npy", mmap_mode="r"), **arrays)
