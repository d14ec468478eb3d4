"""The bench of full-size SD-XL, on a small one: it runs through, and its full size is SD-XL's."""

import json

import bench_sdxl
import pytest
import torch
from accelerate import init_empty_weights
from sdxl.architecture import FULL, _pipeline


def test_it_runs_and_writes_every_figure(tmp_path):
    torch.set_num_threads(1)
    out = tmp_path / "sdxl.json"
    words = ["--size", "small", "--steps", "7", "--batches", "1,2", "--repeats", "1"]
    assert bench_sdxl.main([*words, "--no-compile", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    run = report["runs"]["eager"]
    assert set(run["step_ms"]) == {"1", "2"}
    assert set(run["image_s"]) == {f"K={k}, batch {b}" for k in (0, 5) for b in (1, 2)}
    assert run["image_s"]["K=5, batch 1"] < run["image_s"]["K=0, batch 1"]
    assert min(run["stock_pipeline_s"].values()) > 0
    assert report["machine"]["device"] == ("cpu" if not torch.cuda.is_available() else "cuda")


@pytest.mark.parametrize("batches", ["2,4", "4,1", "1,1", "1,128"])
def test_batches_that_cannot_be(batches, tmp_path, capsys):
    with pytest.raises(SystemExit):
        bench_sdxl.main(["--batches", batches, "--out", str(tmp_path / "x.json")])
    assert f"--batches: {batches} is not allowed" in capsys.readouterr().err


def test_the_full_model_has_as_many_parameters_as_sdxl():
    with init_empty_weights():
        pipeline = _pipeline(FULL)
    millions = {
        name: sum(p.numel() for p in getattr(pipeline, name).parameters()) / 1e6
        for name in ("unet", "text_encoder", "text_encoder_2", "vae")
    }
    expected = {"unet": 2567, "text_encoder": 123, "text_encoder_2": 695, "vae": 84}
    assert millions == pytest.approx(expected, abs=1)
