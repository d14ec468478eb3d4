"""Bad input, over the wire and at the start: each refused with a clear status, the worker unharmed."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gesso.builtin import builtin_path
from gesso.rpc.v1 import worker_pb2
from gesso.vectors import packed

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from worker_process import (
    START_S,
    Worker,
    ask,
    command,
    free_port,
    generate,
    pixels,
    service_file,
    started,
    status,
)

GENERATE = "/gesso.v1.Worker/Generate"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
SOURCE = worker_pb2.LatentSource(entry_id="e")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("worker")
    with started(folder, service_file(folder)) as begin:
        yield begin("worker-0").ready()


@pytest.fixture(autouse=True)
def unharmed(worker: Worker) -> Iterator[None]:
    """Whatever a test sends: the same process makes the same image afterwards."""
    before = pixels(generate(worker))
    yield
    assert worker.process.poll() is None
    assert np.array_equal(pixels(generate(worker)), before)
    stats = worker.stats()
    assert (len(stats.active), len(stats.queued), stats.ready) == (0, 0, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"prompt": ""}, "prompt: empty", id="empty prompt"),
        pytest.param({"prompt": "x" * 10_000}, "prompt: 10000 bytes", id="10 kB prompt"),
        pytest.param({"negative_prompt": "x" * 10_000}, "negative_prompt: 10000", id="negative"),
        pytest.param({"scheduler": "Heun"}, "scheduler: 'Heun'", id="unknown scheduler"),
        pytest.param({"skipped_steps": 3, "source": SOURCE}, "skipped_steps: 3", id="off ladder"),
        pytest.param({"skipped_steps": 50, "source": SOURCE}, "skipped_steps: 50", id="K of N"),
        pytest.param({"skipped_steps": 5}, "source: none", id="no source"),
        pytest.param({"width": 60}, "width: 60", id="width not divisible"),
        pytest.param({"height": 60}, "height: 60", id="height not divisible"),
        pytest.param({"width": 4096, "height": 4096}, "width: 4096", id="enormous"),
        pytest.param({"guidance_scale": math.nan}, "guidance_scale: nan", id="guidance NaN"),
        pytest.param({"guidance_scale": math.inf}, "guidance_scale: inf", id="guidance infinite"),
        pytest.param({"images": 1000}, "images: 1000", id="too many images"),
        pytest.param({"format": 77}, "format: 77", id="unknown format"),
        pytest.param(
            {"embedding": packed([math.nan] * 64)}, "embedding: length nan", id="embedding NaN"
        ),
        pytest.param({"model": "other"}, "model: 'other'", id="unknown model"),
    ],
)
def test_a_bad_request_is_refused(worker: Worker, changes: dict[str, Any], message: str) -> None:
    code, told = status(lambda: generate(worker, **changes))
    assert code is INVALID
    assert message in told
    assert "is not allowed" in told


def test_a_negative_seed_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="out of range"):
        ask(seed=-1)


@pytest.mark.parametrize("kind", ["truncated", "garbage", "wrong wire type", "not UTF-8"])
def test_what_is_no_message_is_the_callers_fault(worker: Worker, kind: str) -> None:
    data = {
        "truncated": ask().SerializeToString()[:-1] + b"\x82",
        "garbage": b"\xff" * 40,
        "wrong wire type": b"\x12\xff\x01abc",
        "not UTF-8": b"\x12\x02\xff\xfe",
    }[kind]
    raw = worker.channel.unary_stream(GENERATE)  # bytes, as they are
    code, told = status(lambda: list(raw(data, timeout=20)))
    assert code is INVALID
    assert GENERATE in told
    if kind != "not UTF-8":  # Assign has no text there, and so a field that it does not know
        assign = worker.channel.unary_unary("/gesso.v1.Worker/Assign")
        assert status(lambda: assign(data, timeout=20))[0] is INVALID


def _pickle(model: Path) -> None:
    file = next((model / "unet").glob("*.safetensors"))
    file.unlink()
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


def _disguised_pickle(model: Path) -> None:
    next((model / "unet").glob("*.safetensors")).write_bytes(pickle.dumps({"weight": 1}))


def _torn(model: Path) -> None:
    file = next((model / "vae").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])


def _not_an_index(model: Path) -> None:
    (model / "model_index.json").write_text("{")


def _no_tokenizer(model: Path) -> None:
    shutil.rmtree(model / "tokenizer")


def _no_tokenizer_settings(model: Path) -> None:
    (model / "tokenizer_2" / "tokenizer_config.json").unlink()


def _other_shapes(model: Path) -> None:
    file = model / "unet" / "config.json"
    config = json.loads(file.read_text())
    config["block_out_channels"] = [32, 64]
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_pickle, "no safetensors file in unet/"),
        (_disguised_pickle, "cannot be loaded"),
        (_torn, "cannot be loaded"),
        (_not_an_index, "model_index.json cannot be read"),
        (_no_tokenizer, "no tokenizer in tokenizer/"),
        (_no_tokenizer_settings, "warm-up image failed"),
        (_other_shapes, "cannot be loaded"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_folder_of_bad_weights_is_refused_at_the_start(
    tmp_path: Path, spoil: Any, message: str
) -> None:
    model = Path(shutil.copytree(builtin_path("builtin://tiny-sdxl"), tmp_path / "model"))
    spoil(model)
    _refuses(service_file(tmp_path, model), message, str(model))


def test_an_unknown_scheduler_is_refused_at_the_start(tmp_path: Path) -> None:
    file = service_file(tmp_path)
    file.write_text(file.read_text().replace("dtype:", "scheduler: Heun\n    dtype:"))
    _refuses(file, "spec.model.scheduler", "Heun")


def _refuses(file: Path, *parts: str) -> None:
    done = subprocess.run(
        command("worker-9", f"127.0.0.1:{free_port()}", file),
        stderr=subprocess.PIPE,
        timeout=START_S,
        env=os.environ,
        check=False,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, "one line"
    for part in parts:
        assert part in done.stderr
