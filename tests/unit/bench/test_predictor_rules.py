"""Rules that choose K, compared at equal mean steps saved."""

from __future__ import annotations

import numpy as np
import pytest
from predictor import rules

from gesso_worker.models.tiny.evaluate.quality import LADDER

N = 60


def truth() -> np.ndarray:
    falls = np.random.default_rng(3).uniform(0, 0.1, (N, 5))
    return 1 - np.concatenate([np.zeros((N, 1)), falls.cumsum(1)], axis=1)


def test_a_step_worth_nothing_is_not_skipped_at_a_loss_and_one_worth_much_always_is() -> None:
    chosen = rules.by_worth("r", truth()).chosen
    assert (chosen[0] == 0).all()
    assert (chosen[-1] == len(LADDER) - 1).all()
    # Among equally good levels the deepest saves most.
    assert (rules.by_worth("flat", np.ones((3, 6))).chosen[0] == 5).all()


def test_thresholds_without_a_shift_are_nirvanas() -> None:
    rule = rules.by_thresholds(np.array([0.6, 0.66, 0.76, 0.86, 0.91, 0.96]))
    at = int(np.flatnonzero(rules.SHIFTS == 0.0)[0])
    assert rule.chosen[at].tolist() == [0, 1, 2, 3, 4, 5]
    assert (rule.chosen[-1] >= rule.chosen[0]).all()


def test_quality_lies_between_settings_and_the_best_of_equal_ones_counts() -> None:
    saved, quality = np.array([10.0, 0.0, 10.0]), np.array([0.8, 1.0, 0.9])
    assert rules.quality_at(saved, quality, np.array([0.0, 5.0, 10.0])) == pytest.approx(
        [1.0, 0.95, 0.9]
    )


def test_nobody_beats_the_oracle() -> None:
    at = np.array([5.0, 10.0, 15.0])
    best = rules.quality_at(*rules.by_worth("o", truth()).points(truth()), at)
    similarity = np.random.default_rng(4).uniform(0.4, 1, N)
    for rule in (rules.by_thresholds(similarity), rules.fixed(N)):
        assert (best >= rules.quality_at(*rule.points(truth()), at) - 1e-9).all()


def test_a_difference_has_its_interval_around_it_and_none_with_itself() -> None:
    families = {"o": rules.by_worth("o", truth()), "f": rules.fixed(N)}
    at = np.array([5.0, 12.5])
    got = rules.differences(families, truth(), np.arange(N) // 4, at, "o", ("f", "o"))
    assert got["o"]["mean"] == got["o"]["low"] == got["o"]["high"] == [0.0, 0.0]
    for low, mean, high in zip(got["f"]["low"], got["f"]["mean"], got["f"]["high"], strict=True):
        assert 0 < low < mean < high
