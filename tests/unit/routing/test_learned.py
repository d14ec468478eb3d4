"""The learned predictor: its curves, its uncertainty, and what single observations do to both."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learned_kit import LADDER, LEVELS, SIZE, change_features, predictor, unit

from gesso_router.routing.predictors.fit import fit
from gesso_router.routing.predictors.learned import Posterior
from gesso_router.routing.quality import Match, predicted_curve, serving_options

seeds = st.integers(0, 10_000)
similarities = st.floats(-1, 1)


@given(similarities, seeds, seeds, st.integers(0, 20))
def test_starts_at_1_and_never_rises(similarity: float, a: int, b: int, weights: int) -> None:
    told = predictor(weights).predict(similarity, unit(b), unit(a))
    assert told.quality[0] == 1.0
    assert all(1 >= x >= y >= 0 for x, y in pairwise(told.quality))
    assert told.sd[0] == 0.0
    assert all(sd > 0 for sd in told.sd[1:])
    assert told.quality == predictor(weights).quality(similarity, unit(b), unit(a))


@given(similarities, seeds, seeds, st.sampled_from(LADDER[1:]), st.floats(0, 1.5))
def test_an_observation_draws_its_level_and_makes_it_surer(
    similarity: float, a: int, b: int, k: int, seen: float
) -> None:
    before = predictor()
    after = before.observed(similarity, unit(b), unit(a), k, seen)
    i = LEVELS.index(k)
    phi = before.features(similarity, unit(b), unit(a))
    was, now = (1 + p.posterior.mean[i] @ phi for p in (before, after))
    assert abs(seen - now) <= abs(seen - was) + 1e-9
    assert (now - was) * (seen - was) >= -1e-9
    sd = [p.predict(similarity, unit(b), unit(a)).sd for p in (before, after)]
    assert sd[1][i + 1] < sd[0][i + 1]
    # What was seen at one level says nothing of the others.
    others = [j for j in range(len(LEVELS)) if j != i]
    assert np.array_equal(after.posterior.mean[others], before.posterior.mean[others])


def test_repeated_observations_win_and_what_is_unknowable_stays() -> None:
    p = predictor()
    for _ in range(4000):
        p = p.observed(0.8, unit(1), unit(2), 15, 0.6)
    told = p.predict(0.8, unit(1), unit(2))
    i = LEVELS.index(15)
    phi = p.features(0.8, unit(1), unit(2))
    assert 1 + p.posterior.mean[i] @ phi == pytest.approx(0.6, abs=0.005)
    loss = max(0.0, -float(p.spread.weights[i] @ phi))
    misfit = p.spread.misfit[i] @ [1.0, loss]
    assert told.sd[i + 1] == pytest.approx(misfit**0.5, rel=0.01)


def test_observing_leaves_the_old_predictor_alone() -> None:
    before = predictor()
    mean, covariance = before.posterior.mean.copy(), before.posterior.covariance.copy()
    before.observed(0.8, unit(1), unit(2), 5, 0.1)
    assert np.array_equal(before.posterior.mean, mean)
    assert np.array_equal(before.posterior.covariance, covariance)


@pytest.mark.parametrize(
    ("prompt", "neighbour"),
    [
        (None, None),
        (unit(1), None),
        (np.full(SIZE, np.nan, np.float32), unit(2)),
        (unit(1), np.full(SIZE, np.inf, np.float32)),
        (unit(1)[:-1], unit(2)[:-1]),
    ],
    ids=["none", "half", "nan", "infinite", "size"],
)
def test_without_good_embeddings_similarity_decides(
    prompt: np.ndarray | None, neighbour: np.ndarray | None
) -> None:
    p = predictor()
    told = p.predict(0.6, prompt, neighbour)
    assert told.quality == p.fallback.table.quality(0.6)
    assert told.sd == (0.0, *[0.1] * 5)
    assert p.observed(0.6, prompt, neighbour, 5, 0.5) is p
    assert p.prompt_class(0.6, prompt, neighbour) in p.class_names[1:]
    assert p.quality(float("nan"), unit(1), unit(2)) == p.fallback.table.quality(float("nan"))


@pytest.mark.parametrize(
    "odd",
    [unit(5), None, np.full(SIZE, np.inf, np.float32), unit(2)[:-1]],
    ids=["all", "none", "infinite", "size"],
)
def test_matches_at_once_are_predicted_as_one_by_one(odd: np.ndarray | None) -> None:
    p = predictor(3)
    near = [unit(1), unit(2), odd]
    matches = [Match(str(i), "w", 0.9 - 0.1 * i, (5, 10), e) for i, e in enumerate(near)]
    together = p.qualities(matches, unit(4))
    alone = [p.quality(m.similarity, unit(4), m.embedding) for m in matches]
    assert np.array(together) == pytest.approx(np.array(alone), abs=1e-6)
    assert p.qualities((), unit(4)) == []


@pytest.mark.parametrize(
    ("k", "seen", "message"),
    [(7, 0.9, "skipped_steps: 7"), (0, 0.9, "skipped_steps: 0"), (5, float("nan"), "relative_q")],
)
def test_an_observation_that_means_nothing_is_refused(k: int, seen: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor().observed(0.8, unit(1), unit(2), k, seen)


def test_classes_are_bins_of_the_loss_at_the_end() -> None:
    p = predictor()
    assert p.class_names == (
        "miss",
        "loss-from-0.2",
        "loss-0.1-0.2",
        "loss-0.02-0.1",
        "loss-below-0.02",
    )
    assert p.prompt_class(None) == "miss"
    for seed in range(200):
        b, a = unit(seed), unit(seed + 1)
        loss = 1 - p.quality(0.8, b, a)[-1]
        rank = p.class_names.index(p.prompt_class(0.8, b, a))
        assert rank == 4 - sum(loss >= edge for edge in p.class_edges)
    assert predictor(class_edges=()).class_names == ("miss", "any-loss")


def test_a_service_with_other_levels_reads_between_those_learned() -> None:
    full, part = predictor(), predictor(ladder=(0, 10, 12, 25))
    b, a = unit(3), unit(4)
    at = dict(zip(LADDER, full.quality(0.8, b, a), strict=True))
    assert part.quality(0.8, b, a) == pytest.approx(
        (1.0, at[10], at[10] + 0.4 * (at[15] - at[10]), at[25])
    )
    sd = dict(zip(LADDER, full.predict(0.8, b, a).sd, strict=True))
    assert part.predict(0.8, b, a).sd[3] == pytest.approx(sd[25])


def test_options_and_curves_use_the_embeddings() -> None:
    p = predictor()
    match = Match("e", "w", 0.8, (5, 25), unit(2))
    told = dict(zip(LADDER, p.quality(0.8, unit(1), unit(2)), strict=True))
    assert told[25] != p.quality(0.8)[-1]
    got = serving_options(p, [match], unit(1))
    assert [o.quality for o in got] == [1.0, told[5], told[25]]
    assert predicted_curve(p, match, unit(1)).quality == (1.0, *[told[5]] * 4, told[25])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ladder": (0, 5, 30)}, "ladder: K = 30"),
        ({"levels": (5.0, 5.0)}, "levels"),
        ({"class_edges": (0.2, 0.1)}, "class_edges"),
        ({"posterior": Posterior(np.zeros((5, 2)), np.zeros((5, 2, 2)))}, "posterior_mean: shape"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(**change)


@pytest.mark.parametrize("name", ["projection_bias", "hidden_bias", "change_bias", "mean", "scale"])
def test_features_of_wrong_shape_are_refused(name: str) -> None:
    features = change_features()
    with pytest.raises(ValueError, match=f"{name}: shape"):
        replace(features, **{name: getattr(features, name)[:-1]})


def test_many_matches_at_once_have_the_features_of_each() -> None:
    features = change_features()
    near = np.array([0.3, 0.95])
    b, a = np.stack([unit(1), unit(2)]), np.stack([unit(3), unit(4)])
    got = features(near, b, a)
    assert got.shape == (2, features.size)
    for i in range(2):
        assert got[i] == pytest.approx(features(float(near[i]), b[i], a[i]), abs=1e-5)


def test_fit_finds_the_weights_and_tells_misfit_from_label_noise() -> None:
    rng = np.random.default_rng(5)
    n, wanted = 6000, np.array([[-0.2, 0.05, 0.0], [-0.3, 0.1, -0.05]])
    phi = np.column_stack([np.ones(n), rng.standard_normal((n, 2))])
    truth = 1 + phi @ wanted.T + 0.05 * rng.standard_normal((n, 2))
    relative = truth[:, None] + 0.1 * rng.standard_normal((n, 2, 2))
    posterior, spread = fit(phi, relative, prior_sd=1.0)
    assert posterior.mean == pytest.approx(wanted, abs=0.01)
    assert np.array_equal(spread.weights, posterior.mean)
    at_mean = np.array([1.0, 0.25])
    assert spread.misfit @ at_mean == pytest.approx(0.05**2, rel=0.3)
    assert spread.label @ at_mean == pytest.approx(0.1**2, rel=0.1)
    # Weights lie within their own uncertainty.
    sd = np.sqrt(np.diagonal(posterior.covariance, axis1=1, axis2=2))
    assert (np.abs(posterior.mean - wanted) < 4.5 * sd).all()


def test_one_seed_shares_what_it_cannot_tell_apart() -> None:
    rng = np.random.default_rng(6)
    phi = np.ones((500, 1))
    _, spread = fit(phi, 0.8 + 0.1 * rng.standard_normal((500, 1, 1)), prior_sd=1.0)
    assert np.array_equal(spread.misfit, spread.label)
    assert 2 * spread.misfit[0] @ [1.0, 0.2] == pytest.approx(0.1**2, rel=0.15)


def test_fit_refuses_what_does_not_agree() -> None:
    with pytest.raises(ValueError, match="relative: shape"):
        fit(np.ones((3, 1)), np.ones((2, 1, 1)), 1.0)
    with pytest.raises(ValueError, match="prior_sd"):
        fit(np.ones((3, 1)), np.ones((3, 1, 1)), 0.0)
