"""Elastic fleets: enough workers in time, no more than it takes, and no flapping."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from planner_fleet import A100, CURVES, LADDER, SETTINGS, WEIGHTS, FakeFleet

from gesso.plan import PromptClass, QualityCurve
from gesso_operator.planning import PlannerState, Reason, with_history
from gesso_operator.planning.analogs import analogs_of
from gesso_operator.planning.daily import Daily, primed
from gesso_operator.planning.forecast import DataState, Forecast, upper_rate
from gesso_operator.planning.instance import Member, instance_of
from gesso_operator.planning.replay import Replay
from gesso_operator.planning.sizes import Sizes
from gesso_operator.planning.sizing import SizingState, fleet_size

ELASTIC = replace(
    SETTINGS,
    interval_s=30,
    workers_min=2,
    workers_max=16,
    start_s=180.0,
    quality_target=0.97,
)
ONE = 1 / A100.work_seconds(0)


def sizes(decisions):
    return [d.fleet_size for d in decisions]


def test_idle_fleet_shrinks_to_its_least_and_overload_grows_it_to_its_most():
    f = FakeFleet(6, ELASTIC)
    assert sizes(f.run(0.2 * ONE, 30))[-1] == 2
    assert sizes(f.run(60 * ONE, 30))[-1] == 16


def test_growth_is_asked_for_at_once_and_given_back_late():
    f = FakeFleet(3, ELASTIC)
    f.run(2.5 * ONE, 30)
    grown = f.run(9 * ONE, 2)
    assert max(sizes(grown)) >= 5
    assert Reason.SCALE_OUT in [d.reason for d in grown] or any(d.changed for d in grown)
    settled = f.run(9 * ONE, 20)[-1].fleet_size
    fallen = f.run(2.5 * ONE, 3)
    assert fallen[1].fleet_size == settled
    assert sizes(f.run(2.5 * ONE, 20))[-1] < settled


def test_fleet_serves_its_load_at_the_target_without_waste():
    f = FakeFleet(3, ELASTIC)
    last = f.run(6 * ONE, 80)[-1]
    # Without skipping a step 6 are busy; at mean quality 0.97 fewer are enough.
    assert 4 <= last.fleet_size <= 7
    assert last.diagnostics.quality >= 0.94


def test_dear_workers_make_a_small_fleet_and_free_ones_a_large_one():
    free = replace(ELASTIC, quality_target=None, worker_hour_cost=0.0)
    dear = replace(ELASTIC, quality_target=None, worker_hour_cost=1e6)
    small, large = (
        f.run(5 * ONE, 60)[-1].fleet_size for f in (FakeFleet(5, dear), FakeFleet(5, free))
    )
    assert small < large


def test_missing_reports_keep_the_size():
    f = FakeFleet(3, ELASTIC)
    size = f.run(6 * ONE, 30)[-1].fleet_size
    assert {f.step(0.0, report=False).fleet_size for _ in range(20)} == {size}


def test_fixed_fleet_has_no_opinion():
    assert FakeFleet(4).step(1.0).fleet_size is None


def spiky_history(days=3):
    """Arrivals per minute: calm, with bursts of ten minutes from the half of every other hour."""
    counts = np.full(days * 1440, 2.5 * ONE * 60)
    for hour in range(0, days * 24, 2):
        counts[hour * 60 + 30 : hour * 60 + 40] *= 3.5
    return counts


def test_workers_are_there_before_a_burst_that_usually_comes():
    f = FakeFleet(3, ELASTIC, now=15 * 60.0)
    f.state = with_history(PlannerState(), spiky_history(), 60.0, -3 * 86_400.0)
    by_minute = {}
    for _ in range(60):
        decision = f.step(2.5 * ONE)
        by_minute[f.now / 60] = decision.fleet_size
    assert by_minute[28.0] > by_minute[20.0]
    # Nothing came, so they go again.
    assert by_minute[44.0] < by_minute[28.0]


def test_constant_load_does_not_flap_the_size():
    """Once settled (40 plans), at most 2 changes of the size in 60 plans: of 16 fleets, one may make a third
    where the load lies between two sizes, since arrivals are random.
    """
    changes = []
    for i, load in enumerate(np.linspace(1.5, 12.0, 16)):
        f = FakeFleet(4, ELASTIC, seed=157 + i)
        f.run(load * ONE, 40)
        found = sizes(f.run(load * ONE, 60))
        changes.append(sum(a != b for a, b in pairwise(found)))
    assert sorted(changes)[-2] <= 2
    assert max(changes) <= 3


def sizes_of_a_fleet(settings=ELASTIC):
    """What each number of workers is good for, to a fleet with the curves of `CURVES`."""
    classes = tuple(
        PromptClass(name, WEIGHTS[name], QualityCurve(LADDER, CURVES[name])) for name in CURVES
    )
    members = [Member("w0", "A100", "", 0)]
    instance = instance_of(1.0, classes, None, members, {("A100", ""): A100}, settings)
    return Sizes(instance.problem, A100, settings)


def first_size(rate, sizes, before):
    upper = upper_rate(100.0, 100.0 / rate, 0.9) if rate else 0.0
    forecast = Forecast(DataState.READY, mean=rate, upper=upper)
    _, sized = fleet_size(SizingState(), forecast, sizes, before, 1000.0, ELASTIC)
    return sized.size


@pytest.mark.parametrize("before", [2, 5, 16])
def test_more_load_never_asks_for_fewer(before):
    sizes = sizes_of_a_fleet()
    found = [first_size(load * ONE, sizes, before) for load in np.linspace(0, 40, 81)]
    assert found == sorted(found)
    assert found[-1] == 16


def test_target_has_a_price_and_a_lower_one_a_lower_fleet():
    """The days that are known tell what a worker-hour may cost; K then absorbs the bursts."""
    sizes = sizes_of_a_fleet()
    past = analogs_of(primed(Daily(300.0), spiky_history(5), 60.0, 0.0).past)
    replay = Replay(past, sizes, 180.0, 300.0)
    played = {}
    for target in (0.9, 0.95, 0.99):
        prices = replay.priced(target, 0.01, None)
        played[target] = replay.play(prices)
        assert played[target].quality >= target - 1e-9
        assert played[target].refused <= 0.01
    assert played[0.9].worker_hours < played[0.95].worker_hours < played[0.99].worker_hours


def test_refusals_get_a_price_where_their_own_quality_is_not_enough():
    sizes = sizes_of_a_fleet()
    past = analogs_of(primed(Daily(300.0), spiky_history(5), 60.0, 0.0).past)
    replay = Replay(past, sizes, 180.0, 300.0)
    loose, strict = replay.priced(0.9, 0.5, None), replay.priced(0.9, 0.0005, None)
    assert loose.refusal == 0.0
    assert strict.refusal > 0.0
    assert replay.play(strict).refused <= 0.0005 < replay.play(loose).refused


def test_bounds_are_never_left():
    f = FakeFleet(4, ELASTIC)
    rng = np.random.default_rng(3)
    for share in rng.uniform(0, 30, 40):
        assert 2 <= f.step(share * ONE).fleet_size <= 16


@pytest.mark.parametrize(
    "bad",
    [
        {"workers_min": 2},
        {"workers_min": 5, "workers_max": 4},
        {"workers_min": 0, "workers_max": 4},
        {"quality_target": 0.0},
        {"start_s": float("nan")},
        {"worker_hour_cost": -1.0},
        {"switch_s": (("", "x", float("inf")),)},
    ],
)
def test_settings_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(SETTINGS, **bad)
