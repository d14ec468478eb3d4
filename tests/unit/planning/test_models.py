"""Workers between models: to the faster one in time, back slowly, never to and fro under a constant load."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fleet import A100, CURVES, SETTINGS, FakeFleet

from gesso.profile import Profile
from gesso_operator.planning import ModelVariant, Reason, with_history

LIGHTNING = Profile("A100", 4, 0.0, 0.0, (0.378 / 4,))
MODELS = replace(
    SETTINGS,
    interval_s=30,
    models=(ModelVariant("lightning", 4),),
    profiles={("A100", "lightning"): LIGHTNING},
    switch_s=(("", "lightning", 47.0), ("", "", 47.0)),
)
ALL = {"easy": (*CURVES["easy"], 0.9), "hard": (*CURVES["hard"], 0.75)}


def fleet(workers=8, seed=0):
    return FakeFleet(
        workers, MODELS, seed=seed, curves=ALL, model_profiles={"lightning": LIGHTNING}
    )


def lightning(f):
    return sum(1 for m in f.models.values() if m)


def test_load_within_the_ladder_needs_no_other_model():
    f = fleet()
    f.run(0.8 * f.full_rate, 40)
    assert lightning(f) == 0


def test_load_beyond_the_ladder_is_met_at_once_and_a_fallen_one_goes_back_late():
    f = fleet()
    f.run(0.5 * f.full_rate, 20)
    busy = f.run(2.8 * f.full_rate, 3)
    assert Reason.MODEL_SWITCH in [d.reason for d in busy[:2]]
    assert 1 <= lightning(f) <= 3
    f.run(2.8 * f.full_rate, 20)
    assert f.step(2.8 * f.full_rate).diagnostics.shed == 0
    loaded = lightning(f)
    f.run(0.5 * f.full_rate, 5)
    assert lightning(f) == loaded
    f.run(0.5 * f.full_rate, 60)
    assert lightning(f) < loaded


def test_bursts_of_past_days_are_no_reason_to_load_ahead_of_them():
    """Past days had one every hour, 2.5 times the rate of now for ten minutes, on the half."""
    f = fleet()
    rate = 0.9 * f.full_rate
    minutes = np.arange(3 * 1440)
    counts = 60 * rate * np.where((minutes % 60 >= 30) & (minutes % 60 < 40), 2.5, 1.0)
    f.now = 3 * 86_400.0
    f.state = with_history(f.state, counts.tolist(), 60.0, 0.0)
    f.run(rate, 4 * 60)
    assert f.switched == 0


def test_worker_on_its_way_is_still_planned_for_and_keeps_its_model():
    f = fleet()
    f.run(0.5 * f.full_rate, 10)
    moved = f.step(2.8 * f.full_rate)
    while moved.reason is not Reason.MODEL_SWITCH:
        moved = f.step(2.8 * f.full_rate)
    after = f.step(2.8 * f.full_rate)
    assert sum(level.workers for level in after.plan.levels) == 8
    assert set(moved.models) == set(f.models)
    held = [n for n, m in after.models.items() if m]
    assert held == [n for n, m in f.models.items() if m]
    # It is not given a level while it loads.
    assert not set(held) & set(after.assignment)


def test_plan_names_the_models_and_their_worth():
    f = fleet()
    last = f.run(2.8 * f.full_rate, 30)[-1]
    assert last.plan.mix_text.endswith(f"lightning:{lightning(f)}")
    assert dict(last.plan.device_worth)["lightning"] >= 0


def test_a_fleet_that_holds_nothing_but_another_model_is_planned_for():
    f = fleet(2)
    f.settings = replace(MODELS, switch_s=(("", "lightning", 47.0), ("", "", 1e9)))
    f.models = dict.fromkeys(f.models, "lightning")
    last = f.run(2.0 * f.full_rate, 6)[-1]
    assert last.plan.mix_text == "lightning:2"
    assert last.plan.price_curve == ()


def test_nobody_loads_a_model_that_no_device_can_hold():
    f = fleet()
    f.settings = replace(MODELS, profiles={})
    f.run(2.8 * f.full_rate, 20)
    assert lightning(f) == 0


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    workers=st.sampled_from([2, 8, 24]),
    share=st.floats(0.3, 3.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_constant_load_does_not_flap_the_models(workers, share, seed):
    """Once settled (30 plans), at most one move between models in 30 plans."""
    f = fleet(workers, seed)
    rate = share * f.full_rate
    f.run(rate, 30)
    moves = sum(d.reason is Reason.MODEL_SWITCH for d in f.run(rate, 30))
    assert moves <= 1


def test_two_device_classes_are_planned_side_by_side():
    f = FakeFleet(6)
    h100 = Profile("H100", 50, 0.0, 0.0, (A100.step_seconds[0] / 2,))
    f.profile_of = lambda name: h100 if name in ("w0", "w1") else A100
    last = f.run(1.6 * f.full_rate, 30)[-1]
    assert {level.device for level in last.plan.levels} == {"A100", "H100"}
    assert sum(level.workers for level in last.plan.levels) == 6
    worth = dict(last.plan.device_worth)
    assert worth["H100"] == pytest.approx(2 * worth["A100"], rel=0.05)
