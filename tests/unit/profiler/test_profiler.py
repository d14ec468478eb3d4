"""What `gesso profile` measures, on the tiny model."""

import pytest
import torch
import yaml
from typer.testing import CliRunner

from gesso.api import parse_service
from gesso.cli.main import app
from gesso.profile_file import load_profile_file
from gesso.profile_table import read_profile
from gesso_worker.engine import ModelSettings, load_model
from gesso_worker.profiler import stages
from gesso_worker.profiler.stages import batches_up_to, measure

SERVICE = {
    "apiVersion": "gesso.dev/v1alpha1",
    "kind": "DiffusionService",
    "metadata": {"name": "small"},
    "spec": {
        "model": {
            "source": "builtin://tiny-sdxl",
            "steps": 6,
            "width": 64,
            "height": 64,
            "dtype": "float32",
        },
        "variants": [
            {"name": "default", "skippedSteps": [0, 2, 4]},
            {"name": "short", "model": {"source": "builtin://tiny-sdxl", "steps": 3}},
        ],
        "slo": {"latencySeconds": 10},
        "workers": {"min": 1, "max": 1, "maxBatch": 2},
    },
}


def test_batches():
    assert [batches_up_to(n) for n in (1, 2, 3, 8)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 8)]


def test_every_k_at_every_batch_is_measured():
    model = load_model(ModelSettings("builtin://tiny-sdxl", 6, 64, 64, 2.0), "cpu")
    said = []
    found = measure(model, (0, 2, 4), (1, 2), 2, lambda *told: said.append(told))
    assert [s.batch for s in found.steps] == [1, 2]
    assert {(lat.skipped_steps, lat.batch) for lat in found.latencies} == {
        (k, b) for k in (0, 2, 4) for b in (1, 2)
    }
    assert len(said) == 12
    assert {total for _, _, total in said} == {12}
    for lat in found.latencies:
        # One encoding, the steps that are left, one decoding.
        ticks = lat.mean - found.encode.mean - found.decode.mean
        assert ticks > 0
        assert lat.p95 >= lat.mean


def test_a_batch_that_does_not_fit_is_left_out(monkeypatch):
    model = load_model(ModelSettings("builtin://tiny-sdxl", 6, 64, 64, 2.0), "cpu")
    run = stages._run

    def short_of_memory(model, conditioning, kept, level, size):
        if size > 2:
            raise torch.OutOfMemoryError("no more")
        return run(model, conditioning, kept, level, size)

    monkeypatch.setattr(stages, "_run", short_of_memory)
    found = measure(model, (0, 4), (1, 2, 4, 8), 1, lambda *_: None)
    assert [s.batch for s in found.steps] == [1, 2]
    monkeypatch.setattr(stages, "_run", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        measure(model, (0, 4), (1, 2), 1, lambda *_: None)


def test_the_command_writes_what_planner_and_simulator_read(tmp_path):
    service, output, picture = (tmp_path / n for n in ("service.yaml", "p.json", "p.png"))
    service.write_text(yaml.safe_dump(SERVICE))
    words = ["--service", str(service), "-o", str(output), "--plot", str(picture), "--repeats", "1"]
    result = CliRunner().invoke(app, ["profile", *words])
    assert result.exit_code == 0, result.output
    assert "a step" in result.output
    found = load_profile_file(output)
    assert found.device == "cpu"
    assert [(m.name, m.steps) for m in found.models] == [("", 6), ("short", 3)]
    assert [(s.before, s.after) for s in found.switches] == [
        ("", "short"),
        ("short", ""),
    ]
    assert 0 < found.fetch_seconds.p50 <= found.fetch_seconds.p99
    assert found.versions["torch"].startswith(torch.__version__.partition("+")[0])
    profile = read_profile(output, parse_service(service.read_text()).spec.model.steps).profile
    assert profile.max_batch == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_is_not_there_is_told_before_hours_of_work(tmp_path):
    service = tmp_path / "service.yaml"
    service.write_text(yaml.safe_dump(SERVICE))
    words = ["--service", str(service), "-o", str(tmp_path / "none" / "p.json")]
    result = CliRunner().invoke(app, ["profile", *words])
    assert result.exit_code == 1
    assert "its folder is not there" in str(result.exception)
