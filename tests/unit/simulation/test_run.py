"""Whole runs: each request ends once, queues are as theory says, and the seed alone decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulation_kit import BATCHED, CURVES, LADDER, PLAIN, poisson, run_of

from gesso_simulator.engine.run import simulate
from gesso_simulator.engine.systems import LIVE
from gesso_simulator.reports.result import LATE, LOST, SERVED, SHED
from gesso_simulator.scenarios.spec import DeviceClass, Elastic, FleetEvent, Variant, WorkerSpec


@pytest.mark.parametrize("policy", LIVE)
def test_every_request_ends_once_and_true_quality_is_looked_up(policy: str) -> None:
    run = run_of(poisson(4.0, 120), workers=3, slo=4.0)
    result = simulate(run, policy, seed=3)
    assert set(np.unique(result.outcome)) <= {SERVED, LATE, SHED}
    ran = result.variant >= 0
    assert np.array_equal(ran, np.isin(result.outcome, (SERVED, LATE)))
    assert np.array_equal(
        result.relative_quality[ran], CURVES[result.prompt[ran], result.variant[ran]]
    )
    assert np.isnan(result.relative_quality[~ran]).all()
    took = result.finish_s - result.arrival_s
    assert np.array_equal(took[ran] <= 4.0, result.outcome[ran] == SERVED)
    assert (result.start_s[ran] >= result.arrival_s[ran]).all()


@pytest.mark.parametrize("policy", ["QualityAware", "Argus", "Proteus"])
def test_equal_seeds_give_equal_runs(policy: str) -> None:
    run = replace(run_of(poisson(4.0, 100), workers=3, slo=4.0), jitter=0.1)
    one, two, other = (simulate(run, policy, seed=s) for s in (5, 5, 6))
    assert np.array_equal(one.finish_s, two.finish_s, equal_nan=True)
    assert not np.array_equal(one.finish_s, other.finish_s, equal_nan=True)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_worker_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    # M/D/1: mean wait = load x service / (2 (1 - load)).
    run = run_of(poisson(load, 40_000, seed=2), workers=1, max_queue=100_000)
    result = simulate(run, "LeastOutstanding", seed=1)
    wait = (result.start_s - result.arrival_s).mean()
    assert wait == pytest.approx(load / (2 * (1 - load)), rel=0.06)


def test_a_batch_serves_more_than_one_at_a_time() -> None:
    arrivals = poisson(2.4, 200)
    alone = simulate(run_of(arrivals, profile=PLAIN, slo=6.0), "RoundRobin", seed=1)
    together = simulate(run_of(arrivals, profile=BATCHED, slo=6.0), "RoundRobin", seed=1)
    assert (together.outcome == SERVED).mean() > 2 * (alone.outcome == SERVED).mean()


def test_a_lost_workers_requests_are_retried_and_none_is_lost() -> None:
    run = run_of(
        poisson(2.5, 100),
        workers=4,
        slo=6.0,
        events=(FleetEvent(50.0, "w0", "lost"), FleetEvent(80.0, "w0", "back")),
    )
    result = simulate(run, "QualityAware", seed=1)
    assert not (result.outcome == LOST).any()
    away = (result.start_s > 50.0) & (result.start_s < 80.0)
    assert (result.worker[away] != 0).all()
    assert (result.worker[result.start_s > 81.0] == 0).any()
    # 160 s, three workers and one that was away for 30.
    assert result.worker_hours == pytest.approx((4 * run.workload.duration_s - 30) / 3600)


def test_a_second_loss_loses_the_request() -> None:
    run = run_of(
        [1.0],
        workers=2,
        events=(FleetEvent(1.2, "w0", "lost"), FleetEvent(1.4, "w1", "lost")),
    )
    assert simulate(run, "LeastOutstanding", seed=1).outcome.tolist() == [LOST]


def test_the_queue_has_a_bound() -> None:
    run = run_of(np.linspace(0, 0.1, 50), workers=1, max_queue=10)
    result = simulate(run, "LeastOutstanding", seed=1)
    assert (result.outcome == SHED).sum() == 50 - 11


def test_a_policy_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="policy: Best is not allowed: one of QualityAware"):
        simulate(run_of([1.0]), "Best", seed=1)


def test_an_elastic_fleet_grows_with_the_load_and_is_paid_for_from_its_start() -> None:
    arrivals = np.concatenate(
        [poisson(0.5, 600), 600 + poisson(5.0, 1200), 1800 + poisson(0.5, 1800)]
    )
    run = run_of(arrivals, workers=8, slo=5.0, elastic=Elastic(1, 8, 1, 30.0, 0.97))
    result = simulate(run, "QualityAware", seed=1)
    sizes = dict(result.fleet_size)
    assert max(sizes.values()) >= 4
    assert result.fleet_size[-1][1] <= 2
    hours = run.workload.duration_s / 3600
    assert hours < result.worker_hours < 8 * hours
    begun = result.start_s[result.worker > 0]
    first = next(at for at, n in result.fleet_size if n > 1)
    assert begun.min() >= first + 30.0


def test_a_family_moves_workers_to_the_second_model_and_pays_for_it() -> None:
    base = run_of(np.concatenate([poisson(1.0, 300), 300 + poisson(12.0, 600)]), workers=4, slo=5.0)
    fast = replace(PLAIN, steps=4, step_seconds=(0.025,))
    device = DeviceClass("gpu", {"": PLAIN, "fast": fast}, {"": 20.0, "fast": 20.0})
    column = np.full((2, 1), 0.6)
    run = replace(
        base,
        variants=(*base.variants, Variant("fast", 0)),
        workers=tuple(WorkerSpec(w.name, device) for w in base.workers),
        workload=replace(
            base.workload,
            quality=np.hstack([CURVES, column]),
            predicted=np.hstack([CURVES, column]),
        ),
    )
    moving = simulate(run, "QualityAware", seed=1)
    still = simulate(run, "QualityAware", seed=1, keep_models=True)
    assert still.switches == 0
    assert 1 <= moving.switches <= 6
    assert (moving.variant == len(LADDER)).any()
    assert (moving.outcome == SERVED).mean() > (still.outcome == SERVED).mean() + 0.1
