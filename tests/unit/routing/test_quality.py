"""Quality curves from similarity: tables, thresholds, held levels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_router.routing.predictors.thresholds import ThresholdPredictor
from gesso_router.routing.quality import (
    Match,
    Option,
    planning_curve,
    predicted_curve,
    quality_at,
    serving_options,
    stand_ins,
)

LADDER = (0, 5, 10, 15, 20, 25)


def row(
    low: float, high: float, mean: list[float], sem: float = 0.001, n: int = 50
) -> dict[str, Any]:
    return {
        "similarity_min": low,
        "similarity_max": high,
        "n": n,
        "mean": mean,
        "sem": [sem] * len(mean),
    }


def table(**change: Any) -> dict[str, Any]:
    return {
        "skipped_steps": [0, 10, 20, 30],
        "by_similarity": [
            row(0.5, 0.7, [1.0, 0.8, 0.6, 0.4]),
            row(0.7, 0.9, [1.0, 0.9, 0.8, 0.7]),
            row(0.9, 1.0, [1.0, 1.0, 0.98, 0.96]),
        ],
        **change,
    }


def sharp() -> SimilarityPredictor:
    """Without smoothing to speak of: neighbours far less certain than each bin."""
    return SimilarityPredictor(
        LADDER,
        ((0.5, 0.7), (0.7, 0.9)),
        ((1.0, 0.9, 0.8, 0.7, 0.6, 0.5), (1.0, 1.0, 1.0, 0.9, 0.9, 0.8)),
    )


@given(st.floats(-1, 1))
def test_never_rises_with_k_and_stays_within_0_and_1(similarity: float) -> None:
    for predictor in (
        SimilarityPredictor.from_table(table(), LADDER, 50),
        ThresholdPredictor(LADDER, 50),
    ):
        quality = predictor.quality(similarity)
        assert quality[0] == 1.0
        assert all(1 >= a >= b >= 0 for a, b in pairwise(quality))
        assert predictor.prompt_class(similarity) in predictor.class_names[1:]


def test_is_linear_between_centres_and_flat_beyond() -> None:
    predictor = sharp()
    assert predictor.quality(0.7)[5] == pytest.approx((0.5 + 0.8) / 2)
    assert predictor.quality(0.6) == predictor.quality(0.1) == predictor.curves[0]
    assert predictor.quality(0.95) == predictor.curves[1]


def test_a_noisy_rise_is_pooled_by_certainty() -> None:
    rows = [row(0.9, 1.0, [1.0, 0.90, 0.94, 0.80], sem=0.01)]
    got = SimilarityPredictor.from_table(table(by_similarity=rows), (0, 10, 20, 30), 50)
    assert got.quality(0.95) == pytest.approx((1.0, 0.92, 0.92, 0.80))


def test_an_uncertain_bin_leans_on_its_neighbours() -> None:
    rows = [row(0.5, 0.7, [1.0, 0.5], sem=0.2, n=3), row(0.7, 0.9, [1.0, 0.9], sem=0.005)]
    got = SimilarityPredictor.from_table(
        {"skipped_steps": [0, 10], "by_similarity": rows}, (0, 10), 50
    )
    assert got.quality(0.6)[1] > 0.85
    assert got.quality(0.8)[1] == pytest.approx(0.9, abs=0.001)


def test_ladder_levels_between_those_measured_are_interpolated() -> None:
    rows = [row(0.9, 1.0, [1.0, 0.8])]
    got = SimilarityPredictor.from_table(
        {"skipped_steps": [0, 10], "by_similarity": rows}, (0, 5, 10), 50
    )
    assert got.quality(0.95) == pytest.approx((1.0, 0.9, 0.8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skipped_steps": [5, 0]}, "skipped_steps"),
        ({"skipped_steps": [0, 10]}, "K = 25 of the ladder was not measured"),
        ({"by_similarity": []}, "by_similarity"),
        ({"by_similarity": [row(0.9, 0.5, [1, 1, 1, 1])]}, "similarity_min"),
        ({"by_similarity": [row(0.5, 0.9, [1, 1])]}, "mean"),
        ({"by_similarity": [row(0.5, 0.9, [1, 1, 1, float("nan")])]}, "mean"),
        ({"by_similarity": [{"similarity_min": 0.5}]}, "n: missing"),
    ],
    ids=["order", "ladder", "empty", "bounds", "length", "nan", "missing"],
)
def test_a_bad_table_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimilarityPredictor.from_table(table(**change), LADDER, 50)


@pytest.mark.parametrize(
    ("similarity", "free"),
    [(0.96, 25), (0.95, 20), (0.86, 15), (0.76, 10), (0.66, 5), (0.65, 0), (-1.0, 0)],
)
def test_thresholds_are_nirvanas(similarity: float, free: int) -> None:
    quality = ThresholdPredictor(LADDER, 50).quality(similarity)
    assert [q == 1.0 for q in quality] == [k <= free for k in LADDER]


def test_thresholds_scale_with_the_steps() -> None:
    assert ThresholdPredictor((0, 5, 10, 15), 25).quality(0.86)[1:] == pytest.approx(
        (1.0, 0.985, 0.965), abs=0.02
    )


def test_each_k_is_served_at_the_largest_held_level_below() -> None:
    curve = predicted_curve(sharp(), Match("e", "w", 0.6, (10, 20)))
    assert curve.quality == (1.0, 1.0, 0.8, 0.8, 0.6, 0.6)
    assert predicted_curve(sharp(), None).quality == (1.0,) * 6


def test_a_miss_allows_full_generation_only() -> None:
    assert serving_options(sharp(), []) == (Option(0, 1.0),)
    assert planning_curve(serving_options(sharp(), []), LADDER).quality == (1, 0, 0, 0, 0, 0)


def test_each_level_comes_from_the_match_that_serves_it_best() -> None:
    near, far = Match("near", "a", 0.9, (20, 25)), Match("far", "b", 0.6, (5, 20))
    got = {o.skipped_steps: o for o in serving_options(sharp(), [near, far])}
    assert {k: o.match and o.match.entry_id for k, o in got.items()} == {
        0: None,
        5: "far",
        20: "near",
        25: "near",
    }


def test_planning_counts_only_steps_that_can_be_saved() -> None:
    options = serving_options(sharp(), [Match("e", "w", 0.6, (10, 20))])
    assert planning_curve(options, LADDER).quality == (1.0, 0.8, 0.8, 0.6, 0.6, 0.0)


def test_levels_off_the_ladder_are_not_served() -> None:
    assert [o.skipped_steps for o in serving_options(sharp(), [Match("e", "w", 0.6, (7, 10))])] == [
        0,
        10,
    ]


def test_classes_are_the_bins() -> None:
    predictor = sharp()
    assert predictor.class_names == ("miss", "similarity-0.5-0.7", "similarity-0.7-0.9")
    assert predictor.prompt_class(None) == "miss"
    assert predictor.prompt_class(0.2) == "similarity-0.5-0.7"
    assert predictor.prompt_class(0.7) == "similarity-0.7-0.9"


def test_an_open_end_bin_counts_as_wide_as_its_neighbour() -> None:
    open_ended = SimilarityPredictor(
        (0, 5), ((-1.0, 0.6), (0.6, 0.7), (0.7, 0.75)), ((1.0, 0.5), (1.0, 0.7), (1.0, 0.9))
    )
    # Centres .55, .65, .725.
    assert [open_ended.quality(s)[1] for s in (0.3, 0.55, 0.6, 0.65, 0.725)] == pytest.approx(
        [0.5, 0.5, 0.6, 0.7, 0.9]
    )
    assert open_ended.class_names[1] == "similarity-below-0.6"


def test_a_table_measured_at_other_steps_is_scaled() -> None:
    rows = [row(0.9, 1.0, [1.0, 0.9, 0.8])]
    measured = {"skipped_steps": [0, 10, 20], "total_steps": 50, "by_similarity": rows}
    got = SimilarityPredictor.from_table(measured, (0, 5, 10), 25)
    assert got.quality(0.95) == pytest.approx((1.0, 0.9, 0.8))


def test_fine_bins_have_names_of_their_own() -> None:
    rows = [row(0.93, 0.9979, [1.0, 0.9]), row(0.9979, 1.0, [1.0, 0.95])]
    got = SimilarityPredictor.from_table(
        {"skipped_steps": [0, 10], "by_similarity": rows}, (0, 10), 50
    )
    assert len(set(got.class_names)) == 3


def test_stand_ins_hold_the_level_at_nearly_the_same_quality() -> None:
    matches = [
        Match("a", "w0", 0.9, (5, 10)),
        Match("b", "w1", 0.899, (10,)),
        Match("c", "w2", 0.89, (5,)),
        Match("d", "w3", 0.5, (10,)),
        Match("e", "w4", 0.895, (10,)),
        Match("f", "w5", 0.894, (10,)),
    ]
    predictor = SimilarityPredictor(
        (0, 5, 10), ((0.5, 0.5), (0.9, 0.9)), ((1.0, 0.5, 0.0), (1.0, 1.0, 1.0))
    )
    (option,) = [o for o in serving_options(predictor, matches) if o.skipped_steps == 10]
    assert option.match is not None
    assert option.match.entry_id == "a"
    assert [m.entry_id for m in stand_ins(predictor, option, matches)] == ["b", "e"]
    assert stand_ins(predictor, Option(0, 1.0), matches) == ()
    assert stand_ins(predictor, option, matches[:1]) == ()


def test_what_a_worker_used_is_rated_by_that_k() -> None:
    predictor = SimilarityPredictor(
        (0, 5, 10), ((0.5, 0.5), (0.9, 0.9)), ((1.0, 0.6, 0.2), (1.0, 0.9, 0.7))
    )
    match = Match("a", "w0", 0.9, (5, 10))
    option = Option(10, 0.71, match)
    assert quality_at(predictor, option, 10, None) == 0.71
    at = dict(zip(predictor.ladder, predictor.quality(0.9), strict=True))
    assert at[5] > at[10]
    assert quality_at(predictor, option, 5, None) == at[5]
    assert quality_at(predictor, option, 0, None) == 1.0
