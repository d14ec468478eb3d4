"""Capacity: within five per cent of a queue that is played out, and its limits."""

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso.profile import Profile
from gesso_operator.planning.capacity import (
    blend_of,
    capacity,
    erlang_c,
    late_share,
    level_bound,
    utilisation_bound,
    working_batch,
)
from gesso_operator.planning.settings import Settings

SDXL = Profile("A100", 50, 0.0, 0.0, (2.545 / 50,))
REQUESTS = 60_000


def played(workers, rate, levels, shares, deadline, seed=1):
    """Late share of a first-come-first-served pool with Poisson arrivals, by discrete events."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, REQUESTS)).tolist()
    times = np.array([SDXL.latency_seconds(k) for k in levels])
    service = times[rng.choice(len(levels), REQUESTS, p=shares)].tolist()
    free = [0.0] * workers
    late = 0
    for i, (at, seconds) in enumerate(zip(arrivals, service, strict=True)):
        end = max(heapq.heappop(free), at) + seconds
        heapq.heappush(free, end)
        late += end - at > deadline and i > REQUESTS // 10
    return late / (REQUESTS - REQUESTS // 10)


@pytest.mark.parametrize("attainment", [0.95, 0.99])
@pytest.mark.parametrize("slo", [3, 5])
@pytest.mark.parametrize("workers", [1, 2, 8, 32])
@pytest.mark.parametrize(
    ("levels", "shares"), [((0,), (1.0,)), ((0, 25), (0.5, 0.5))], ids=["full", "blend"]
)
def test_capacity_is_within_five_per_cent_of_the_queue_played_out(
    workers, slo, attainment, levels, shares
):
    """Five per cent less is surely in time, and five per cent more surely is not."""
    deadline = slo * SDXL.latency_seconds(0)
    rate = capacity(workers, blend_of(SDXL, levels, shares), deadline, attainment, most=0.999)
    assert played(workers, 0.95 * rate, levels, shares, deadline) <= 1 - attainment
    assert played(workers, 1.05 * rate, levels, shares, deadline) > 1 - attainment


def test_delay_probability_is_erlangs():
    def exact(servers, load):
        terms = [load**k / math.factorial(k) for k in range(servers)]
        last = load**servers / math.factorial(servers) * servers / (servers - load)
        return last / (sum(terms) + last)

    for servers in (1, 2, 8, 32):
        for share in (0.1, 0.5, 0.95):
            assert erlang_c(servers, share * servers) == pytest.approx(
                exact(servers, share * servers)
            )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 500),
    st.floats(0.01, 10),
    st.floats(0.5, 40),
    st.floats(0.5, 0.999),
    st.floats(1.0, 1.5),
)
def test_bound_is_the_largest_that_keeps_the_promise(workers, step, slo, attainment, ratio):
    profile = Profile("gpu", 1, 0.0, 0.0, (step,), ratio)
    blend = blend_of(profile, (0,), (1.0,))
    bound = utilisation_bound(workers, blend, slo * step, attainment, 0.98)
    assert 0 <= bound <= 0.98
    if bound > 0:
        assert late_share(bound * (1 - 1e-6), workers, blend, slo * step) <= 1 - attainment + 1e-6
    if 0 < bound < 0.98:
        assert late_share(min(0.98, bound + 1e-3), workers, blend, slo * step) > 1 - attainment


@given(st.integers(1, 64), st.floats(1.5, 20))
def test_more_workers_a_longer_deadline_and_less_variation_never_lower_capacity(workers, slo):
    steady, shaky = (Profile("gpu", 1, 0.0, 0.0, (1.0,), r) for r in (1.0, 1.4))
    blend, noisy = (blend_of(p, (0,), (1.0,)) for p in (steady, shaky))
    here = capacity(workers, blend, slo, 0.95)
    assert capacity(workers + 1, blend, slo, 0.95) >= here
    assert capacity(workers, blend, slo + 1, 0.95) >= here - 1e-9
    assert capacity(workers, noisy, slo, 0.95) <= here + 1e-9


def test_deadline_shorter_than_service_leaves_nothing():
    blend = blend_of(SDXL, (0,), (1.0,))
    assert capacity(8, blend, 2.0, 0.95) == 0.0
    assert capacity(0, blend, 20.0, 0.95) == 0.0


@pytest.mark.parametrize("shares", [(), (0.0,), (-1.0,), (math.nan,), (math.inf,)])
def test_shares_that_cannot_be_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        blend_of(SDXL, (0,) * len(shares), shares)


def test_levels_that_cannot_be_in_time_are_closed():
    profile = Profile("gpu", 50, 0.0, 0.0, (0.1,))
    config = Settings(ladder=(0, 10, 25), latency_s=4.5)
    bounds = [level_bound(profile, k, 4, config) for k in config.ladder]
    assert bounds[0] == 0.0
    assert 0 < bounds[1] < bounds[2]


def test_working_batch_leaves_half_the_deadline_for_waiting():
    profile = Profile("cpu", 50, 0.0, 0.0, tuple(0.01 * b**0.7 for b in range(1, 9)))
    assert working_batch(profile, Settings(ladder=(0,), latency_s=100)) == 8
    assert working_batch(profile, Settings(ladder=(0,), latency_s=2)) == 2
    assert working_batch(profile, Settings(ladder=(0,), latency_s=100, max_batch=3)) == 3
