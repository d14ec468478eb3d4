"""Route plans: Argus's ODA with its chaining, and the monotone coupling."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_operator.planning.baselines.coupling import monotone
from gesso_operator.planning.baselines.oda import chained, expected_loss, oda, reached
from gesso_router.routing.baselines.argus import redirected

amounts = st.one_of(st.just(0.0), st.floats(1e-3, 10.0))
pairs = st.integers(1, 7).flatmap(
    lambda n: st.tuples(*[st.lists(amounts, min_size=n, max_size=n).filter(any)] * 2)
)


def shares(values):
    return tuple(np.asarray(values) / sum(values))


def assert_stochastic(matrix):
    for row in matrix:
        assert len(row) == len(matrix)
        assert min(row) >= 0
        assert sum(row) == pytest.approx(1.0)


@given(pairs)
def test_rows_are_stochastic(pair):
    for matrix in (oda(*pair), chained(oda(*pair)), monotone(*pair)):
        assert_stochastic(matrix)


@given(pairs)
def test_chained_oda_reaches_the_planned_shares(pair):
    h, f = map(shares, pair)
    assert reached(h, chained(oda(h, f))) == pytest.approx(f, abs=1e-9)


@given(pairs)
def test_the_monotone_coupling_reaches_them_in_one_draw(pair):
    h, f = map(shares, pair)
    assert reached(h, monotone(h, f)) == pytest.approx(f, abs=1e-9)


@given(pairs)
def test_the_monotone_coupling_never_crosses(pair):
    h, f = map(shares, pair)
    matrix = monotone(h, f)
    highest = -1
    for share, row in zip(h, matrix, strict=True):
        used = [k for k, p in enumerate(row) if p > 1e-9]
        if share > 1e-9:
            assert min(used) >= highest
            highest = max(used)


@given(pairs, st.data())
def test_both_lose_the_same(pair, data):
    h, f = map(shares, pair)
    steps = data.draw(st.lists(st.floats(0.0, 0.2), min_size=len(h), max_size=len(h)))
    loss = tuple(accumulate(steps))
    by_oda = expected_loss(h, chained(oda(h, f)), loss)
    assert by_oda == pytest.approx(expected_loss(h, monotone(h, f), loss), abs=1e-9)


def test_a_single_draw_often_misses_the_planned_shares():
    rng = np.random.default_rng(7)
    cases = [rng.dirichlet(np.ones(6), size=2) for _ in range(400)]
    missed = [max(abs(np.subtract(reached(h, oda(h, f)), f))) > 1e-9 for h, f in cases]
    assert 0.4 < np.mean(missed) < 1.0


def test_a_deficit_pulls_from_the_nearest_slower_levels_and_a_surplus_goes_one_down():
    pulled = oda((0.5, 0.3, 0.2), (0.3, 0.1, 0.6))
    assert pulled[2] == (0.0, 0.0, 1.0)
    # All 0.3 of the middle go up; then it takes 0.1 from below, and the top takes 0.1 more.
    assert pulled[1] == (0.0, 0.0, 1.0)
    assert pulled[0] == pytest.approx((0.6, 0.2, 0.2))
    passed = oda((0.2, 0.3, 0.5), (0.6, 0.3, 0.1))
    assert passed[2] == pytest.approx((0.0, 0.8, 0.2))
    assert passed[1] == pytest.approx((4 / 7, 3 / 7, 0.0))
    assert passed[0] == (1.0, 0.0, 0.0)


def test_equal_shares_move_nobody():
    assert np.array(oda((0.2, 0.8), (1.0, 4.0))) == pytest.approx(np.eye(2))


@pytest.mark.parametrize("bad", [(0.0, 0.0), (-0.1, 1.1), (float("nan"), 1.0), (1.0,)])
def test_what_is_no_share_is_refused(bad):
    for route in (oda, monotone):
        with pytest.raises(ValueError, match=r"(is|are) not allowed"):
            route((0.5, 0.5), bad)


@given(pairs)
def test_the_routers_draws_follow_the_chained_matrix(pair):
    """The router's one draw per prompt, cut up, over an even grid of draws."""
    h, f = map(shares, pair)
    matrix, n = oda(h, f), 2000
    final = chained(matrix)
    for i in range(len(h)):
        ends = [redirected(i, matrix, (d + 0.5) / n) for d in range(n)]
        counted = np.bincount(ends, minlength=len(h)) / n
        # Each cut of the unit interval may shift a boundary by one grid cell.
        assert counted == pytest.approx(final[i], abs=2 * len(h) / n)
