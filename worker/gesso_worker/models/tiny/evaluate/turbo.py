"""Part ``turbo``: the distilled model beside the tiny SD-XL: the same held-out prompts, the same thread."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler
from tqdm import tqdm

from gesso.builtin import TINY_SDXL_TURBO, builtin_path
from gesso_worker.models.tiny import architecture, clip_model, folders
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.evaluate import floors, speed, turbo_card
from gesso_worker.models.tiny.evaluate.sheets import COLUMNS, FOLDER, PROMPTS, tile
from gesso_worker.models.tiny.sampling import GUIDANCE, STEPS, Parts

Images = np.ndarray[Any, Any]
MEASURED: Final = folders.TURBO / "measured.json"
BATCHES: Final = (1, 8)
REPEATS: Final = 3


@dataclass(frozen=True)
class Way:
    """A way to make images: a model, its steps and its guidance."""

    parts: Parts
    steps: int
    guidance: float

    def images(self, texts: Sequence[str], seeds: Sequence[int], name: str = "") -> Images:
        """Images uint8 (n, 64, 64, 3), in batches."""
        out = []
        starts = range(0, len(texts), floors.BATCH)
        for i in tqdm(starts, desc=name, mininterval=5, disable=not name):
            part = slice(i, i + floors.BATCH)
            run = self.parts.denoise(
                self.parts.encode(texts[part]),
                self.parts.noise(seeds[part], self.steps),
                steps=self.steps,
                guidance=self.guidance,
            )
            out.append(self.parts.decode(run.latents))
        return np.concatenate(out)


def ways() -> dict[str, Way]:
    """The turbo, the tiny SD-XL, and the tiny SD-XL at as few steps on the turbo's schedule."""
    own, short = Parts.load(), Parts.load()
    short.scheduler = EulerDiscreteScheduler(**architecture.TURBO_SCHEDULE)
    turbo = Parts.load(builtin_path(TINY_SDXL_TURBO))
    steps = architecture.TURBO_STEPS
    return {
        "turbo": Way(turbo, steps, 1.0),
        "tiny": Way(own, STEPS, GUIDANCE),
        "tiny_in_4_steps": Way(short, steps, GUIDANCE),
        "tiny_in_4_steps_unguided": Way(short, steps, 1.0),
    }


@torch.inference_mode()
def clip_scores(images: Images, texts: Sequence[str]) -> Images:
    """Cosine similarity (n,) of each image and its caption, by the tiny CLIP."""
    model, tokens = clip_model.load(folders.CLIP)
    out = []
    for i in range(0, len(texts), 100):
        pixels = torch.from_numpy(images[i : i + 100]).float().permute(0, 3, 1, 2) / 127.5 - 1
        seen = model.encode_image(clip_model.normalise(pixels), normalize=True)
        told = model.encode_text(tokens(list(texts[i : i + 100])), normalize=True)
        out.append((seen * told).sum(1).numpy())
    return np.concatenate(out)


def quality(n: int = floors.PROMPTS) -> dict[str, Any]:
    """Attributes and whole images right, and CLIPScore, of every way on the same prompts and seeds."""
    drawn, texts = floors.held_out(n)
    checker = AttributeChecker.load()
    out: dict[str, Any] = {}
    for name, way in ways().items():
        images = way.images(texts, range(n), name)
        scores = checker.score(images, drawn)
        out[name] = {
            "steps": way.steps,
            "guidance_scale": way.guidance,
            "attributes_right": floors.by_slot(checker, images, drawn),
            "whole_images_right": round(float(scores.whole.mean()), 4),
            "soft_score": round(float(scores.soft.mean()), 4),
            "soft_score_sem": round(float(scores.soft.std(ddof=1) / n**0.5), 4),
            "clip_score": round(float(clip_scores(images, texts).mean()), 4),
        }
    return out


def speeds() -> list[dict[str, Any]]:
    """Seconds an image on one thread, encode and decode included: turbo and tiny in turn, best of a few."""
    torch.set_num_threads(1)
    compared = {name: way for name, way in ways().items() if name in ("turbo", "tiny")}
    out = []
    for batch in BATCHES:
        best = dict.fromkeys(compared, float("inf"))
        for _ in range(REPEATS):
            for name, way in compared.items():
                began = time.perf_counter()
                way.images([speed.TEXT] * batch, range(batch))
                best[name] = min(best[name], time.perf_counter() - began)
        seconds = {name: round(s / batch, 4) for name, s in best.items()}
        ratio = round(best["tiny"] / best["turbo"], 1)
        out.append({"batch": batch, "seconds_an_image": seconds, "images_per_second_ratio": ratio})
    return out


def sheet() -> None:
    """The prompts of the tiny's sheet, row by row: by the turbo, and below each row by the tiny SD-XL."""
    _, texts = floors.held_out(PROMPTS)
    compared = ways()
    turbo, tiny = (compared[w].images(texts, range(PROMPTS), w) for w in ("turbo", "tiny"))
    rows = [images[i : i + COLUMNS] for i in range(0, PROMPTS, COLUMNS) for images in (turbo, tiny)]
    tile(np.concatenate(rows), COLUMNS).save(FOLDER / "turbo.png")


def run() -> None:
    """Measure, and write ``measured.json`` and the card beside the turbo's weights, and the sheet."""
    measured = {
        "quality": quality(),
        "speed": speeds(),
        "prompts": floors.PROMPTS,
        "model_fingerprint": folders.fingerprint(folders.TURBO),
        "teacher_fingerprint": folders.fingerprint(),
    }
    MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
    turbo_card.run()
    sheet()
