"""Previews: a linear projection that is learnt from decoded images, and looks like them."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from gesso_worker.engine import ModelSettings, load_model
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import encode_prompt
from gesso_worker.engine.decoding import decode_latents
from gesso_worker.engine.preview import LatentProjection


def _opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), dtype=float)


def test_there_is_none_before_the_first_image() -> None:
    assert LatentProjection().preview(torch.zeros(1, 4, 8, 8)) == b""


def test_a_linear_decoder_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([[20.0, 0, 0], [0, 20, 0], [0, 0, 20], [5, -5, 5]])
    projection = LatentProjection()
    for _ in range(4):
        latents = torch.randn(1, 4, 16, 16, generator=generator)
        colours = (latents[0].permute(1, 2, 0) @ weights + 128).clamp(0, 255)
        image = Image.fromarray(colours.numpy().round().astype(np.uint8))
        projection.observe(latents, image.resize((128, 128), Image.Resampling.NEAREST))
    flat = torch.zeros(1, 4, 16, 16)
    flat[:, 0] = 2.0
    assert np.abs(_opened(projection.preview(flat)) - [168, 128, 128]).max() <= 3


def test_what_is_not_finite_makes_a_picture_all_the_same() -> None:
    projection = LatentProjection()
    projection.observe(torch.randn(1, 4, 8, 8), Image.new("RGB", (64, 64), "red"))
    assert _opened(projection.preview(torch.full((1, 4, 8, 8), float("nan")))).shape == (8, 8, 3)


def test_previews_of_the_tiny_model_look_like_its_images() -> None:
    model = load_model(ModelSettings("builtin://tiny-sdxl", 20, 64, 64, 2.0), device="cpu")
    projection = LatentProjection()
    prompts = (
        "a red circle above a blue square",
        "a green star",
        "two yellow rings",
        "a purple cross",
    )
    members = [
        Member(
            trajectory := model.trajectory(),
            encode_prompt(model, prompt, guidance_scale=2.0),
            2.0,
            model.noise(seed, trajectory),
            watches=True,
        )
        for seed, prompt in enumerate((*prompts, "an orange triangle above a red star"))
    ]
    batch = DenoisingBatch(model.unet, model.device, model.dtype)
    batch.replace(members)
    half_way = None
    while members[0].trajectory.remaining:
        batch.tick()
        if members[0].trajectory.step == 10:
            half_way = batch.denoised_of(members[-1])
    images = [decode_latents(model, batch.latents_of(m)) for m in members]
    for member, image in zip(members[:-1], images, strict=False):
        projection.observe(batch.latents_of(member), image)
    assert half_way is not None
    small = np.asarray(images[-1].resize((8, 8), Image.Resampling.BOX), dtype=float)
    seen = _opened(projection.preview(half_way))
    unlike = np.asarray(images[1].resize((8, 8), Image.Resampling.BOX), dtype=float)
    assert np.abs(seen - small).mean() < 0.7 * np.abs(seen - unlike).mean()
