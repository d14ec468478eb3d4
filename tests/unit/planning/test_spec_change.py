"""A plan made for another spec is made anew at once, and says what changed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fleet import SETTINGS, FakeFleet

from gesso_operator.planning import Reason


def edited(rate, before=SETTINGS, plans=30, **fields):
    """A calm fleet at a share of its capacity in full, whose spec is edited: the first decision after it."""
    fleet = FakeFleet(8, before)
    fleet.run(rate * fleet.full_rate, plans)
    fleet.settings = replace(before, **fields)
    return fleet, fleet.step(rate * fleet.full_rate)


def test_the_first_decision_after_the_edit_is_a_new_plan():
    fleet, decision = edited(0.6, latency_s=12)
    assert decision.changed
    assert decision.reason is Reason.SPEC_CHANGED
    assert decision.message.startswith("spec.slo.latencySeconds 20 to 12; load ")
    assert decision.plan.reason == "SpecChanged"
    after = fleet.run(0.6 * fleet.full_rate, 5)
    assert not any(d.reason is Reason.SPEC_CHANGED for d in after)


def test_a_tighter_deadline_that_needs_faster_levels_gives_them_at_once():
    _, decision = edited(0.9, latency_s=5.0)
    assert decision.changed
    assert any(k for k in decision.plan.mix)


def test_several_edits_are_all_told():
    _, decision = edited(0.6, latency_s=12, min_quality=0.5)
    assert (
        "spec.slo.latencySeconds 20 to 12; spec.slo.minRelativeQuality 0 to 0.5; "
        in decision.message
    )


def test_without_data_the_plan_is_frozen_and_the_edit_is_taken_up_later():
    fleet = FakeFleet(8)
    fleet.run(0.6 * fleet.full_rate, 30)
    fleet.settings = replace(SETTINGS, latency_s=12)
    assert fleet.step(0.6 * fleet.full_rate, report=False).reason is Reason.NO_REPORT
    assert fleet.step(0.6 * fleet.full_rate).reason is Reason.SPEC_CHANGED


@pytest.mark.parametrize("field", ["interval_s", "payback_plans", "gate_threshold"])
def test_what_no_plan_was_made_for_is_no_change(field):
    _, decision = edited(0.6, **{field: getattr(SETTINGS, field) * 1.5})
    assert decision.reason is not Reason.SPEC_CHANGED


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 2.0), st.floats(4.5, 40.0))
def test_at_any_load_and_deadline_there_is_one_new_plan(rate, latency):
    if abs(latency - SETTINGS.latency_s) < 1e-9:
        return
    _, decision = edited(rate, latency_s=latency)
    assert decision.changed
    assert sum(decision.plan.mix.values()) == 8
    assert Reason.SPEC_CHANGED.value in (decision.reason.value, decision.plan.reason)
