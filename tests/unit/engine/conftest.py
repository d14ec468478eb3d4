"""Fixtures: a real but minute SD-XL with random weights, and engines on it that are stopped in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

# Test modules are imported by path, so helpers beside them need this to be found.
sys.path.insert(0, str(Path(__file__).parent))

from engine_kit import Gate, Pipe, StartEngine, build_pipeline, settings

from gesso_worker.engine import Engine, EngineSettings, Model, load_model
from gesso_worker.engine.schedule import SCHEDULERS


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("sdxl")
    build_pipeline().save_pretrained(path, safe_serialization=True)
    return path


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    return load_model(settings(folder), device="cpu")


@pytest.fixture(scope="session")
def models(folder: Path) -> dict[str, Model]:
    """One for each scheduler."""
    return {name: load_model(settings(folder, scheduler=name), device="cpu") for name in SCHEDULERS}


@pytest.fixture
def start_engine(model: Model) -> Iterator[StartEngine]:
    engines: list[tuple[Engine, Any]] = []

    def start(unet: Any = None, keep: Any = None, **changes: Any) -> Engine:
        used = model if unet is None else replace(model, pipeline=Pipe(model.pipeline, unet))
        engine = Engine(used, replace(EngineSettings(max_batch=4, max_accepted=8), **changes), keep)
        engine.start()
        engines.append((engine, unet))
        return engine

    yield start
    for engine, unet in engines:
        if isinstance(unet, Gate):
            unet.open_wide()
        engine.stop()
