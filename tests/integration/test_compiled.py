"""A compiled model makes the same images, and compiles nothing while requests wait."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from gesso_worker.engine import Model, ModelSettings, load_model, warm_up
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import encode_prompt

SETTINGS = ModelSettings("builtin://tiny-sdxl", 4, 64, 64, 2.0)


def latents(model: Model, scales: tuple[float, ...]) -> torch.Tensor:
    batch, members = DenoisingBatch(model.unet, model.device, model.dtype), []
    for seed, scale in enumerate(scales):
        trajectory = model.trajectory()
        conditioning = encode_prompt(model, f"a red star {seed}", guidance_scale=scale)
        members.append(Member(trajectory, conditioning, scale, model.noise(seed, trajectory)))
    batch.replace(members)
    while members[0].trajectory.remaining:
        batch.tick()
    return torch.cat([batch.latents_of(m) for m in members])


@pytest.mark.timeout(400)
def test_compiled_blocks() -> None:
    torch.set_num_threads(1)
    plain = load_model(SETTINGS, device="cpu")
    compiled = load_model(replace(SETTINGS, compile=True), device="cpu")
    warm_up(compiled, 4)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    for scales in ((2.0,), (1.0,), (2.0, 1.0, 3.0), (1.0, 1.0), (2.0, 2.0, 2.0, 2.0)):
        difference = latents(compiled, scales) - latents(plain, scales)
        assert difference.abs().max() < 1e-4
    assert counters["stats"]["unique_graphs"] == graphs
