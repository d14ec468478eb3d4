"""Margin, pace, and which latents are kept."""

from __future__ import annotations

import random

import pytest

from gesso.profile import Profile
from gesso_router.routing.keep import keep_latents
from gesso_router.routing.margin import Drift, Margin, Margins
from gesso_router.routing.pace import Pace
from gesso_router.routing.quality import Match

LADDER = (0, 5, 10, 15, 20, 25)


def test_the_margin_settles_where_19_of_20_stay_below() -> None:
    rng, margin, above = random.Random(1), Margin(rate=0.02), 0
    for i in range(6000):
        ratio = rng.lognormvariate(0.0, 0.2)
        above += ratio > margin.factor and i >= 1000
        margin = margin.observe(1.0, ratio, 1.5)
    assert above / 5000 == pytest.approx(0.05, abs=0.01)
    assert margin.factor == pytest.approx(1.39, abs=0.15)


def test_the_margin_stays_within_bounds() -> None:
    high = low = Margin()
    for _ in range(1000):
        high, low = high.observe(1.0, 100.0, 2.0), low.observe(1.0, 0.01, 2.0)
    assert (high.factor, low.factor) == (high.highest, low.lowest)


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.0, 0.0), (1.0, float("inf")), (float("nan"), 1.0)])
def test_times_that_cannot_be_teach_nothing(pair: tuple[float, float]) -> None:
    assert Margin().observe(*pair, 2.0) == Margin()


def test_where_most_are_refused_the_margin_is_strict() -> None:
    rng, margins, above, usually_above = random.Random(1), Margins(), 0, 0
    for i in range(12000):
        ratio = rng.lognormvariate(0.0, 0.1)
        if i >= 2000:
            above += ratio > margins.factor(most_refused=True)
            usually_above += ratio > margins.factor(most_refused=False)
        margins = margins.observe(1.0, ratio, 1.5)
    assert above / 10000 < 0.015
    assert usually_above / 10000 == pytest.approx(0.05, abs=0.01)
    assert margins.factor(most_refused=False) == margins.usual.factor


def test_an_image_far_from_its_deadline_counts_by_what_it_is_late() -> None:
    """Half a second more than estimated, of a deadline that is 10/3 s away, counts as a quarter."""
    margin = Margin(factor=1.24)
    assert margin.observe(0.5, 1.0, 10 / 3).factor > margin.factor
    assert Margin(factor=1.26).observe(0.5, 1.0, 10 / 3).factor < 1.26
    assert Margin(factor=1.26).observe(0.5, 1.0, 0.0).factor > 1.26


def test_pace_follows_the_rate_and_forgets() -> None:
    pace = Pace(window_seconds=5.0)
    for i in range(400):
        pace = pace.arrived(i * 0.1, 50 if i % 2 else 30)
    assert pace.per_second(39.9) == pytest.approx(10.0, rel=0.02)
    assert pace.mean_steps == pytest.approx(40, abs=1)
    assert pace.per_second(70.0) < 0.05
    assert Pace().per_second(5.0) == 0.0


@pytest.mark.parametrize(
    ("k", "quality", "kept"),
    [
        (0, 1.0, True),
        (5, 0.5, True),
        (10, 0.5, False),
        (15, 0.97, True),
        (15, 0.96, False),
        (25, 0.99, True),
    ],
)
def test_latents_of_runs_that_are_good_enough_are_kept(k: int, quality: float, kept: bool) -> None:
    assert keep_latents(k, quality, 50, [], LADDER) is kept


def test_a_prompt_held_in_full_is_not_kept_again() -> None:
    held = Match("e", "w", 1.0, LADDER[1:])
    assert not keep_latents(0, 1.0, 50, [held], LADDER)
    assert keep_latents(0, 1.0, 50, [Match("e", "w", 1.0, (15, 20, 25))], LADDER)
    assert keep_latents(0, 1.0, 50, [Match("e", "w", 0.99, LADDER[1:])], LADDER)


def test_drift_finds_a_worker_that_is_not_as_its_profile_says() -> None:
    profile = Profile("d", 50, 0.1, 0.2, (0.01, 0.02))
    for truth in (0.5, 2.0):
        drift = Drift()
        for _ in range(40):
            drift = drift.observe(
                drift.applied(profile).latency_seconds(0), truth * profile.latency_seconds(0), 1.0
            )
        assert drift.factor == pytest.approx(truth, rel=0.03)
        assert drift.applied(profile).latency_seconds(25, 2) == pytest.approx(
            truth * profile.latency_seconds(25, 2), rel=0.04
        )


def test_drift_is_bounded_and_one_stall_moves_it_little() -> None:
    proven = Drift()
    for _ in range(20):
        proven = proven.observe(1.0, 1.0, 1.0)
    assert 1.0 < proven.observe(1.0, 1e6, 1.0).factor < 1.2
    drift = proven
    for _ in range(1000):
        drift = drift.observe(1.0, 1e6, 1.0)
    assert drift.factor == drift.highest
    assert Drift().observe(0.0, 1.0, 1.0) == Drift()
    same = Profile("d", 50, 0.1, 0.2, (0.01,))
    assert Drift().applied(same) == same


def test_drift_learns_at_once_at_first_and_quickly_after_a_pause() -> None:
    drift = Drift()
    assert not drift.proven(0.0)
    drift = drift.observe(4.0, 1.0, 0.0)
    assert drift.factor == pytest.approx(0.25)
    assert drift.proven(30.0)
    assert not drift.proven(31.0)
    for _ in range(20):
        drift = drift.observe(1.0, 1.0, 1.0)
    assert drift.observe(1.0, 2.0, 99.0).factor == pytest.approx(0.25 * 2 ** (1 / 3))


def test_drift_carries_over_to_another_profile_of_the_same_worker() -> None:
    told, corrected = Profile("d", 50, 0.0, 0.0, (0.02,)), Profile("d", 50, 0.0, 0.0, (0.01,))
    drift = Drift().observe(1.0, 0.5, 0.0)
    carried = drift.carried(told, corrected)
    assert carried.factor == pytest.approx(1.0)
    assert carried.images == 1
    assert Drift().carried(told, corrected) == Drift()
