"""Loading: the stock classes, safetensors only; every refusal names the source and the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from engine_kit import SIDE, STEPS, settings

from gesso_worker.engine import Model, ModelLoadError, load_model, warm_up


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def _refusal(source: object) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(settings(source), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_cpu_model_is_float32_whatever_the_settings_say(folder: Path) -> None:
    model = load_model(settings(folder, dtype="float16"), device="cpu")
    assert model.dtype == torch.float32
    assert model.latent_shape == (1, 4, SIDE // 8, SIDE // 8)


def test_the_fp16_variant_is_taken_where_it_is(folder: Path, model: Model, tmp_path: Path) -> None:
    model.pipeline.save_pretrained(tmp_path / "m", variant="fp16", safe_serialization=True)
    loaded = load_model(settings(tmp_path / "m"), device="cpu")
    assert torch.equal(loaded.unet.conv_in.weight, model.unet.conv_in.weight)


def test_other_weights_have_another_digest(folder: Path, model: Model, tmp_path: Path) -> None:
    assert load_model(settings(folder), device="cpu").weights_digest == model.weights_digest
    changed = _copy(folder, tmp_path)
    file = changed / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert load_model(settings(changed), device="cpu").weights_digest != model.weights_digest


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    message = _refusal(tmp_path / "nowhere")
    assert "spec.model.source" in message
    assert "no such folder" in message


def test_a_hub_id_that_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("the hub cannot be reached")

    monkeypatch.setattr(DiffusionPipeline, "download", offline)
    message = _refusal("nobody/no-such-sdxl")
    assert "'nobody/no-such-sdxl'" in message
    assert "the hub cannot be reached" in message


def test_a_hub_id_is_served_from_the_folder_that_was_downloaded(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloaded(source: str, variant: str | None, use_safetensors: bool) -> str:
        assert (source, use_safetensors) == ("somebody/an-sdxl", True)
        if variant is not None:
            raise ValueError("no such variant")
        return str(folder)

    monkeypatch.setattr(DiffusionPipeline, "download", downloaded)
    loaded = load_model(settings("somebody/an-sdxl"), device="cpu")
    assert loaded.weights_digest == model.weights_digest


def test_an_unknown_builtin_is_refused_with_those_there_are() -> None:
    assert "builtin://" in _refusal("builtin://huge-sdxl")


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    assert "no model_index.json" in _refusal(tmp_path)


def test_a_model_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    index = json.loads((copy / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionPipeline"
    (copy / "model_index.json").write_text(json.dumps(index))
    assert "'StableDiffusionPipeline': StableDiffusionXLPipeline is needed" in _refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder_2"])
def test_torn_weights_are_refused(folder: Path, tmp_path: Path, part: str) -> None:
    copy = _copy(folder, tmp_path)
    file = next((copy / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cannot be loaded" in _refusal(copy)


def test_weights_that_are_not_safetensors_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = _copy(folder, tmp_path)
    for file in (copy / "unet").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    assert "no safetensors file in unet/" in _refusal(copy)


def test_a_size_that_the_vae_cannot_make_is_refused(folder: Path) -> None:
    with pytest.raises(
        ModelLoadError, match=r"spec\.model\.width: 36 is not allowed: a multiple of 8"
    ):
        load_model(settings(folder, width=36), device="cpu")


def test_warm_up_measures_every_batch_size(model: Model) -> None:
    warm = warm_up(model, 3)
    profile = warm.profile
    assert (profile.device, profile.steps, profile.max_batch) == ("cpu", STEPS, 3)
    assert profile.encode_seconds > 0
    assert profile.decode_seconds > 0
    assert warm.image.startswith(b"\x89PNG")


def test_weights_that_are_not_finite_are_refused_at_warm_up(folder: Path) -> None:
    broken = load_model(settings(folder), device="cpu")
    with torch.no_grad():
        broken.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ModelLoadError, match="not finite"):
        warm_up(broken, 1)
