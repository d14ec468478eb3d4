"""Part ``floors``: how much of held-out prompts is drawn; the worth of checker, CLIP and VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from gesso_worker.models.tiny import captions, clip_model, folders, renderer, scenes
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.sampling import Parts

PROMPTS: Final = 500
BATCH: Final = 25
#: Seed of the held-out prompts: any, but always the same.
SEED: Final = 20_000


def held_out(n: int, seed: int = SEED) -> tuple[list[scenes.Scene], list[str]]:
    """Scenes that training never saw, and a caption of each."""
    rng = np.random.default_rng(seed)
    drawn = [scenes.sample_scene(rng, held_out=True) for _ in range(n)]
    return drawn, [captions.caption(scene, rng) for scene in drawn]


def generate(
    parts: Parts, texts: Sequence[str], seeds: Sequence[int], name: str
) -> np.ndarray[Any, Any]:
    """Images uint8 (n, 64, 64, 3) at K = 0, in batches."""
    out = []
    for i in tqdm(range(0, len(texts), BATCH), desc=name, mininterval=5):
        part = slice(i, i + BATCH)
        run = parts.denoise(parts.encode(texts[part]), parts.noise(seeds[part]))
        out.append(parts.decode(run.latents))
    return np.concatenate(out)


def by_slot(
    checker: AttributeChecker, images: np.ndarray[Any, Any], of: Sequence[scenes.Scene]
) -> dict[str, float]:
    """Share of stated attributes right, by slot, and over all."""
    found = checker.probabilities(images)
    right: dict[str, list[bool]] = {slot: [] for slot in scenes.SLOTS}
    for i, scene in enumerate(of):
        for slot, value in scenes.stated_values(scene).items():
            right[slot].append(scenes.SLOTS[slot][int(found[slot][i].argmax())] == value)
    out = {slot: float(np.mean(hits)) for slot, hits in right.items() if hits}
    out["all"] = float(np.mean([hit for hits in right.values() for hit in hits]))
    return {slot: round(share, 4) for slot, share in out.items()}


def measure_images(n: int = PROMPTS) -> dict[str, Any]:
    """The floors of generation: attributes and whole images right, on held-out prompts at K = 0."""
    drawn, texts = held_out(n)
    checker = AttributeChecker.load()
    images = generate(Parts.load(), texts, range(n), "floors")
    scores = checker.score(images, drawn)
    return {
        "prompts": n,
        "attributes_right": by_slot(checker, images, drawn),
        "whole_images_right": round(float(scores.whole.mean()), 4),
        "soft_score": round(float(scores.soft.mean()), 4),
    }


def measure_checker(n: int = 2000) -> dict[str, Any]:
    """The checker on rendered held-out scenes."""
    drawn, _ = held_out(n, SEED + 1)
    rng = np.random.default_rng(SEED + 2)
    images = np.stack([renderer.render(scene, rng) for scene in drawn])
    checker = AttributeChecker.load()
    whole = checker.score(images, drawn).whole.mean()
    return {
        "images": n,
        "attributes_right": by_slot(checker, images, drawn),
        "whole_images_right": round(float(whole), 4),
    }


@torch.inference_mode()
def measure_clip(n: int = PROMPTS) -> dict[str, Any]:
    """Retrieval among n held-out pairs, and whether an image prefers its caption.

    Prefers it, that is, to a caption that is wrong in one attribute.
    """
    model, tokens = clip_model.load(folders.CLIP)
    drawn, texts = held_out(n, SEED + 3)
    rng = np.random.default_rng(SEED + 4)
    rendered = np.stack([renderer.render(scene, rng) for scene in drawn]).astype(np.float32)
    pixels = torch.from_numpy(rendered).permute(0, 3, 1, 2) / 127.5 - 1

    def embed_texts(captions_: list[str]) -> torch.Tensor:
        return torch.cat(
            [
                model.encode_text(tokens(captions_[i : i + 100]), normalize=True)
                for i in range(0, len(captions_), 100)
            ]
        )

    images = torch.cat(
        [
            model.encode_image(clip_model.normalise(x), normalize=True)
            for x in torch.split(pixels, 100)
        ]
    )
    words = embed_texts(texts)
    logits = images @ words.T
    same = torch.arange(n)
    out: dict[str, Any] = {
        "pairs": n,
        "image_to_text_at_1": round((logits.argmax(1) == same).float().mean().item(), 4),
        "text_to_image_at_1": round((logits.argmax(0) == same).float().mean().item(), 4),
        "prefers_right_caption": {},
        "text_similarity": {},
    }
    for kind in scenes.KINDS:
        rows = [i for i, scene in enumerate(drawn) if kind in scenes.applicable_kinds(scene)]
        rows = [i for i in rows if kind != "style" or "style" in drawn[i].stated]
        rows = [i for i in rows if kind != "background" or "background" in drawn[i].stated]
        rows = [i for i in rows if kind != "layout" or "layout" in drawn[i].stated]
        rows = [i for i in rows if kind != "size" or drawn[i].stated & {"size0", "size1"}]
        wrong = embed_texts(
            [captions.caption(scenes.mutate(drawn[i], rng, kind=kind), rng) for i in rows]
        )
        better = logits[rows, rows] > (images[rows] * wrong).sum(1)
        out["prefers_right_caption"][kind] = round(better.float().mean().item(), 4)
        out["text_similarity"][kind] = round((words[rows] * wrong).sum(1).mean().item(), 4)
    return out


@torch.inference_mode()
def measure_vae(n: int = 200) -> dict[str, Any]:
    """Peak signal-to-noise ratio of images encoded and decoded again."""
    drawn, _ = held_out(n, SEED + 5)
    rng = np.random.default_rng(SEED + 6)
    images = np.stack([renderer.render(scene, rng) for scene in drawn])
    parts = Parts.load()
    x = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    latents = torch.cat([parts.vae.encode(part).latent_dist.mean for part in torch.split(x, 50)])
    error = (parts.decode(latents).astype(np.float32) - images).astype(np.float64)
    return {"images": n, "psnr_db": round(float(10 * np.log10(255**2 / (error**2).mean())), 2)}


def run() -> dict[str, Any]:
    """All of it."""
    out = {"checker": measure_checker(), "clip": measure_clip(), "vae": measure_vae()}
    return {**out, "generation": measure_images()}
