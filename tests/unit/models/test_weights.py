"""The shipped weights: they load with stock classes, draw what is asked, and resume exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gesso_worker.models.tiny import captions, folders, renderer, scenes
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.sampling import Parts

TEXTS = ("a large red star above a small blue ring", "three green circles on a white background")


def test_the_stock_pipeline_loads_the_folder_and_equals_the_sampler(parts: Parts) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(
        folders.SDXL, variant="fp16", use_safetensors=True
    )
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        TEXTS[0],
        num_inference_steps=6,
        guidance_scale=2.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]
    mine = parts.decode(
        parts.denoise(parts.encode(TEXTS[:1]), parts.noise([5], 6), steps=6).latents
    )
    assert np.abs((image * 255).round() - mine[0]).max() <= 1


def test_a_generation_reproduces_bit_for_bit(parts: Parts) -> None:
    prompts = parts.encode(TEXTS)
    runs = [parts.denoise(prompts, parts.noise([1, 2], 5), steps=5).latents for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize("skip", [1, 5, 9])
def test_resuming_at_k_equals_the_uninterrupted_run(parts: Parts, skip: int) -> None:
    prompts = parts.encode(TEXTS)
    whole = parts.denoise(prompts, parts.noise([1, 2], 10), keep=[skip], steps=10)
    rest = parts.denoise(prompts, whole.kept[skip], skip=skip, steps=10)
    assert torch.equal(whole.latents, rest.latents)


def test_the_checker_is_right_about_rendered_scenes() -> None:
    rng = np.random.default_rng(99)
    drawn = [scenes.sample_scene(rng, held_out=True) for _ in range(200)]
    images = np.stack([renderer.render(scene, rng) for scene in drawn])
    checker = AttributeChecker.load()
    scores = checker.score(images, drawn)
    assert scores.hard.mean() >= 0.98
    assert scores.soft.mean() >= 0.95
    wrong = checker.score(images, drawn[1:] + drawn[:1])
    assert wrong.hard.mean() < 0.6
    assert not wrong.whole.all()
    assert len(checker.score(images[:0], []).soft) == 0
    with pytest.raises(ValueError, match="scenes"):
        checker.score(images, drawn[:-1])


def test_generated_images_show_what_was_asked(parts: Parts) -> None:
    rng = np.random.default_rng(41)
    drawn = [scenes.sample_scene(rng, held_out=True) for _ in range(8)]
    prompts = parts.encode([captions.caption(scene, rng) for scene in drawn])
    images = parts.decode(parts.denoise(prompts, parts.noise(range(8), 20), steps=20).latents)
    assert AttributeChecker.load().score(images, drawn).hard.mean() >= 0.8


@torch.inference_mode()
def test_clip_finds_the_caption_of_an_image() -> None:
    from gesso_worker.models.tiny import clip_model

    model, tokens = clip_model.load()
    rng = np.random.default_rng(8)
    drawn = [scenes.sample_scene(rng, held_out=True) for _ in range(64)]
    images = np.stack([renderer.render(scene, rng) for scene in drawn]).astype(np.float32)
    pixels = clip_model.normalise(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    a = model.encode_image(pixels, normalize=True)
    b = model.encode_text(tokens([captions.caption(scene, rng) for scene in drawn]), normalize=True)
    assert ((a @ b.T).argmax(1) == torch.arange(64)).float().mean() >= 0.85


def test_the_vae_gives_an_image_back(parts: Parts) -> None:
    rng = np.random.default_rng(4)
    image = renderer.render(scenes.sample_scene(rng), rng)
    with torch.inference_mode():
        x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        back = parts.decode(parts.vae.encode(x).latent_dist.mean)[0]
    assert ((back.astype(float) - image) ** 2).mean() < 255**2 / 10**2.3


def test_the_quality_curve_was_measured_on_these_weights_and_falls() -> None:
    found = json.loads((folders.SDXL / "quality.json").read_text())
    assert found["model_fingerprint"] == folders.fingerprint()
    assert found["skipped_steps"] == [0, 5, 10, 15, 20, 25]
    for row in (*found["by_similarity"], *found["by_kind"].values(), found["overall"]):
        assert len(row["mean"]) == len(row["sem"]) == 6
        assert row["mean"][0] == 1.0
    assert found["overall"]["mean"][5] < found["overall"]["mean"][1]
    kinds = found["by_kind"]
    assert kinds["unrelated"]["mean"][5] < kinds["repeat"]["mean"][5] - 0.1


def test_everything_that_ships_is_small() -> None:
    def size(where: Path) -> int:
        return sum(path.stat().st_size for path in where.rglob("*") if path.is_file())

    turbo = size(folders.BUILTIN / "tiny-sdxl-turbo")
    assert turbo <= 10_000_000
    assert size(folders.BUILTIN) - turbo <= 18_000_000
