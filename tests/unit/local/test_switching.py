"""What changes of model cost, and which models are left alone for now."""

import pytest

from gesso.profile import Profile
from gesso_operator.planning import ModelVariant, RouterReport, WorkerView
from gesso_operator.planning.observation import ClassCount
from gesso_operator.switching import (
    ASSUMED_SECONDS,
    LEAST_SECONDS,
    MOST_RETRY_SECONDS,
    RETRY_SECONDS,
    WEIGHT,
    Failures,
    Measured,
    Switch,
    SwitchTimes,
    may_begin,
    reachable,
)

THERE = Switch("", "fast", 1.0, 8.0, 3.0)
BACK = Switch("fast", "", 0.5, 20.0, 3.0)


def test_without_other_models_nothing_is_told():
    assert SwitchTimes().add("w", "gpu", THERE).for_settings([]) == ()


def test_until_measured_a_change_is_assumed_to_take_long():
    told = SwitchTimes().for_settings(["fast"])
    assert told == (("", "", ASSUMED_SECONDS), ("", "fast", ASSUMED_SECONDS))


def test_a_change_counts_once_however_often_it_is_told():
    times = SwitchTimes().add("w", "gpu", THERE)
    assert times.add("w", "gpu", THERE) is times
    assert times.add("w", "gpu", None) is times
    assert times.mean_s == {("gpu", "", "fast"): 12.0}


def test_means_are_kept_per_pair_and_device_class():
    times = SwitchTimes().add("w", "gpu", THERE).add("w", "gpu", BACK).add("v", "cpu", THERE)
    slower = Switch("", "fast", 1.0, 18.0, 3.0)
    times = times.add("w", "gpu", slower)
    assert times.mean_s == {
        ("gpu", "", "fast"): pytest.approx(12.0 + WEIGHT * 10.0),
        ("gpu", "fast", ""): 23.5,
        ("cpu", "", "fast"): 12.0,
    }
    assert times.for_settings(["fast"]) == (
        ("", "", ASSUMED_SECONDS),
        ("", "fast", ASSUMED_SECONDS),
        ("cpu", "fast", 12.0),
        ("gpu", "", 23.5),
        ("gpu", "fast", 15.0),
    )


def test_of_several_models_before_the_dearest_counts_and_unknown_ones_do_not():
    times = SwitchTimes()
    for before, load in (("", 10.0), ("other", 40.0), ("gone", 90.0)):
        times = times.add(f"w{load}", "gpu", Switch(before, "fast", 0.0, load, 0.0))
    assert ("gpu", "fast", 40.0) in times.for_settings(["fast", "other"])


def test_a_model_in_the_memory_of_all_workers_costs_what_such_changes_have_cost():
    kept = Switch("fast", "", 0.0, 0.4, 0.0, kept=True)
    times = SwitchTimes().add("w", "gpu", THERE).add("w", "gpu", kept).add("v", "cpu", THERE)
    # What a change within memory takes says nothing of a load, nor the other way round.
    assert times.mean_s == {("gpu", "", "fast"): 12.0, ("cpu", "", "fast"): 12.0}
    both = ("gpu", ["", "fast"])
    assert times.for_settings(["fast"], [both, both, ("cpu", ["fast"])]) == (
        # Nothing is assumed of what is known of all workers.
        ("", "", ASSUMED_SECONDS),
        ("cpu", "fast", LEAST_SECONDS),
        ("gpu", "", 0.4),
        ("gpu", "fast", LEAST_SECONDS),
    )
    one_of_two = times.for_settings(["fast"], [both, ("gpu", [""])])
    assert ("gpu", "fast", 12.0) in one_of_two
    assert ("gpu", "", 0.4) in one_of_two


@pytest.mark.parametrize("load", [float("nan"), float("inf"), -5.0])
def test_odd_times_teach_nothing(load):
    assert SwitchTimes().add("w", "gpu", Switch("", "fast", 0.0, load, 0.0)) == SwitchTimes()


def test_what_a_worker_told_is_forgotten_with_it_and_what_it_taught_stays():
    times = SwitchTimes().add("w", "gpu", THERE).keep_only(["v"])
    assert times.seen == {}
    assert times.mean_s


def test_a_model_that_failed_waits_longer_each_time():
    failures = Failures()
    assert failures.may_try("w", "fast", 0.0)
    failures = failures.failed("w", "fast", 0.0)
    assert not failures.may_try("w", "fast", RETRY_SECONDS - 1)
    assert failures.may_try("w", "fast", RETRY_SECONDS)
    assert failures.may_try("v", "fast", 1.0)
    again = failures.failed("w", "fast", 100.0)
    assert not again.may_try("w", "fast", 100.0 + RETRY_SECONDS)
    assert again.may_try("w", "fast", 100.0 + 2 * RETRY_SECONDS)
    for _ in range(30):
        again = again.failed("w", "fast", 100.0)
    assert again.may_try("w", "fast", 100.0 + MOST_RETRY_SECONDS)
    assert again.holds("w", "fast") == Failures()
    assert again.keep_only(["v"]) == Failures()


def test_a_model_that_nobody_holds_and_somebody_could_not_load_is_out_of_reach():
    failures = Failures().failed("w", "fast", 0.0)
    assert failures.out_of_reach(["", ""], 1.0) == {"fast"}
    assert failures.out_of_reach(["", "fast"], 1.0) == frozenset()
    assert failures.out_of_reach([""], RETRY_SECONDS) == frozenset()


def test_curves_end_without_what_is_out_of_reach():
    def report(*quality):
        return RouterReport(1.0, 1.0, 5, (ClassCount("all", 5, quality),))

    full = report(1.0, 0.9, 0.8, 0.7)
    assert reachable(full, 2, ["a", "b"], frozenset({"a"})) == report(1.0, 0.9, 0.7)
    assert reachable(full, 2, ["a", "b"], frozenset()) is full
    assert reachable(report(1.0, 0.9), 2, ["a", "b"], frozenset({"a"})) == report(1.0, 0.9)
    assert reachable(None, 2, ["a"], frozenset({"a"})) is None


@pytest.mark.parametrize(
    ("serving", "changing", "more"),
    [(1, 0, 1), (0, 1, 0), (2, 0, 1), (1, 1, 0), (8, 0, 4), (5, 3, 1), (3, 5, 0), (0, 0, 1)],
)
def test_half_of_the_workers_go_on_serving(serving, changing, more):
    assert may_begin(serving, changing) == more


def test_a_model_that_nobody_has_held_is_taken_to_step_like_the_own_one():
    own, fast = (
        Profile("gpu", 50, 0.1, 0.2, (0.3, 0.4)),
        Profile("gpu", 4, 0.1, 0.2, (0.15, 0.2)),
    )
    models = [ModelVariant("fast", 4)]
    seen = Measured().add([WorkerView("w0", True, profile=own), WorkerView("w1", False)])
    assumed = seen.assumed(models)
    assert assumed == {("gpu", "fast"): Profile("gpu", 4, 0.1, 0.2, (0.3, 0.4))}
    assert seen.add([WorkerView("w0", True, profile=own)]) is seen
    measured = seen.add([WorkerView("w0", True, profile=fast, model="fast")])
    assert measured.assumed(models) == {}
