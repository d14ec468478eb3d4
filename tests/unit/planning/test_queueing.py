"""The utilisation bound: against an exact queue, and its limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.profile import Profile
from gesso_operator.planning.queueing import (
    level_bounds,
    utilisation_bound,
    wait_exceeds,
    working_batch,
)
from gesso_operator.planning.settings import Settings


def erlang_c(servers, load):
    """Probability of waiting in M/M/c, exactly."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize("servers", [1, 2, 8, 32])
@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.95])
def test_tail_is_close_to_the_exact_one_of_an_exponential_queue(servers, utilisation):
    wait = 1.5
    exact = erlang_c(servers, servers * utilisation) * math.exp(-servers * (1 - utilisation) * wait)
    assert wait_exceeds(utilisation, servers, 1.0, wait, 1.0) == pytest.approx(exact, abs=0.04)


@given(st.integers(1, 500), st.floats(0.01, 10), st.floats(0, 100), st.floats(0.1, 2))
def test_bound_is_the_largest_that_keeps_the_promise(servers, service, wait, variability):
    bound = utilisation_bound(servers, service, wait, 0.05, variability, 0.98)
    assert 0 <= bound <= 0.98
    assert wait_exceeds(bound, servers, service, wait, variability) <= 0.05
    if bound < 0.98:
        assert wait_exceeds(min(0.98, bound + 1e-6), servers, service, wait, variability) > 0.05


def test_larger_pools_may_be_fuller():
    bounds = [utilisation_bound(n, 1.0, 2.0, 0.05, 0.6, 0.98) for n in (1, 2, 8, 64)]
    assert bounds == sorted(bounds)
    assert bounds[0] < 0.5 < bounds[-1]


def test_deadline_shorter_than_service_leaves_nothing():
    assert utilisation_bound(8, 1.0, -0.1, 0.05, 0.6, 0.98) == 0.0


def test_levels_that_cannot_be_in_time_are_closed():
    profile = Profile("gpu", 50, 0.0, 0.0, (0.1,))
    settings = Settings(ladder=(0, 10, 25), latency_s=4.5)
    bounds = level_bounds(profile, 4, settings)
    assert bounds[0] == 0.0
    assert 0 < bounds[1] < bounds[2]


def test_working_batch_leaves_half_the_deadline_for_waiting():
    profile = Profile("cpu", 50, 0.0, 0.0, tuple(0.01 * b**0.7 for b in range(1, 9)))
    assert working_batch(profile, Settings(ladder=(0,), latency_s=100)) == 8
    assert working_batch(profile, Settings(ladder=(0,), latency_s=2)) == 2
    assert working_batch(profile, Settings(ladder=(0,), latency_s=100, max_batch=3)) == 3
