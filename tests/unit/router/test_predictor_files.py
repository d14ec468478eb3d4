"""Which predictor a service gets, and what its file must hold."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learned_kit import LADDER, SIZE, predictor, unit
from safetensors import safe_open
from safetensors.numpy import save_file

from gesso.api import DiffusionService, parse_service
from gesso.builtin import TINY_CLIP, TINY_SDXL, builtin_path
from gesso_router.predictor import (
    PREDICTOR_NAME,
    TABLE_NAME,
    OtherEmbeddingError,
    load_predictor,
    read_learned,
    write_learned,
)
from gesso_router.routing.predictors.learned import LearnedPredictor
from gesso_router.routing.predictors.learned_file import Origin
from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_router.routing.predictors.thresholds import ThresholdPredictor

ORIGIN = Origin("some/clip", "0123456789abcdef", 50)
TABLE = {
    "skipped_steps": list(LADDER),
    "by_similarity": [
        {"similarity_min": -1, "similarity_max": 1, "n": 9, "mean": [1, 0.9, 0.9, 0.9, 0.8, 0.8]}
    ],
}


def service(source: str, embedding: str = "some/clip") -> DiffusionService:
    return parse_service(
        f"""
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {{name: tiny}}
spec:
  model: {{source: "{source}", steps: 50, width: 64, height: 64, guidanceScale: 2.0}}
  slo: {{latencySeconds: 2.0, minRelativeQuality: 0.5}}
  workers: {{min: 1, max: 2, maxBatch: 4}}
  router: {{embedding: "{embedding}"}}
"""
    )


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, str]], None]) -> None:
    with safe_open(str(path), framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, metadata)
    save_file(tensors, str(path), metadata)


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    path = tmp_path / PREDICTOR_NAME
    write_learned(path, predictor(), ORIGIN)
    return path


def test_what_was_written_is_read(learned: Path) -> None:
    was, got = predictor(), read_learned(learned, LADDER, 50, "some/clip")
    assert got.class_names == was.class_names
    for seed in range(20):
        b, a = unit(seed), unit(seed + 50)
        assert got.predict(0.7, b, a) == was.predict(0.7, b, a)
        assert got.predict(0.7) == was.predict(0.7)
        seen, expected = (p.observed(0.7, b, a, 10, 0.5) for p in (got, was))
        assert seen.predict(0.7, b, a) == expected.predict(0.7, b, a)


def test_other_steps_scale_the_levels(learned: Path) -> None:
    half = read_learned(learned, (0, 5, 10), 25, "some/clip")
    assert half.levels == (2.5, 5.0, 7.5, 10.0, 12.5)
    at = dict(zip(LADDER, predictor().quality(0.7, unit(1), unit(2)), strict=True))
    assert half.quality(0.7, unit(1), unit(2)) == pytest.approx((1.0, at[10], at[20]))


def test_only_the_ladder_learned_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ladder"):
        write_learned(tmp_path / "p", predictor(ladder=(0, 10)), ORIGIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m.update(version="2"), "version: '2' is not allowed: '1'"),
        (lambda t, m: m.update(format="other"), "format: 'other' is not allowed"),
        (lambda t, m: m.pop("version"), "version: None is not allowed"),
        (lambda t, m: m.update(ladder="[5]"), r"ladder: '\[5\]' is not allowed"),
        (lambda t, m: m.update(total_steps="many"), "total_steps: 'many' is not allowed"),
        (lambda t, m: m.update(embedding_size="9"), "embedding_size: '9' is not allowed"),
        (lambda t, m: t.pop("posterior.mean"), "posterior.mean: missing"),
        (lambda t, m: t.update({"posterior.mean": np.zeros((2, 2))}), "posterior_mean: shape"),
        (lambda t, m: t.update({"features.knots": np.zeros(9)}), "mean: shape"),
        (lambda t, m: t.update({"fallback.curves": np.zeros((1, 2))}), "fallback.curves: shape"),
        (lambda t, m: t.update({"spread.label": np.full((5, 2), np.nan)}), "spread.label: not fin"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_field(
    learned: Path, change: Callable[[dict[str, Any], dict[str, str]], None], message: str
) -> None:
    changed(learned, change)
    with pytest.raises(ValueError, match=message) as raised:
        read_learned(learned, LADDER, 50, "some/clip")
    assert str(learned) in str(raised.value)


def test_no_safetensors_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / PREDICTOR_NAME).write_bytes(b"no")
    with pytest.raises(ValueError, match=PREDICTOR_NAME):
        read_learned(tmp_path / PREDICTOR_NAME, LADDER, 50, "some/clip")


def test_a_ladder_beyond_what_was_learned_is_refused(learned: Path) -> None:
    with pytest.raises(ValueError, match="K = 30"):
        read_learned(learned, (0, 30), 50, "some/clip")


def test_learned_goes_before_table_and_table_before_thresholds(
    learned: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = learned.parent
    (folder / TABLE_NAME).write_text(json.dumps(TABLE))
    assert isinstance(load_predictor(service(str(folder))), LearnedPredictor)
    with caplog.at_level(logging.WARNING):
        other = load_predictor(service(str(folder), "other/clip"))
    assert isinstance(other, SimilarityPredictor)
    assert [r.message for r in caplog.records] == ["learned predictor not used"]
    learned.unlink()
    assert isinstance(load_predictor(service(str(folder))), SimilarityPredictor)
    (folder / TABLE_NAME).unlink()
    assert isinstance(load_predictor(service(str(folder))), ThresholdPredictor)


def test_another_embedding_model_is_told_apart_from_a_broken_file(learned: Path) -> None:
    with pytest.raises(OtherEmbeddingError, match="'some/clip' is not allowed: 'other/clip'"):
        read_learned(learned, LADDER, 50, "other/clip")
    changed(learned, lambda t, m: m.update(version="2"))
    with pytest.raises(ValueError, match="version"):
        load_predictor(service(str(learned.parent)))


def test_the_tiny_model_ships_a_predictor_for_its_weights() -> None:
    got = load_predictor(service(TINY_SDXL, TINY_CLIP))
    assert isinstance(got, LearnedPredictor)
    assert got.ladder == LADDER
    assert got.features.embedding_size == 64 != SIZE
    assert len(got.class_names) >= 4
    table = json.loads((builtin_path(TINY_SDXL) / TABLE_NAME).read_text())
    with safe_open(str(builtin_path(TINY_SDXL) / PREDICTOR_NAME), framework="numpy") as file:
        assert file.metadata()["model_fingerprint"] == table["model_fingerprint"]
