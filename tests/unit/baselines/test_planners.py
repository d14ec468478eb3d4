"""Planners of the published policies, decision by decision."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gesso.profile import Profile
from gesso_operator.planning import (
    ClassCount,
    ModelVariant,
    Observation,
    PlannerState,
    Reason,
    RouterReport,
    Settings,
    WorkerView,
    decide,
)
from gesso_operator.planning.baselines import BASELINES
from gesso_operator.planning.baselines.oda import chained, reached
from gesso_operator.planning.baselines.proteus import LOWERED, PROVISION, capacity, feasible
from gesso_operator.planning.baselines.split import best_split, fastest_split, solved, tried

LADDER = (0, 10, 25)
QUALITY = (1.0, 0.95, 0.9)
SECOND = Profile("gpu", 50, 0.0, 0.0, (0.02,))  # one image a second at K = 0, two at K = 25
LIGHT = Profile("gpu", 4, 0.0, 0.0, (0.025,))  # ten images a second
FULL, FASTEST = 1.0, 2.0


class Fleet:
    """Takes every assignment and every model; counts exactly what it is told."""

    def __init__(self, policy, workers=4, interval=30.0, **fields):
        self.settings = Settings(LADDER, 5.0, interval_s=interval, policy=policy, **fields)
        self.levels = {f"w{i}": (0, 0) for i in range(workers)}
        self.models = dict.fromkeys(self.levels, "")
        self.state = PlannerState()
        self.now = 0.0
        self.offered = 0
        self.optimal = (1, 0, 0)
        self.counts = [0, 0, 0]
        self.quality = (*QUALITY, *(0.88 for _ in self.settings.models))

    def step(self, arrivals, report=True):
        self.now += self.settings.interval_s
        self.offered += arrivals
        self.counts = [n + arrivals * w for n, w in zip(self.counts, self.optimal, strict=True)]
        seen = RouterReport(
            self.now,
            self.now,
            self.offered,
            (ClassCount("all", self.offered, self.quality),),
            optimal_levels=tuple(zip(LADDER, self.counts, strict=True)),
        )
        workers = tuple(
            WorkerView(n, True, k, r, LIGHT if self.models[n] else SECOND, self.models[n])
            for n, (k, r) in self.levels.items()
        )
        observation = Observation(self.now, seen if report else None, workers)
        decision, self.state = decide(observation, self.state, self.settings)
        for name, level in decision.assignment.items():
            self.levels[name] = (level, decision.plan.revision)
        self.models.update(decision.models)
        return decision


def by_level(plan):
    return {p.skipped_steps: p.share for p in plan.levels if not p.model}


# Fixed plans.


@pytest.mark.parametrize(
    ("policy", "level"),
    [
        ("Nirvana", 0),
        ("ClipperHA", 0),
        ("ClipperHT", 25),
        ("RoundRobin", 0),
        ("LeastOutstanding", 0),
        ("BacklogPrice", 0),
    ],
)
def test_fixed_plans_never_change(policy, level):
    fleet = Fleet(policy)
    decisions = [fleet.step(n) for n in (0, 500, 3, 0, 900)]
    assert [d.changed for d in decisions] == [True, False, False, False, False]
    assert {d.reason for d in decisions} == {Reason.FIXED_POLICY}
    assert all(d.plan.mix == {level: 4} and d.plan.price == 0 for d in decisions)
    assert all(set(d.assignment.values()) == {level} for d in decisions)


def test_a_fixed_plan_takes_in_who_comes_and_needs_no_report():
    fleet = Fleet("ClipperHT", workers=2)
    fleet.step(10)
    fleet.levels["w9"], fleet.models["w9"] = (0, 0), ""
    decision = fleet.step(10, report=False)
    assert (decision.changed, decision.plan.mix) == (True, {25: 3})


def test_only_the_backlog_price_keeps_the_models_that_workers_hold():
    models = {"models": (ModelVariant("light", 4),)}
    for policy, kept in (("BacklogPrice", "light"), ("LeastOutstanding", "")):
        fleet = Fleet(policy, **models)
        fleet.models["w0"] = "light"
        assert fleet.step(0).models["w0"] == kept


@pytest.mark.parametrize("policy", sorted(BASELINES))
def test_no_baseline_raises_on_odd_data(policy):
    settings = Settings(LADDER, 5.0, interval_s=30.0, policy=policy)
    worker = WorkerView("a", True, 0, 0, SECOND)
    odd = (
        (None, (worker,)),
        (RouterReport(float("nan"), 1.0, 5), (worker,)),
        (RouterReport(60.0, 60.0, 5), ()),
        (RouterReport(90.0, 90.0, 50), (replace(worker, profile=None),)),
        (RouterReport(120.0, 1.0, 2), (worker,)),
        (RouterReport(150.0, 31.0, 90, (ClassCount("x", 9, (float("nan"),)),)), (worker,)),
    )
    state = PlannerState()
    for i, (report, workers) in enumerate(odd):
        decision, state = decide(Observation(30.0 * (i + 1), report, workers), state, settings)
        assert decision.message


# The split.


@given(
    workers=st.lists(st.integers(0, 3), min_size=1, max_size=2),
    quality=st.lists(st.floats(0.1, 1.0), min_size=1, max_size=3),
    load=st.floats(0.0, 1.2),
    data=st.data(),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_split_is_the_best_there_is(workers, quality, load, data):
    rate = st.one_of(st.just(0.0), st.floats(0.2, 3.0))
    variants = len(quality)
    rates = [
        [data.draw(st.floats(0.2, 3.0)), *(data.draw(rate) for _ in range(variants - 1))]
        for _ in workers
    ]
    top = sum(n * max(row) for n, row in zip(workers, rates, strict=True))
    demand = load * top
    found = {f.__name__: f(rates, quality, workers, demand, *e) for f, e in SOLVERS}
    if load > 1 + 1e-6 and top > 0:
        assert set(found.values()) == {None}
        return
    if load > 1 - 1e-6:
        return  # at the very edge either answer will do
    best = oracle(rates, quality, workers, demand)
    for split in found.values():
        assert split is not None
        value = 0.0
        for d, n in enumerate(workers):
            assert sum(split.workers[d]) == n
            for v, served in enumerate(split.served[d]):
                assert served <= split.workers[d][v] * rates[d][v] + 1e-6
                value += served * quality[v]
        assert sum(map(sum, split.served)) == pytest.approx(demand, abs=1e-6)
        # What idle workers are worth breaks ties, and may cost that much.
        assert value == pytest.approx(best, abs=1e-5 * max(demand, 1.0) + 1e-6)


SOLVERS = ((best_split, (5.0,)), (tried, ()), (solved, (5.0,)))


def oracle(rates, quality, workers, demand):
    """By trying every mix; the load fills the best variants first."""
    variants = range(len(quality))

    def mixes(n):
        return [m for m in product(range(n + 1), repeat=len(quality)) if sum(m) == n]

    best = -1.0
    for mix in product(*(mixes(n) for n in workers)):
        left, value = demand, 0.0
        for v in sorted(variants, key=lambda v: -quality[v]):
            room = sum(counts[v] * row[v] for counts, row in zip(mix, rates, strict=True))
            taken = min(left, room)
            left, value = left - taken, value + taken * quality[v]
        if left <= 1e-9 * max(1.0, demand):
            best = max(best, value)
    return best


def test_an_idle_fleet_is_at_its_best_and_a_full_one_at_its_fastest():
    rates = [[1.0, 1.25, 2.0]]
    assert best_split(rates, QUALITY, [4], 0.0, 5.0).workers == ((4, 0, 0),)
    assert best_split(rates, QUALITY, [4], 8.0, 5.0).workers == ((0, 0, 4),)
    assert best_split(rates, QUALITY, [4], 8.1, 5.0) is None
    assert fastest_split(rates, [4]).served == ((0.0, 0.0, 8.0),)


# Argus.


def test_argus_plans_every_minute_from_that_minutes_rate():
    fleet = Fleet("Argus")
    first = fleet.step(0)
    assert (first.reason, first.plan.mix) == (Reason.INITIAL_PLAN, {0: 4})
    second = fleet.step(30 * 4)  # the first rate there is is planned for at once
    assert second.plan.mix == {0: 4}
    held = fleet.step(30 * 7)
    assert (held.changed, held.reason) == (False, Reason.STEADY)
    risen = fleet.step(30 * 7)
    # Of 7 images a second, three workers at K = 25 carry 6, one at K = 0 the seventh.
    assert (risen.reason, risen.plan.mix) == (Reason.LOAD_ROSE, {0: 1, 25: 3})
    assert by_level(risen.plan) == pytest.approx({0: 1 / 7, 10: 0.0, 25: 6 / 7})


def test_argus_redirects_the_minutes_prompts_to_its_shares():
    fleet = Fleet("Argus")
    fleet.optimal = (1, 2, 1)  # a quarter, half, a quarter
    fleet.step(0)
    plan = fleet.step(30 * 6).plan
    h = (0.25, 0.5, 0.25)
    assert reached(h, chained(plan.route)) == pytest.approx(
        [by_level(plan)[k] for k in LADDER], abs=1e-6
    )


def test_argus_overloaded_has_every_worker_at_the_fastest_level():
    fleet = Fleet("Argus")
    fleet.step(0)
    decision = fleet.step(30 * 20)
    assert (decision.reason, decision.plan.mix) == (Reason.OVERLOADED, {25: 4})
    assert decision.diagnostics.shed == pytest.approx(20 - 8)


def test_argus_plans_anew_when_the_fleet_changes_and_keeps_its_route_without_data():
    fleet = Fleet("Argus")
    fleet.optimal = (1, 2, 1)
    fleet.step(0)
    route = fleet.step(30 * 6).plan.route
    del fleet.levels["w0"]
    lost = fleet.step(30 * 6, report=False)
    assert (lost.reason, lost.plan.route) == (Reason.FLEET_CHANGED, route)
    again = fleet.step(30 * 6)
    assert sum(again.plan.mix.values()) == 3


# Proteus.


def test_proteus_provisions_above_its_mean_rate():
    fleet = Fleet("Proteus")
    fleet.step(0)
    decision = fleet.step(30 * 6)
    # 2.5 at K = 10 and 3.8 at K = 25 are worth more than 1 at K = 0 and 5.3 at K = 25.
    assert decision.plan.mix == {10: 2, 25: 2}
    assert f"{6 * PROVISION:.2f} images/s" in decision.message
    # The mean weighs the new rate 1, the old 1.6 / 2.6.
    keep = 1.6 / 2.6
    rate = (5 + keep * 6) / (1 + keep)
    assert f"{rate * PROVISION:.2f} images/s" in fleet.step(30 * 5).message


def test_proteus_plans_early_on_a_sudden_change():
    fleet = Fleet("Proteus", interval=10.0)
    fleet.step(0)
    fleet.step(10 * 3)
    assert fleet.step(10 * 3).reason is Reason.STEADY
    assert fleet.step(10 * 9).reason in {Reason.LOAD_ROSE, Reason.OVERLOADED}


def test_proteus_lowers_what_it_cannot_carry():
    assert feasible(5.0, 8.0) == 5.0
    lowered = feasible(20.0, 8.0)
    assert 8.0 * LOWERED <= lowered <= 8.0
    assert feasible(20.0, 0.0) == 0.0
    fleet = Fleet("Proteus")
    fleet.step(0)
    decision = fleet.step(30 * 20)
    assert decision.reason is Reason.OVERLOADED
    assert decision.diagnostics.shed == pytest.approx(20 * PROVISION - feasible(21.0, 8.0))


def test_proteus_batches_within_half_the_slo():
    batching = Profile("gpu", 50, 0.0, 0.0, (0.02, 0.03, 0.04, 0.06))
    settings = Settings(LADDER, 4.0)
    assert capacity(batching, 0, settings) == pytest.approx(3 / 2.0)
    assert capacity(batching, 25, settings) == pytest.approx(4 / 1.5)
    assert capacity(batching, 0, replace(settings, latency_s=1.0)) == pytest.approx(1.0)
    assert capacity(batching, 0, replace(settings, max_batch=2)) == pytest.approx(2 / 1.5)


def test_proteus_has_models_for_variants_where_there_are_any():
    fleet = Fleet(
        "Proteus",
        models=(ModelVariant("light", 4),),
        profiles={("gpu", ""): SECOND, ("gpu", "light"): LIGHT},
    )
    fleet.step(0)
    decision = fleet.step(30 * 6)
    # 6.3 images a second: one worker of the light model carries ten, three of the own three.
    assert decision.plan.mix_text == "0:3,light:1"
    assert sorted(decision.models.values()) == ["", "", "", "light"]
    assert decision.switches == 1
