"""Whole decisions: what is done, and the reason that is given."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fleet import A100, SETTINGS, FakeFleet

from gesso.plan import Plan
from gesso_operator.planning import (
    Observation,
    PlannerState,
    Reason,
    RouterReport,
    WorkerView,
    decide,
)


def test_first_plan_is_full_generation_before_any_load():
    decision = FakeFleet(4).step(0.0)
    assert (decision.reason, decision.changed) == (Reason.INITIAL_PLAN, True)
    assert decision.plan.mix == {0: 4}
    assert decision.plan.price == 0
    assert decision.assignment == dict.fromkeys(("w0", "w1", "w2", "w3"), 0)


def test_load_below_capacity_is_served_in_full():
    fleet = FakeFleet(8)
    last = fleet.run(0.4 * fleet.full_rate, 30)[-1]
    assert (last.reason, last.changed) == (Reason.STEADY, False)
    assert last.plan.mix == {0: 8}
    assert last.plan.price == 0


def test_risen_load_is_met_within_two_plans_and_fallen_load_goes_back_to_full():
    fleet = FakeFleet(8)
    fleet.run(0.3 * fleet.full_rate, 20)
    busy = fleet.run(1.4 * fleet.full_rate, 3)
    assert 0 not in busy[-1].plan.mix or busy[-1].plan.mix[0] < 5
    assert busy[1].reason in (Reason.LOAD_ROSE, Reason.OVERLOADED)
    assert busy[-1].plan.price > 0
    calm = fleet.run(0.3 * fleet.full_rate, 40)
    assert calm[-1].plan.mix == {0: 8}
    assert Reason.LOAD_FELL in [d.reason for d in calm]


def test_price_acts_at_once_while_the_mix_waits_for_agreement():
    fleet = FakeFleet(8)
    fleet.run(0.3 * fleet.full_rate, 20)
    first = fleet.step(1.4 * fleet.full_rate)
    assert first.reason is Reason.PRICE_UPDATED
    assert first.plan.mix == {0: 8}
    assert first.plan.price > 0


def test_too_much_load_is_an_answer_that_says_what_is_refused():
    fleet = FakeFleet(4)
    last = fleet.run(4 * fleet.full_rate, 10)
    assert last[-1].plan.mix == {25: 4}
    assert last[-1].reason is Reason.OVERLOADED
    assert last[-1].diagnostics.shed == pytest.approx(2.0, rel=0.4)
    assert "must be refused" in last[-1].message


def test_deadline_below_any_service_time_is_said():
    fleet = FakeFleet(2, settings=replace(SETTINGS, latency_s=1.0))
    decisions = fleet.run(0.2, 10)
    assert Reason.SLO_UNREACHABLE in [d.reason for d in decisions]
    assert "no level meets the deadline of 1 s" in decisions[-1].message


def test_missing_report_freezes_the_plan():
    fleet = FakeFleet(8)
    before = fleet.run(1.4 * fleet.full_rate, 20)[-1].plan
    missing = [fleet.step(0.0, report=False) for _ in range(20)]
    assert {d.reason for d in missing} == {Reason.NO_REPORT}
    assert all(d.plan == before for d in missing)
    assert missing[-1].assignment == {n: k for n, (k, _) in fleet.levels.items()}


def test_lost_worker_makes_a_new_plan_for_the_rest_at_once():
    fleet = FakeFleet(8)
    fleet.run(0.9 * fleet.full_rate, 20)
    del fleet.levels["w3"]
    decision = fleet.step(0.9 * fleet.full_rate)
    assert (decision.changed, sum(decision.plan.mix.values())) == (True, 7)
    assert "w3" not in decision.assignment


def test_worker_that_comes_back_is_given_its_level_again():
    fleet = FakeFleet(4)
    fleet.run(3 * fleet.full_rate, 10)
    lost = fleet.levels.pop("w3")
    fleet.step(3 * fleet.full_rate)
    fleet.levels["w3"] = (0, 0)
    decision = fleet.step(3 * fleet.full_rate)
    assert decision.assignment["w3"] == lost[0] == 25
    assert sum(decision.plan.mix.values()) == 4


def test_lost_worker_without_data_keeps_levels_and_price():
    fleet = FakeFleet(8)
    before = fleet.run(1.4 * fleet.full_rate, 20)[-1].plan
    del fleet.levels["w3"]
    decision = fleet.step(0.0, report=False)
    assert decision.reason is Reason.FLEET_CHANGED
    assert sum(decision.plan.mix.values()) == 7
    assert decision.plan.price == before.price


def test_no_worker_is_said():
    decision, _ = decide(Observation(0.0, None, ()), PlannerState(), SETTINGS)
    assert (decision.reason, decision.plan) == (Reason.NO_READY_WORKERS, None)


def test_workers_without_profile_freeze_the_plan():
    state = PlannerState()
    for i in range(4):
        workers = (WorkerView("a", True, 0, i),)
        report = RouterReport(10.0 * i, 10.0 * i, 20 * i)
        decision, state = decide(Observation(10.0 * i, report, workers), state, SETTINGS)
    assert decision.reason is Reason.NO_PROFILE


def test_revisions_only_grow_and_pass_those_others_have_seen():
    fleet = FakeFleet(4)
    revisions = [d.plan.revision for d in fleet.run(1.5 * fleet.full_rate, 30)]
    assert revisions == sorted(revisions)
    report = RouterReport(0.0, 1.0, 0, plan_revision=70)
    seen = Observation(0.0, report, (WorkerView("a", True, 10, 90, A100),))
    decision, _ = decide(seen, PlannerState(), SETTINGS)
    assert decision.plan.revision == 91
    # A restarted operator starts from the levels that are there.
    assert decision.assignment == {"a": 10}


def test_plan_that_was_overtaken_goes_out_again_above_what_others_have_seen():
    workers = (WorkerView("a", True, 0, 0, A100),)
    decision, state = decide(Observation(0.0, None, workers), PlannerState(), SETTINGS)
    assert decision.plan.revision == 1
    report = RouterReport(10.0, 500.0, 0, plan_revision=70)
    decision, state = decide(Observation(10.0, report, workers), state, SETTINGS)
    assert (decision.changed, decision.plan.revision, decision.plan.mix) == (True, 71, {0: 1})
    report = RouterReport(10.5, 500.5, 0, plan_revision=71)
    decision, _ = decide(Observation(10.5, report, workers), state, SETTINGS)
    assert (decision.changed, decision.plan.revision) == (False, 71)


def test_clipper_ha_generates_in_full_whatever_the_load():
    fleet = FakeFleet(4, settings=replace(SETTINGS, policy="ClipperHA"))
    decisions = fleet.run(5 * fleet.full_rate, 10)
    assert all(d.plan.mix == {0: 4} and d.plan.price == 0 for d in decisions)
    assert [d.changed for d in decisions] == [True] + [False] * 9


def test_recommend_tells_and_does_not_act():
    fleet = FakeFleet(4, settings=replace(SETTINGS, mode="Recommend"))
    last = fleet.run(3 * fleet.full_rate, 10)[-1]
    assert last.wanted.mix == {25: 4}
    assert last.plan.mix == {0: 4}
    assert last.plan.price == 0
    assert last.assignment == {}
    assert "recommended" in last.message


@pytest.mark.parametrize("mode", ["Auto", "Recommend"])
def test_missing_data_is_told_whatever_the_reason(mode):
    fleet = FakeFleet(4, settings=replace(SETTINGS, mode=mode))
    assert not fleet.run(1.2 * fleet.full_rate, 10)[-1].data_missing
    blind = fleet.step(0.0, report=False)
    assert (blind.data_missing, blind.reason) == (
        True,
        Reason.NO_REPORT if mode == "Auto" else Reason.RECOMMENDED,
    )
    del fleet.levels["w3"]
    assert fleet.step(0.0, report=False).data_missing
    nobody, _ = decide(Observation(0.0, None, ()), PlannerState(), replace(SETTINGS, mode=mode))
    assert nobody.data_missing


def test_off_lacks_no_data():
    fleet = FakeFleet(4, settings=replace(SETTINGS, mode="Off"))
    assert not fleet.step(0.0, report=False).data_missing


def test_off_plans_nothing():
    fleet = FakeFleet(4, settings=replace(SETTINGS, mode="Off"))
    last = fleet.run(3 * fleet.full_rate, 5)[-1]
    assert (last.reason, last.wanted, last.assignment) == (Reason.MODE_OFF, None, {})
    assert last.plan.mix == {0: 4}


def test_without_prompt_classes_only_full_generation_is_reckoned_with():
    fleet = FakeFleet(4, classes=False)
    last = fleet.run(2 * fleet.full_rate, 10)[-1]
    assert last.plan.mix == {0: 4}
    assert "no prompt classes" in last.message


def test_backlog_counts_as_load():
    fleet = FakeFleet(8)
    fleet.run(0.6 * fleet.full_rate, 20)
    seen = fleet.observe(0.6 * fleet.full_rate)
    calm, _ = decide(seen, fleet.state, SETTINGS)
    behind = replace(seen, report=replace(seen.report, backlog_s=25.0))
    late, _ = decide(behind, fleet.state, SETTINGS)
    assert calm.plan.price == 0
    assert late.plan.price > 0


def test_every_decision_has_a_camel_case_reason_and_one_sentence():
    fleet = FakeFleet(4)
    for share in (0.0, 0.5, 1.5, 4.0, 0.5):
        for decision in fleet.run(share * fleet.full_rate, 6):
            assert decision.reason.value.isidentifier()
            assert decision.reason.value[0].isupper()
            assert "\n" not in decision.message
            assert isinstance(decision.plan, Plan)
            assert sum(level.share for level in decision.plan.levels) == pytest.approx(1)


def changes(fleet, rate, plans, before=None):
    mixes = [d.plan.mix for d in fleet.run(rate, plans)]
    mixes = mixes if before is None else [before, *mixes]
    return sum(a != b for a, b in pairwise(mixes))


#: Idle to overloaded, and as often near what the fleet can make in full, where plans turn.
SHARES = st.one_of(st.floats(0.05, 2.2), st.floats(0.8, 1.1))
SEEDS = st.integers(0, 2**32 - 1)
#: Arrivals between two plans from which a minute tells the rate.
PLENTY = 20
#: The first minute's plans.
MINUTE = int(60 / SETTINGS.interval_s)


# At fixed examples, here and below, since no bound holds for every draw of a Poisson process.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(workers=st.sampled_from([8, 16, 32, 64]), share=SHARES, seed=SEEDS)
def test_constant_load_never_changes_a_plan_after_the_first_minute(workers, share, seed):
    """Within 64 plans."""
    fleet = FakeFleet(workers, seed=seed)
    rate = max(share * fleet.full_rate, PLENTY / SETTINGS.interval_s)
    settled = fleet.run(rate, MINUTE)[-1].plan.mix
    assert changes(fleet, rate, 64, settled) == 0


@pytest.mark.parametrize("workers", [8, 32])
@pytest.mark.parametrize("share", [0.2, 0.5, 1.4, 2.4])
def test_constant_load_away_from_where_plans_turn_never_changes_them(workers, share):
    for seed in range(3):
        fleet = FakeFleet(workers, seed=seed)
        fleet.run(share * fleet.full_rate, MINUTE)
        assert changes(fleet, share * fleet.full_rate, 60) == 0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(workers=st.sampled_from([1, 2, 3, 5]), share=SHARES, seed=SEEDS)
def test_constant_load_of_few_prompts_does_not_flap_the_mix(workers, share, seed):
    """The bound: once settled (50 plans), at most 2 changes of the mix in 80 plans."""
    fleet = FakeFleet(workers, seed=seed)
    rate = share * fleet.full_rate
    fleet.run(rate, 50)
    assert changes(fleet, rate, 80) <= 2


def test_swinging_load_is_followed():
    fleet = FakeFleet(2)
    for share in (0.3, 1.5, 0.3, 1.5):
        fleet.run(share * fleet.full_rate, 40)
        assert (fleet.levels["w1"][0] > 0) is (share > 1)
