"""The live profile: follows what stages take, forgets, tells only what matters, shrugs off stalls."""

import math

import pytest

from gesso.profile import Profile
from gesso_worker.engine.live_profile import TELL_SHARE, LiveProfile

MEASURED = Profile("d", 50, 0.1, 0.2, (0.02, 0.03))


def served(live: LiveProfile, slower: float, ticks: int = 2000) -> None:
    for i in range(ticks):
        batch = 1 + i % 2
        live.ticked(batch, slower * MEASURED.tick_seconds(batch))


@pytest.mark.parametrize("slower", [0.4, 0.9, 2.0])
def test_it_finds_what_steps_take_at_every_batch(slower: float) -> None:
    live = LiveProfile(MEASURED)
    served(live, slower)
    for batch in (1, 2):
        assert live.profile.tick_seconds(batch) == pytest.approx(
            slower * MEASURED.tick_seconds(batch), rel=TELL_SHARE
        )
    assert live.profile.encode_seconds == MEASURED.encode_seconds


def test_it_follows_a_device_that_changes() -> None:
    live = LiveProfile(MEASURED)
    served(live, 3.0)
    served(live, 0.5)
    assert live.profile.step_seconds[0] == pytest.approx(0.01, rel=TELL_SHARE)


def test_stages_are_followed_apart() -> None:
    live = LiveProfile(MEASURED)
    for _ in range(200):
        live.encoded(0.2)
        live.decoded(0.1)
    assert live.profile.encode_seconds == pytest.approx(0.2, rel=TELL_SHARE)
    assert live.profile.decode_seconds == pytest.approx(0.1, rel=TELL_SHARE)
    assert live.profile.step_seconds == MEASURED.step_seconds


def test_it_is_told_anew_only_when_it_moved() -> None:
    live = LiveProfile(MEASURED)
    assert live.profile is MEASURED
    served(live, 1 + TELL_SHARE / 2)
    assert live.profile is MEASURED
    served(live, 1.5)
    told = live.profile
    assert told is not MEASURED
    served(live, 1.5)
    assert live.profile is told


def test_one_stall_is_not_a_slow_device() -> None:
    live = LiveProfile(MEASURED)
    served(live, 1.0)
    live.ticked(2, 300.0)
    assert live.profile is MEASURED


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_time_teaches_nothing(seconds: float) -> None:
    live = LiveProfile(MEASURED)
    for _ in range(100):
        live.ticked(1, seconds)
        live.encoded(seconds)
        live.decoded(seconds)
    assert live.profile is MEASURED
