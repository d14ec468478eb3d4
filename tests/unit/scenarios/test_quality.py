"""The calibrated quality table, and predictors from a table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_router.routing.predictors.thresholds import PUBLISHED_LOSS, ThresholdPredictor
from gesso_simulator.data.synthetic import SIMILARITY_PERCENTILES, log
from gesso_simulator.inputs.prompts import PromptLog
from gesso_simulator.inputs.quality_table import QualityTable
from gesso_simulator.scenarios.calibrated import (
    PUBLISHED_LADDER,
    PUBLISHED_QUALITY,
    calibrated_table,
    published_mean,
    tolerated_steps,
)
from gesso_simulator.scenarios.prediction import LEAST_IN_BIN, binned, threshold_edges
from gesso_simulator.scenarios.similarity import similarity_to_earlier

PUBLISHED = np.array([q for _, q in PUBLISHED_QUALITY])


def log_of(similarity: list[float]) -> PromptLog:
    n = len(similarity)
    return PromptLog(np.arange(n), ("x",) * n, np.array(similarity))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.integers(0, 2**32))
def test_means_are_the_published_ones_whatever_the_similarities(
    similarity: list[float], seed: int
) -> None:
    table = calibrated_table(log_of(similarity), PUBLISHED_LADDER, seed)
    assert np.abs(table.quality.mean(axis=0) - PUBLISHED).max() < 1e-9
    assert np.all(np.diff(table.quality, axis=1) <= 0)
    assert table.quality.min() >= 0
    assert np.all(table.quality[:, 0] == 1)


@pytest.mark.parametrize("seed", range(3))
def test_loss_falls_with_similarity_and_differs_within_a_class(seed: int) -> None:
    table = calibrated_table(log(), PUBLISHED_LADDER, seed)
    tolerated = tolerated_steps(table.similarity)
    near, far = table.quality[tolerated == 25], table.quality[tolerated == 0]
    assert 1 - near[:, -1].mean() < 0.3 * (1 - far[:, -1].mean())
    assert near[:, -1].std() > 0.001
    assert far[:, -1].std() > 0.005
    again = calibrated_table(log(), PUBLISHED_LADDER, seed)
    other = calibrated_table(log(), PUBLISHED_LADDER, seed + 1)
    assert np.array_equal(table.quality, again.quality)
    assert not np.array_equal(table.quality, other.quality)


def test_published_means_agree_with_the_routers_and_go_on_at_the_last_slope() -> None:
    assert [(k, pytest.approx(1 - q)) for k, q in PUBLISHED_QUALITY] == list(PUBLISHED_LOSS)
    slope = (0.9152 - 0.93235) / 5
    assert published_mean(35) == pytest.approx(0.9152 + 10 * slope)
    assert published_mean(10, steps=25) == pytest.approx(0.93235)
    table = calibrated_table(log(), (0, 20, 40), 0)
    assert table.quality.mean(axis=0)[2] == pytest.approx(published_mean(40))


def test_tolerated_steps_are_the_routers_thresholds() -> None:
    similarity = np.array([-1, 0.65, 0.651, 0.75, 0.8, 0.86, 0.9, 0.901, 0.951, 1.0, np.nan])
    assert tolerated_steps(similarity).tolist() == [0, 0, 5, 5, 10, 15, 15, 20, 25, 25, 0]
    router = ThresholdPredictor((0, 5, 10, 15, 20, 25), 50)
    for s, k in zip(similarity[:-1], tolerated_steps(similarity[:-1]), strict=True):
        assert router.prompt_class(float(s)) == f"optimal-k-{int(k)}"


def test_a_log_without_similarities_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="similarity: missing is not allowed"):
        calibrated_table(PromptLog(np.arange(1), ("x",)), PUBLISHED_LADDER, 0)


def test_prediction_is_the_mean_curve_of_the_class() -> None:
    table = calibrated_table(log(), PUBLISHED_LADDER, 0)
    predictor = binned(table, threshold_edges())
    predicted = predictor.predicted(table.similarity)
    assert np.abs(predicted.mean(axis=0) - PUBLISHED).max() < 1e-9
    assert len({tuple(row) for row in predicted.tolist()}) == 6
    assert len(predictor.class_names) == 7
    middle = (table.similarity > 0.75) & (table.similarity <= 0.85)
    mean = table.quality[middle].mean(axis=0)
    assert predictor.quality(0.8) == pytest.approx(mean)
    assert predicted[middle][0] == pytest.approx(mean)
    assert predictor.prompt_class(0.85) == predictor.prompt_class(0.8) == "similarity-above-0.75"
    assert predictor.prompt_class(None) == "miss"
    assert predictor.quality(float("nan")) == predictor.quality(-1)


@given(st.integers(1, 400), st.integers(0, 100), st.booleans())
def test_bins_are_never_thin_and_agree_one_by_one(n: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.random(n).round(1 if ties else 9)
    quality = np.column_stack([np.ones(n), rng.random(n), rng.random(n)])
    table = QualityTable((0, 5, 10), np.arange(n), similarity, quality)
    predictor = binned(table)
    predicted = predictor.predicted(similarity)
    classes = [predictor.prompt_class(s) for s in similarity.tolist()]
    if len(predictor.curves) > 1:
        assert min(classes.count(name) for name in set(classes)) >= LEAST_IN_BIN
    assert np.all(np.diff(np.array(predictor.curves), axis=1) <= 0)
    for s, row in zip(similarity.tolist(), predicted.tolist(), strict=True):
        assert list(predictor.quality(s)) == row


def test_predictors_learn_from_the_rows_meant_for_it() -> None:
    quality = np.array([[1, 0.9], [1, 0.1]])
    table = QualityTable(
        (0, 5), np.arange(2), np.array([0.5, 0.5]), quality, np.array([True, False])
    )
    assert binned(table).quality(0.5) == (1, 0.9)


def test_synthetic_similarities_have_the_published_percentiles() -> None:
    similarity = log().similarity
    assert similarity is not None
    for percentile, value in SIMILARITY_PERCENTILES[1:-1]:
        assert np.percentile(similarity, percentile) == pytest.approx(value, abs=2e-3)


def test_similarity_is_to_the_nearest_earlier_prompt() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1500, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[1200] = vectors[1100]
    found = similarity_to_earlier(vectors)
    assert np.isnan(found[0])
    assert found[1200] == pytest.approx(1)
    for i in (1, 2, 1023, 1024, 1025, 1499):
        assert found[i] == pytest.approx(float((vectors[:i] @ vectors[i]).max()), abs=1e-6)
