"""What makes the UNet faster changes no image."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_kit import settings

from gesso_worker.engine import Model, ModelLoadError, find_weights, load_model
from gesso_worker.engine.acceleration import Acceleration, accelerate
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import encode_prompt


def latents(model: Model, scales: tuple[float, ...]) -> torch.Tensor:
    """What a batch of such guidance scales ends with."""
    batch = DenoisingBatch(model.unet, model.device, model.dtype)
    members = []
    for seed, scale in enumerate(scales):
        trajectory = model.trajectory()
        conditioning = encode_prompt(model, f"prompt {seed}", guidance_scale=scale)
        members.append(Member(trajectory, conditioning, scale, model.noise(seed, trajectory)))
    batch.replace(members)
    while members[0].trajectory.remaining:
        batch.tick()
    return torch.cat([batch.latents_of(m) for m in members])


@pytest.mark.parametrize(
    "how",
    [
        Acceleration(channels_last=True),
        Acceleration(fused=True),
        Acceleration(channels_last=True, fused=True),
    ],
    ids=["channels last", "fused", "both"],
)
def test_images_stay_the_same(folder: Path, model: Model, how: Acceleration) -> None:
    fast = load_model(settings(folder), device="cpu")
    accelerate(fast.pipeline, how)
    expected = latents(model, (5.0, 1.0, 3.0))
    assert torch.allclose(latents(fast, (5.0, 1.0, 3.0)), expected, rtol=0, atol=1e-4)


def test_a_gpu_gets_all_that_costs_nothing_and_compiling_is_asked_for() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert Acceleration.of(cuda, False) == Acceleration(channels_last=True, fused=True)
    assert Acceleration.of(cuda, True).compiled
    assert Acceleration.of(cpu, False) == Acceleration()


def test_another_vae_decodes(folder: Path, model: Model, tmp_path: Path) -> None:
    model.pipeline.vae.save_pretrained(tmp_path / "vae", safe_serialization=True)
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    config["scaling_factor"] = 0.5
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config))
    with_it = replace(settings(folder), vae=str(tmp_path / "vae"))
    find_weights(with_it.source, with_it.vae)
    loaded = load_model(with_it, device="cpu")
    assert loaded.pipeline.vae.config.scaling_factor == 0.5
    assert torch.equal(loaded.unet.conv_in.weight, model.unet.conv_in.weight)
    # Latents do not depend on who decodes them.
    assert loaded.weights_digest != ""
    assert torch.equal(latents(loaded, (2.0,)), latents(model, (2.0,)))


def test_a_vae_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    def refusal(vae: Path | str) -> str:
        with pytest.raises(ModelLoadError) as caught:
            load_model(replace(settings(folder), vae=str(vae)), device="cpu")
        return str(caught.value)

    assert "spec.model.vae" in refusal(tmp_path / "nowhere")
    assert "config.json cannot be read" in refusal(tmp_path)
    assert "AutoencoderKL is needed" in refusal(folder / "unet")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (pickled / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "no safetensors file" in refusal(pickled)
