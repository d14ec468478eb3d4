"""The fixed fleet's bound is the linear programme's optimum, and nothing real beats it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from bound_cases import fixed_fleets, run_pool
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import lil_array

from gesso_simulator.bounds import BoundInstance, Workers, best_quality_at, least_violations
from gesso_simulator.bounds.fluid import releases_and_limits


def programme(instance, informed, served=None, one_each=True):
    """Served and quality by HiGHS: x[i, k] in 0..1, every window i..j holds the work given to its requests.

    With `served`, the most quality of that many; without, most served first.
    """
    curves = instance.curves(informed=informed)
    n, variants = curves.shape
    release, limit = releases_and_limits(
        instance.arrivals_s,
        instance.slo_s,
        instance.workers,
        np.ones(instance.service_s.shape[0]),
        one_each=one_each,
    )
    cost = np.where(instance.service_s[0] <= instance.slo_s, instance.service_s[0], 0)
    rows = lil_array((n + n * (n + 1) // 2, n * variants))
    upper = []
    for i in range(n):
        rows[i, i * variants : (i + 1) * variants] = 1
        upper.append(1.0)
    for r, (i, j) in enumerate(itertools.combinations_with_replacement(range(n), 2), start=n):
        rows[r, i * variants : (j + 1) * variants] = np.tile(cost, j - i + 1)
        upper.append(max(limit[j] - release[i], 0.0))
    bounds = [(0, 1 if q > 0 else 0) for q in curves.ravel()]
    count = np.ones(n * variants)
    quality = np.nan_to_num(curves.ravel())
    if served is None:
        first = linprog(-count, A_ub=rows.tocsr(), b_ub=upper, bounds=bounds, method="highs")
        served = -first.fun
    second = linprog(
        -quality,
        A_ub=rows.tocsr(),
        b_ub=upper,
        A_eq=count[None, :],
        b_eq=[max(served - 1e-9, 0)],
        bounds=bounds,
        method="highs",
    )
    assert second.status == 0
    return served, -second.fun


@settings(max_examples=150, deadline=None)
@given(fixed_fleets(), st.booleans())
def test_the_pass_over_arrivals_is_the_linear_programme(instance, informed):
    served, quality = programme(instance, informed)
    violations, mean, _ = least_violations(instance, informed=informed)
    assert violations == pytest.approx(1 - served / instance.arrivals_s.size, abs=1e-6)
    if served > 1e-3:
        assert mean == pytest.approx(quality / served, abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(fixed_fleets(), st.floats(0.05, 0.95))
def test_quality_at_a_violation_ratio_is_the_linear_programme(instance, share):
    most, _ = programme(instance, False)
    assume(most > 0.1)
    served = most * share
    _, quality = programme(instance, False, served)
    ratio = 1 - served / instance.arrivals_s.size
    got = best_quality_at(instance, ratio, informed=False)
    assert got >= quality / served - 1e-6
    assert got == pytest.approx(quality / served, abs=2e-4)


def with_each_class_its_own_windows(instance):
    """Served and quality by HiGHS where each device class does work of its own: x[i, class, variant]."""
    curves = instance.curves(informed=False)
    n, variants = curves.shape
    classes = instance.service_s.shape[0]
    width = classes * variants
    pairs = list(itertools.combinations_with_replacement(range(n), 2))
    rows = lil_array((n + classes * len(pairs), n * width))
    upper = [1.0] * n
    for i in range(n):
        rows[i, i * width : (i + 1) * width] = 1
    r = n
    for c in range(classes):
        only = np.eye(classes)[c]
        gone = instance.workers.worker_seconds(instance.arrivals_s, only)
        until = instance.workers.worker_seconds(instance.arrivals_s + instance.slo_s, only)
        for i, j in pairs:
            for m in range(i, j + 1):
                start = m * width + c * variants
                rows[r, start : start + variants] = instance.service_s[c]
            upper.append(until[j] - gone[i])
            r += 1
    can = (curves > 0)[:, None, :] & (instance.service_s <= instance.slo_s)[None]
    bounds = [(0, 1 if ok else 0) for ok in can.ravel()]
    count = np.ones(n * width)
    quality = np.nan_to_num(np.repeat(curves[:, None, :], classes, axis=1)).ravel()
    args = {"A_ub": rows.tocsr(), "b_ub": upper, "bounds": bounds, "method": "highs"}
    served = -linprog(-count, **args).fun
    best = linprog(-quality, A_eq=count[None, :], b_eq=[max(served - 1e-9, 0)], **args)
    assert best.status == 0
    return served, -best.fun


@settings(max_examples=60, deadline=None)
@given(fixed_fleets(most_requests=8, device_classes=(2, 3), steps=(1, 1)))
def test_surrogates_of_unlike_device_classes_bound_their_programme(instance):
    instance = replace(instance, at_once=2)
    served, quality = with_each_class_its_own_windows(instance)
    least, mean, _ = least_violations(instance, informed=False)
    violations = 1 - served / instance.arrivals_s.size
    assert violations >= least - 1e-6
    if served > 1e-3 and violations <= least + 1e-7:
        assert quality / served <= mean + 1e-5


@st.composite
def pool_policies(draw):
    kind = draw(st.sampled_from(["fixed", "random", "backlog", "best"]))
    k = draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shed = draw(st.sampled_from([0.0, 0.1]))
    price = draw(st.floats(0, 0.3))

    def choose(request, start, in_time, quality):
        if rng.random() < shed:
            return None
        if kind == "fixed":
            return k if k in in_time else None
        if kind == "random":
            return int(rng.choice(in_time))
        if kind == "best":
            return max(in_time, key=lambda v: quality[v])
        # A later variant is a faster one.
        return max(in_time, key=lambda v: quality[v] + price * start * v)

    return choose


def assert_not_beaten(instance, violations, quality):
    least, mean, _ = least_violations(instance, informed=False)
    assert violations >= least - 1e-9
    if violations >= 1:
        return
    if violations <= least + 1e-9:
        assert quality <= mean + 1e-9
    else:
        assert quality <= best_quality_at(instance, violations, informed=False) + 1e-9


@settings(max_examples=150, deadline=None)
@given(fixed_fleets(most_requests=40, device_classes=(1, 3), steps=(1, 1)), pool_policies())
def test_no_pool_beats_it(instance, choose):
    assert_not_beaten(instance, *run_pool(instance, choose))


@settings(max_examples=60, deadline=None)
@given(fixed_fleets(most_requests=4, device_classes=(1, 2), steps=(1, 1)))
def test_no_schedule_at_all_beats_it(instance):
    """Every order of every subset, at every choice of variants, on any worker."""
    assume(instance.workers.counts.sum() <= 3)
    n, variants = instance.quality.shape
    assume(n * variants <= 9)
    outcomes = {}
    devices = [d for d, c in enumerate(instance.workers.counts[0]) for _ in range(int(c))]

    def extend(free, left, served, quality):
        outcomes[served] = max(outcomes.get(served, 0.0), quality)
        for i in left:
            for w, k in itertools.product(range(len(free)), range(variants)):
                finish = max(free[w], instance.arrivals_s[i]) + instance.service_s[devices[w], k]
                late = finish > instance.arrivals_s[i] + instance.slo_s
                if late or not instance.quality[i, k] > 0:
                    continue
                after = (*free[:w], finish, *free[w + 1 :])
                extend(after, left - {i}, served + 1, quality + instance.quality[i, k])

    extend((0.0,) * len(devices), frozenset(range(n)), 0, 0.0)
    for served, quality in outcomes.items():
        if served:
            assert_not_beaten(instance, 1 - served / n, quality / served)


@settings(max_examples=60, deadline=None)
@given(fixed_fleets(steps=(1, 1)))
def test_knowing_more_never_lowers_the_bound(instance):
    # At the same moment: else chance decides whether those of a class that come at the peak are its worst.
    instance = replace(instance, arrivals_s=np.zeros(instance.arrivals_s.size))
    told, mean, _ = least_violations(instance, informed=True)
    known, best, _ = least_violations(instance, informed=False)
    assert known == pytest.approx(told, abs=1e-9)
    assert best >= mean - 1e-9


def steady(rate, workers, n=4000, slo=6.0, at_once=1):
    arrivals = np.arange(1, n + 1) / rate
    quality = np.tile([1.0, 0.9], (n, 1))
    service = np.array([[2.0, 1.0]])
    return BoundInstance(
        arrivals, quality, np.zeros(n, dtype=np.int64), slo, service, workers, at_once
    )


def test_steady_load_between_the_levels_mixes_them():
    # 8 workers at 6 requests/s have 4/3 s each: a third of them get the second second.
    violations, quality, _ = least_violations(steady(6.0, Workers.constant(8)), informed=True)
    assert violations == 0
    assert quality == pytest.approx(0.9 + 0.1 / 3, abs=2e-3)


def test_steady_overload_sheds_what_the_fastest_level_cannot_serve():
    violations, quality, _ = least_violations(steady(10.0, Workers.constant(8)), informed=True)
    assert violations == pytest.approx(0.2, abs=0.012)
    assert quality == pytest.approx(0.9, abs=1e-3)


def test_lost_workers_count_only_while_they_are_away():
    away = Workers(np.array([0.0, 200.0, 400.0]), np.array([[8.0], [4.0], [8.0]]))
    violations, _, _ = least_violations(steady(6.0, away), informed=True)
    # 200 s at 6 - 4 requests/s too many.
    assert violations == pytest.approx(400 / 4000, abs=0.01)


def test_two_device_classes_that_differ_by_a_factor_are_one_pool():
    n = 2000
    service = np.array([[2.0, 1.0], [1.0, 0.5]])
    quality = np.tile([1.0, 0.9], (n, 1))
    classes = np.zeros(n, dtype=np.int64)
    arrivals = np.arange(1, n + 1) / 6.0
    two = BoundInstance(arrivals, quality, classes, 6.0, service, Workers.constant(4, 2), 2)
    one = BoundInstance(arrivals, quality, classes, 6.0, service[:1], Workers.constant(8), 2)
    for mine, theirs in zip(
        least_violations(two, informed=True)[:2],
        least_violations(one, informed=True)[:2],
        strict=True,
    ):
        assert mine == pytest.approx(theirs, abs=1e-9)


def test_windows_are_narrower_where_a_worker_runs_one_request_at_a_time():
    instance = steady(7.0, Workers.constant(8))
    release, limit = releases_and_limits(
        instance.arrivals_s, 6.0, instance.workers, np.ones(1), one_each=True
    )
    wide_release, wide_limit = releases_and_limits(
        instance.arrivals_s, 6.0, instance.workers, np.ones(1), one_each=False
    )
    inner = slice(10, -10)
    # The k-th of seven further workers waits k sevenths of a second for a request.
    assert release[inner] - wide_release[inner] == pytest.approx(sum(range(1, 8)) / 7)
    assert wide_limit[inner] - limit[inner] == pytest.approx(sum(range(1, 8)) / 7)


def test_nothing_asked_is_nothing_missed():
    empty = BoundInstance(
        np.zeros(0),
        np.zeros((0, 2)),
        np.zeros(0, dtype=np.int64),
        6.0,
        np.ones((1, 2)),
        Workers.constant(1),
    )
    assert least_violations(empty, informed=True)[:2] == (0.0, 0.0)


def test_a_request_that_no_variant_serves_is_a_violation():
    instance = BoundInstance(
        np.array([0.0, 10.0]),
        np.array([[1.0, 0.9], [0.0, np.nan]]),
        np.zeros(2, dtype=np.int64),
        6.0,
        np.array([[2.0, 1.0]]),
        Workers.constant(1),
    )
    assert least_violations(instance, informed=False)[:2] == (0.5, 1.0)
