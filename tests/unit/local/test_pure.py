"""Restarts, the SLO window and the status: pure functions."""

from dataclasses import replace

import pytest

from gesso.api import ServiceStatus
from gesso.plan import LevelPlan, Plan
from gesso.profile import Profile
from gesso_operator.fleet import Member
from gesso_operator.local.restarts import RestartPolicy, RestartState, after_exit
from gesso_operator.planning import Decision, Reason, WorkerView
from gesso_operator.status import Tick, build_status
from gesso_operator.window import Counters, Window

POLICY = RestartPolicy(first_s=1, most_s=8, budget=5, settled_s=30)


def test_backoff_doubles_up_to_its_bound_and_ends_with_the_budget():
    state, delays = RestartState(), []
    for _ in range(6):
        state, delay = after_exit(state, 0.0, POLICY)
        delays.append(delay)
    assert delays == [1, 2, 4, 8, 8, None]
    assert state.total == 5


def test_process_that_ran_well_starts_afresh():
    state, _ = after_exit(RestartState(failures=4, total=9), 31.0, POLICY)
    assert (state.failures, state.total) == (1, 10)


def counters(at, in_time, late=0, shed=0, failed=0, quality=0.0):
    return Counters(at, in_time, late, shed, failed, in_time + late, quality)


def play(*samples):
    window = Window()
    for sample in samples:
        window = window.add(sample)
    return window


def test_window_needs_a_difference():
    assert play(counters(0, 10)).attainment is None
    assert play(counters(0, 10), counters(1, 10)).attainment is None


def test_window_counts_the_last_minute_only():
    window = play(
        counters(0, 0), counters(30, 0, late=100), counters(100, 50, late=100, quality=40.0)
    )
    assert window.attainment == 1.0
    assert window.quality == pytest.approx(0.8)


def test_window_counts_late_shed_and_failed_as_missed():
    assert play(counters(0, 0), counters(2, 6, late=1, shed=2, failed=1)).attainment == 0.6


def test_window_stays_small():
    window = play(*(counters(float(i), i) for i in range(1000)))
    assert len(window.samples) <= 62


def test_restarted_router_empties_the_window():
    assert play(counters(0, 500), counters(2, 3)).attainment is None


PROFILE = Profile("cpu", 50, 0.0, 0.0, (0.01,))
PLAN = Plan(3, 1000.0, (LevelPlan(0, 1, 0.5), LevelPlan(10, 1, 0.5)), 0.2, "LoadRose", "load rose")
TICK = Tick(
    now_s=1000.0,
    members=(Member("worker-0", "h:1", True), Member("worker-1", "h:2", True, restarts=2)),
    workers=(
        WorkerView("worker-0", True, 0, 3, PROFILE),
        WorkerView("worker-1", True, 10, 3, PROFILE),
    ),
    decision=Decision(
        PLAN, PLAN, True, Reason.LOAD_ROSE, "load rose", {"worker-0": 0, "worker-1": 10}
    ),
    window=play(counters(0, 0), counters(2, 99, late=1, quality=97.0)),
    solve_millis=12.0,
    latency_p95_s=2.5,
)


def verdicts(status):
    return {c.type: (c.status, c.reason) for c in status.conditions}


def test_status_of_a_service_that_is_well(service):
    status = build_status(service, ServiceStatus(), TICK)
    seen = verdicts(status)
    assert seen["Ready"] == ("True", "Serving")
    assert seen["SLOMet"] == ("True", "InTime")
    assert seen["QualityMet"] == ("True", "AboveFloor")
    assert (status.mix, status.desired_mix) == ("0:1,10:1", "0:1,10:1")
    assert (status.slo.attainment, status.quality) == (0.99, pytest.approx(0.97))
    assert status.workers.members[1].restarts == 2
    assert status.plan.reason == "LoadRose"


@pytest.mark.parametrize(
    ("change", "kind", "verdict"),
    [
        ({"router_error": "UNAVAILABLE: gone"}, "RouterReady", ("False", "RouterUnreachable")),
        ({"router_error": "UNAVAILABLE: gone"}, "MetricsAvailable", ("False", "NoReport")),
        ({"apply_error": "INTERNAL: no"}, "PlanReady", ("False", "ApplyFailed")),
        (
            {"window": play(counters(0, 0), counters(2, 9, late=1))},
            "SLOMet",
            ("False", "TooManyLate"),
        ),
        ({"window": Window()}, "SLOMet", ("Unknown", "NoRequests")),
        (
            {"window": play(counters(0, 0), counters(2, 10, quality=7.0))},
            "QualityMet",
            ("False", "BelowFloor"),
        ),
        (
            {"workers": (TICK.workers[0], WorkerView("worker-1", False))},
            "Ready",
            ("False", "SomeWorkersDown"),
        ),
        (
            {"workers": tuple(replace(w, profile=None) for w in TICK.workers)},
            "ProfileReady",
            ("False", "NoProfile"),
        ),
    ],
    ids=["router", "metrics", "apply", "late", "idle", "quality", "worker", "profile"],
)
def test_trouble_shows_as_a_condition_with_its_reason(service, change, kind, verdict):
    status = build_status(service, ServiceStatus(), replace(TICK, **change))
    assert verdicts(status)[kind] == verdict
    if kind not in ("SLOMet", "QualityMet"):
        assert verdicts(status)["Ready"][0] == "False"
    else:
        assert verdicts(status)["Ready"][0] == "True"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"absent_routers": ("router-1 was ended by SIGKILL",), "routers": 1},
            "router-1 was ended",
        ),
        (
            {"router_error": "router: UNAVAILABLE: drains", "routers": 2},
            "Report: router: UNAVAILABLE",
        ),
    ],
    ids=["down", "silent"],
)
def test_one_router_of_two_is_told_and_keeps_the_service_ready(service, change, said):
    status = build_status(service, ServiceStatus(), replace(TICK, answering=1, **change))
    condition = status.condition("RouterReady")
    assert (condition.status, condition.reason) == ("True", "SomeRoutersDown")
    assert condition.message.startswith(f"1 of 2 routers serve; {said}")
    assert status.condition("Ready").status == "True"


def test_history_keeps_the_last_of_prices_in_a_row(service):
    status = ServiceStatus()
    for revision, reason in enumerate(
        (Reason.LOAD_ROSE, Reason.PRICE_UPDATED, Reason.PRICE_UPDATED), 1
    ):
        plan = replace(PLAN, revision=revision, reason=reason.value)
        decision = replace(TICK.decision, plan=plan, wanted=plan, reason=reason)
        status = build_status(service, status, replace(TICK, decision=decision))
    assert [p.revision for p in status.plan_history] == [3, 1]
    assert status.plan.revision == 3


def test_history_notes_each_plan_once_and_keeps_five(service):
    status = ServiceStatus()
    for revision in (1, 1, 2, 3, 4, 5, 6, 6):
        plan = replace(PLAN, revision=revision)
        decision = replace(TICK.decision, plan=plan, wanted=plan)
        status = build_status(service, status, replace(TICK, decision=decision))
    assert [p.revision for p in status.plan_history] == [6, 5, 4, 3, 2]
