"""Whatever comes in, a decision comes out: nothing raises, and nothing that is not a number goes on."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fleet import A100, CURVES, SETTINGS, FakeFleet

from gesso.profile import Profile
from gesso_operator.planning import (
    ClassCount,
    ModelVariant,
    Observation,
    PlannerState,
    Reason,
    RouterReport,
    WorkerView,
    decide,
    with_history,
)

ODD = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.just(0.0), st.just(-1.0))
COUNT = st.one_of(st.integers(-5, 10**12), st.just(math.nan), st.just(math.inf))
EVERYTHING = replace(
    SETTINGS,
    models=(ModelVariant("lightning", 4),),
    switch_s=(("", "lightning", 47.0),),
    workers_min=1,
    workers_max=6,
    start_s=60.0,
    quality_target=0.97,
)
PROFILES = st.sampled_from(
    [
        None,
        A100,
        Profile("odd", 50, 0.0, 0.0, (1e-12,)),
        Profile("slow", 50, 1e6, 0.0, (1e6,), 50.0),
        Profile("short", 3, 0.0, 0.0, (0.1,)),
    ]
)
CLASSES = st.lists(
    st.builds(
        ClassCount,
        st.sampled_from(["a", "b", ""]),
        COUNT,
        st.lists(ODD, max_size=6).map(tuple),
    ),
    max_size=3,
).map(tuple)
REPORTS = st.one_of(
    st.none(),
    st.builds(RouterReport, ODD, ODD, COUNT, CLASSES, ODD, st.integers(0, 10**9)),
    # Mostly sound, so that the solver is reached.
    st.builds(
        RouterReport,
        st.floats(0, 300),
        st.floats(0, 300),
        st.integers(0, 10**6),
        CLASSES,
        ODD,
    ),
)
WORKERS = st.lists(
    st.builds(
        WorkerView,
        st.sampled_from(["a", "b", "c", "d"]),
        st.booleans(),
        st.one_of(st.none(), st.integers(-3, 60)),
        st.integers(0, 9),
        PROFILES,
        st.sampled_from(["", "lightning", "unheard-of"]),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda w: w.name,
).map(tuple)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(ODD, st.floats(0, 300)), REPORTS, WORKERS), max_size=6),
    st.sampled_from(["Auto", "Recommend", "Off"]),
    st.sampled_from([SETTINGS, EVERYTHING]),
)
def test_any_observations_give_decisions(observed, mode, base):
    state = PlannerState()
    config = replace(base, mode=mode)
    for now, report, workers in observed:
        decision, state = decide(Observation(now, report, workers), state, config)
        assert isinstance(decision.reason, Reason)
        assert decision.message
        ready = {w.name for w in workers if w.ready}
        assert set(decision.assignment) <= ready
        assert set(decision.assignment.values()) <= set(config.ladder)
        if config.elastic and mode == "Auto":
            assert 1 <= decision.fleet_size <= 6
        if decision.plan is not None:
            assert math.isfinite(decision.plan.price)
            assert decision.plan.price >= 0
            shares = [level.share for level in decision.plan.levels]
            assert all(math.isfinite(s) and s >= 0 for s in shares)


def play(report_of, plans=6):
    fleet = FakeFleet(3)
    last = fleet.run(0.4 * fleet.full_rate, 10)[-1]
    before = last.plan.mix
    for _ in range(plans):
        seen = fleet.observe(0.4 * fleet.full_rate)
        seen = replace(seen, report=report_of(seen.report))
        last, fleet.state = decide(seen, fleet.state, fleet.settings)
    return last, before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["at_s", "uptime_s", "offered"])
def test_report_that_cannot_be_is_no_report(name, bad):
    last, before = play(lambda r: replace(r, **{name: bad}))
    assert last.reason is Reason.NO_REPORT
    assert last.plan.mix == before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_backlog_that_cannot_be_is_none(bad):
    odd, sound = (play(lambda r, b=b: replace(r, backlog_s=b))[0] for b in (bad, 0.0))
    assert odd.plan.price == sound.plan.price


def test_curves_with_holes_are_servable_where_they_are_known():
    holed = tuple(ClassCount(n, 0, (1.0, math.nan, 0.9, math.nan)) for n in CURVES)

    def report(r):
        classes = tuple(
            replace(h, arrivals=c.arrivals) for h, c in zip(holed, r.classes, strict=True)
        )
        return replace(r, offered=r.offered * 3, classes=classes)

    served = {p.skipped_steps for p in play(report, 20)[0].plan.levels if p.share > 0}
    assert served <= {0, 20}


def test_clock_that_stands_or_goes_back_changes_nothing():
    fleet = FakeFleet(3)
    before = fleet.run(0.4 * fleet.full_rate, 10)[-1].plan
    seen = fleet.observe(0.4 * fleet.full_rate)
    for shift in (0.0, -5.0, -1e6):
        at = seen.now_s + shift
        decision, fleet.state = decide(replace(seen, now_s=at), fleet.state, fleet.settings)
        assert decision.plan.mix == before.mix


def test_router_that_counts_backwards_has_started_again():
    fleet = FakeFleet(3)
    fleet.run(0.4 * fleet.full_rate, 10)
    fleet.counts = dict.fromkeys(fleet.counts, 0)
    decision = fleet.step(0.4 * fleet.full_rate)
    assert decision.diagnostics.rate_mean >= 0
    assert sum(decision.plan.mix.values()) == 3


@pytest.mark.parametrize(
    "history", [[], [math.nan] * 3000, [-5.0] * 3000, [0.0] * 3000, [math.inf] * 3000]
)
def test_history_of_nothing_teaches_nothing(history):
    fleet = FakeFleet(3, EVERYTHING)
    fleet.curves = {n: (*c, 0.5) for n, c in CURVES.items()}
    fleet.state = with_history(PlannerState(), history, 60.0, 0.0)
    last = fleet.run(0.5 * fleet.full_rate, 8)[-1]
    assert 1 <= last.fleet_size <= 6
    assert math.isfinite(last.diagnostics.rate_ahead_upper)


def test_thousands_of_workers_are_planned_for():
    fleet = FakeFleet(2000)
    last = fleet.run(1.5 * fleet.full_rate, 4)[-1]
    assert sum(last.plan.mix.values()) == 2000
    assert last.plan.mix[0] < 2000
