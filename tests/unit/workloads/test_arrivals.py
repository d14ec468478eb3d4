"""Arrivals follow their shape; sessions iterate."""

import numpy as np
import pytest

from gesso_simulator.workloads.arrivals import SWING, RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import SessionMix, prompts, requests, session_prompts


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(((0.0, 1.0),), id="one-point"),
        pytest.param(((1.0, 1.0), (2.0, 1.0)), id="not-from-0"),
        pytest.param(((0.0, 1.0), (0.0, 2.0)), id="time-stands-still"),
        pytest.param(((0.0, 1.0), (1.0, -0.1)), id="negative-rate"),
    ],
)
def test_a_bad_shape_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="points"):
        RateShape(points)


def test_the_swing_goes_from_0_3_to_1_6() -> None:
    rates = [rate for _, rate in SWING.points]
    assert (min(rates), max(rates), SWING.seconds) == (0.3, 1.6, 180.0)


def test_scaling_keeps_the_form() -> None:
    scaled = SWING.scaled(90, 4.0)
    assert scaled.seconds == 90
    assert scaled.rate(35) == pytest.approx(4 * SWING.rate(70))
    assert scaled.mean() == pytest.approx(4 * SWING.mean())


@pytest.mark.parametrize("seed", range(5))
def test_arrivals_have_the_rate_of_the_shape(seed: int) -> None:
    shape = RateShape(((0.0, 2.0), (500.0, 2.0), (500.1, 10.0), (1000.0, 10.0)))
    arrivals = np.array(poisson_arrivals(shape, np.random.default_rng(seed)))
    assert (np.diff(arrivals) > 0).all()
    low, high = (arrivals < 500).sum(), (arrivals >= 500).sum()
    # Five standard deviations of the Poisson counts.
    assert abs(low - 1000) < 5 * np.sqrt(1000)
    assert abs(high - 5000) < 5 * np.sqrt(5000)


def test_no_load_has_no_arrivals() -> None:
    shape = RateShape(((0.0, 0.0), (10.0, 0.0)))
    assert poisson_arrivals(shape, np.random.default_rng(0)) == []


def test_the_same_seed_gives_the_same_requests() -> None:
    def make() -> list[tuple[str, int]]:
        rng = np.random.default_rng(3)
        stream = prompts(SessionMix(), rng)
        return [(r.prompt, r.seed) for r in requests([0.1, 0.2, 0.3], stream, rng)]

    assert make() == make()


def test_users_iterate_and_repeat() -> None:
    stream = prompts(SessionMix(), np.random.default_rng(1))
    items = [next(stream) for _ in range(600)]
    texts = [text for text, _ in items]
    repeats = 1 - len(set(texts)) / len(texts)
    # As in logs of real users.
    assert 0.1 < repeats < 0.2
    openers = {scene.things for _, scene in items}
    assert len(openers) > 50


def test_a_session_is_one_users_run_of_changes() -> None:
    told = session_prompts(SessionMix(users=4), np.random.default_rng(2))
    items = [next(told) for _ in range(800)]
    plain = prompts(SessionMix(users=4), np.random.default_rng(2))
    assert [(i.prompt, i.scene) for i in items] == [next(plain) for _ in range(800)]
    last = {item.session: at for at, item in enumerate(items)}
    firsts = {item.session: at for at, item in reversed(list(enumerate(items)))}
    # Sessions are counted as they begin, at most 4 are open at once, and lengths are about the mean.
    assert [s for s, _ in sorted(firsts.items(), key=lambda pair: pair[1])] == sorted(firsts)
    for at in range(800):
        assert sum(firsts[s] <= at <= last[s] for s in firsts) <= 4
    assert 800 / len(firsts) == pytest.approx(8, rel=0.25)
