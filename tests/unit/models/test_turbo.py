"""The turbo: put together from parts, loaded by diffusers and by the worker, and as good as its card says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gesso import builtin
from gesso.builtin import PARTS_NAME, TINY_SDXL_TURBO, builtin_path, link, parts_of
from gesso_worker.engine import ModelSettings, find_weights, load_model
from gesso_worker.footprint import bytes_of_files, bytes_of_pipeline
from gesso_worker.models.tiny import architecture, folders
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.evaluate import floors, turbo_card
from gesso_worker.models.tiny.sampling import Parts
from gesso_worker.models.tiny.train import turbo

SETTINGS = ModelSettings(TINY_SDXL_TURBO, 4, 64, 64, guidance_scale=1.0)


def test_the_folder_is_made_of_links_and_no_weights_are_stored_twice() -> None:
    folder = builtin_path(TINY_SDXL_TURBO)
    assert all(path.is_symlink() for path in folder.iterdir())
    assert (folder / "vae").resolve() == folders.SDXL / "vae"
    assert (folder / "unet").resolve() == folders.TURBO / "unet"
    stored = sum(p.stat().st_size for p in folders.TURBO.rglob("*") if p.is_file())
    assert stored < 10_000_000


def test_a_home_that_cannot_be_written_to_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    builtin._assembled.cache_clear()
    try:
        folder = builtin_path(TINY_SDXL_TURBO)
        assert folder.is_relative_to(tmp_path)
        assert (folder / "vae" / "config.json").is_file()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
        builtin._assembled.cache_clear()
        with pytest.raises(ValueError, match="tiny-sdxl-turbo cannot be put together"):
            builtin_path(TINY_SDXL_TURBO)
    finally:
        builtin._assembled.cache_clear()


def test_a_folder_that_another_process_made_first_is_taken(tmp_path: Path) -> None:
    parts = parts_of(folders.TURBO)
    link(parts, tmp_path / "model")
    link(parts, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / PARTS_NAME).write_text(json.dumps({"vae": "whole"}))
    with pytest.raises(ValueError, match="whole/vae is not there"):
        parts_of(tmp_path / "half")


def test_the_stock_pipeline_equals_the_sampler() -> None:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(
        builtin_path(TINY_SDXL_TURBO), variant="fp16", use_safetensors=True
    )
    pipe.set_progress_bar_config(disable=True)
    text = "a large red star above a small blue ring"
    image = pipe(
        text,
        num_inference_steps=4,
        guidance_scale=1.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]
    parts = Parts.load(builtin_path(TINY_SDXL_TURBO))
    run = parts.denoise(parts.encode([text]), parts.noise([5], 4), steps=4, guidance=1.0)
    assert np.abs((image * 255).round() - parts.decode(run.latents)[0]).max() <= 1


def test_it_draws_what_is_asked() -> None:
    """The floor lies between the card's figure and that of the teacher without guidance."""
    drawn, texts = floors.held_out(40, floors.SEED + 9)
    parts = Parts.load(builtin_path(TINY_SDXL_TURBO))
    run = parts.denoise(parts.encode(texts), parts.noise(range(40), 4), steps=4, guidance=1.0)
    scores = AttributeChecker.load().score(parts.decode(run.latents), drawn)
    assert scores.hard.mean() >= 0.965


def test_the_worker_loads_it_and_knows_its_size_before() -> None:
    model = load_model(SETTINGS)
    files = find_weights(TINY_SDXL_TURBO)
    told = bytes_of_files(files, 4)
    assert told == pytest.approx(bytes_of_pipeline(model.pipeline), rel=0.001)
    assert [c.timestep for c in model.trajectory().coefficients] == [999, 749, 499, 249]


def test_the_card_is_that_of_the_measurements_and_of_these_weights() -> None:
    measured = json.loads((folders.TURBO / "measured.json").read_text())
    assert (folders.TURBO / "README.md").read_text() == turbo_card.text(measured)
    assert measured["model_fingerprint"] == folders.fingerprint(folders.TURBO)
    assert measured["teacher_fingerprint"] == folders.fingerprint()
    assert all(s["images_per_second_ratio"] >= 8 for s in measured["speed"])


@pytest.mark.parametrize("substeps", [1, 2, 4])
def test_the_teachers_steps_divide_the_students(substeps: int) -> None:
    mine, theirs = turbo.segments(1), turbo.segments(substeps)
    assert len(mine) == len(theirs) == architecture.TURBO_STEPS
    for own, divided in zip(mine, theirs, strict=True):
        assert (own.times[0], own.sigmas[0]) == (divided.times[0], divided.sigmas[0])
        assert own.sigmas[-1] == pytest.approx(divided.sigmas[-1])
        assert list(divided.sigmas) == sorted(divided.sigmas, reverse=True)


@pytest.mark.parametrize("part", range(4))
def test_the_velocity_wanted_leads_where_the_teacher_went(part: int) -> None:
    sigma, after = turbo.segments(1)[part].sigmas
    x, reached = torch.randn(2, 3, 16, 8, 8, generator=torch.Generator().manual_seed(part))
    v = turbo.velocity(x, reached, sigma, after)
    assert torch.allclose(turbo.euler(x, v, sigma, after), reached, atol=1e-4)
