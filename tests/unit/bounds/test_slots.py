"""Model families and elastic fleets: hand-made optima, and nothing real beats the programmes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso_simulator.bounds import (
    BoundInstance,
    Elastic,
    Models,
    Workers,
    best_quality_at,
    best_quality_within,
    bound,
    least_violations_of_family,
    least_worker_hours,
)

AIM = Elastic(0, 6, 20.0, 0.0, 0.0, slot_seconds=10.0)


def served_by(instance, intervals, rng, models=None):
    """First come, first served over workers that serve in `intervals` (from, to, model): violations and
    quality.

    Each request goes to a random interval in which some variant finishes in time.
    """
    free = [start for start, _, _ in intervals]
    served, quality = 0, 0.0
    for i, arrival in enumerate(instance.arrivals_s):
        options = []
        for w, (_, end, model) in enumerate(intervals):
            start = max(free[w], float(arrival))
            for k, service in enumerate(instance.service_s[0]):
                finish = start + float(service)
                if models is not None and models.of_variant[k] != model:
                    continue
                if finish <= end and finish <= arrival + instance.slo_s:
                    options.append((w, k, finish))
        if not options:
            continue
        w, k, finish = options[rng.integers(len(options))]
        free[w] = finish
        served += 1
        quality += float(instance.quality[i, k])
    n = instance.arrivals_s.size
    return 1 - served / n, quality / served if served else 0.0


@st.composite
def workloads(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(5, 60))
    service = np.sort(rng.uniform(1, 6, 3))[::-1]
    quality = np.sort(rng.uniform(0.5, 1.0, (n, 3)), axis=1)[:, ::-1]
    instance = BoundInstance(
        arrivals_s=np.cumsum(rng.exponential(draw(st.sampled_from([0.5, 2.0])), n)),
        quality=np.ascontiguousarray(quality),
        class_of=rng.integers(0, 3, n),
        slo_s=float(service.max() * rng.uniform(1, 3)),
        service_s=np.ascontiguousarray(service[None, :]),
        workers=Workers.constant(int(rng.integers(1, 5))),
    )
    return instance, rng


@settings(max_examples=60, deadline=None)
@given(workloads())
def test_no_growing_and_shrinking_fleet_beats_the_elastic_bound(case):
    instance, rng = case
    paid = []
    end = instance.horizon_s
    for _ in range(int(rng.integers(1, 6))):
        start = float(rng.uniform(-AIM.start_seconds, end))
        # Those before 0 are the first fleet, paid for from 0 on.
        paid.append((start, min(end, start + float(rng.uniform(5, max(6.0, end))))))
    intervals = [(start + AIM.start_seconds, stop, 0) for start, stop in paid if start > 0]
    intervals += [(0.0, stop, 0) for start, stop in paid if start <= 0]
    violations, quality = served_by(instance, intervals, rng)
    hours = sum(max(0.0, stop - max(start, 0.0)) for start, stop in paid) / 3600
    aim = replace(AIM, min_quality=quality, max_violations=violations)
    least = least_worker_hours(replace(instance, elastic=aim), informed=False)
    assert least.feasible
    assert least.worker_hours <= hours + 1e-7
    most = best_quality_within(replace(instance, elastic=aim), hours, informed=False)
    assert most.relative_quality >= quality - 1e-5


@settings(max_examples=30, deadline=None)
@given(workloads())
def test_no_fleet_that_switches_beats_the_family_bound(case):
    instance, rng = case
    models = Models(np.array([0, 0, 1]), np.array([[0.0, 9.0], [4.0, 0.0]]))
    intervals = []
    for _ in range(int(instance.workers.counts.sum())):
        at, model = 0.0, int(rng.integers(2))
        while at < instance.horizon_s:
            stay = float(rng.uniform(5, 60))
            intervals.append((at, at + stay, model))
            at += stay + float(models.switch_seconds[model, 1 - model])
            model = 1 - model
    violations, quality = served_by(instance, intervals, rng, models)
    with_models = replace(instance, models=models)
    for slot in (None, 7.0):
        least = least_violations_of_family(with_models, informed=False, slot_seconds=slot)
        assert violations >= least.violation_ratio - 1e-6
        if violations <= least.violation_ratio + 1e-9:
            assert quality <= least.relative_quality + 1e-6
    found = bound(with_models, informed=False)
    assert violations >= found.violation_ratio - 1e-6
    if violations < 1:
        reached = max(violations, found.violation_ratio)
        assert quality <= best_quality_at(with_models, reached, informed=False) + 1e-6


def steady(rate, seconds, workers=4, slo=10.0):
    n = int(rate * seconds)
    return BoundInstance(
        arrivals_s=(np.arange(n) + 0.5) / rate,
        quality=np.tile([1.0, 0.9], (n, 1)),
        class_of=np.zeros(n, dtype=np.int64),
        slo_s=slo,
        service_s=np.array([[2.0, 1.0]]),
        workers=Workers.constant(workers),
        end_s=float(seconds),
    )


@pytest.mark.parametrize(("floor", "seconds_each"), [(0.9, 1.0), (0.95, 1.5), (1.0, 2.0)])
def test_least_worker_hours_of_a_steady_load_are_its_work(floor, seconds_each):
    instance = steady(2.0, 2000)
    aim = replace(AIM, min_quality=floor)
    found = least_worker_hours(replace(instance, elastic=aim), informed=True)
    # A last slot's work may run past the end that is paid for.
    assert found.worker_hours == pytest.approx(4000 * seconds_each / 3600, rel=0.01)
    assert found.relative_quality == pytest.approx(floor, abs=1e-6)
    converse = best_quality_within(
        replace(instance, elastic=aim), found.worker_hours, informed=True
    )
    assert converse.relative_quality == pytest.approx(floor, abs=1e-5)


def test_a_start_is_paid_for_before_it_serves():
    quiet, busy = np.arange(0.25, 500, 0.5), np.arange(500.25, 1000, 0.25)
    arrivals = np.concatenate((quiet, busy))
    base = replace(steady(1.0, arrivals.size), arrivals_s=arrivals, end_s=1000.0)
    hours = []
    for start in (0.0, 40.0, 100.0):
        aim = replace(AIM, max_workers=12, start_seconds=start, min_quality=1.0)
        found = least_worker_hours(replace(base, elastic=aim), informed=True)
        hours.append(found.worker_hours)
    # Four more workers for the second half; the last windows reach past the end that is paid for.
    assert (hours[1] - hours[0]) * 3600 == pytest.approx(4 * 40, abs=8)
    assert (hours[2] - hours[0]) * 3600 == pytest.approx(4 * 100, abs=20)


def test_an_aim_out_of_reach_is_said_to_be():
    aim = replace(AIM, max_workers=1, min_quality=1.0)
    found = bound(replace(steady(2.0, 600), elastic=aim), informed=True)
    assert found.worker_hours == np.inf


def test_switches_cost_what_they_take_from_the_fleet():
    # Quiet, busy, quiet: one worker, whose second model is needed in the middle only.
    arrivals = np.concatenate(
        (np.arange(0.0, 300, 2.0), np.arange(300.0, 600, 0.5), np.arange(600.0, 900, 2.0))
    )
    n = arrivals.size
    quality = np.tile([1.0, 0.5], (n, 1))
    instance = BoundInstance(
        arrivals,
        quality,
        np.zeros(n, dtype=np.int64),
        5.0,
        np.array([[2.0, 0.5]]),
        Workers.constant(1),
    )
    found = []
    for seconds in (0.0, 20.0, 60.0):
        models = Models(np.array([0, 1]), np.full((2, 2), seconds), first=(1.0, 0.0))
        found.append(
            least_violations_of_family(
                replace(instance, models=models), informed=True, slot_seconds=5.0
            )
        )
    violations = [b.violation_ratio for b in found]
    quality_there = [b.relative_quality for b in found]
    assert violations[0] == pytest.approx(0, abs=1e-6)
    assert violations[2] >= violations[0]
    # With everything else the same, dearer switches leave less.
    assert quality_there[0] > quality_there[1] + 0.005 or violations[1] > 1e-3
    assert quality_there[1] > quality_there[2] + 0.005 or violations[2] > violations[1] + 1e-3


def test_bound_names_the_programme_and_the_hours_of_a_given_fleet():
    found = bound(steady(3.0, 600), informed=True)
    assert found.worker_hours == pytest.approx(4 * 600 / 3600)
    assert found.how == "fluid queue, exact"
    assert found.violation_ratio == 0
