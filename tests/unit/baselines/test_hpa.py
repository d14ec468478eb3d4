"""Kubernetes' autoscaler: the documented formula, pods that are not ready, the window, the policies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.profile import Profile
from gesso_operator.planning import Observation, PlannerState, Settings, WorkerView
from gesso_simulator.baselines.autoscaled import Autoscaled, autoscaler_of
from gesso_simulator.baselines.hpa import HpaState, desired, recommended

counts = st.integers(1, 100)
metrics = st.floats(0.0, 50.0)


@pytest.mark.parametrize(
    ("current", "metric", "expected"),
    [
        (4, 200.0, 8),  # the documentation's example: twice the target, twice the pods
        (4, 50.0, 2),  # and half of it, half of them
        (3, 110.0, 3),  # within the tolerance
        (3, 90.0, 3),
        (3, 111.0, 4),  # just beyond it, rounded up
        (10, 89.0, 9),
        (3, 0.0, 0),
    ],
)
def test_pods_grow_with_metric_over_target(current: int, metric: float, expected: int) -> None:
    assert recommended(current, current, metric, 100.0) == expected


def test_who_is_not_ready_counts_as_idle_on_the_way_up() -> None:
    assert recommended(4, 2, 3.0, 1.0) == 6  # two pods at 3 and two at 0
    assert recommended(4, 2, 2.0, 1.0) == 4  # what is needed is on its way
    assert recommended(4, 2, 1.5, 1.0) == 4  # idle ones would turn the direction round
    assert recommended(4, 2, 2.15, 1.0) == 4  # within the tolerance once they are counted


def test_who_is_not_ready_does_not_count_on_the_way_down() -> None:
    assert recommended(4, 2, 0.5, 1.0) == 1


@pytest.mark.parametrize("metric", [None, float("nan")])
def test_without_a_metric_nothing_changes(metric: float | None) -> None:
    assert desired(4, 4, metric, 1.0, 1, 16, 0.0, HpaState())[0] == 4


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_target_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=r"target: .* is not allowed: above 0"):
        recommended(4, 4, 1.0, target)


def walk(metrics: list[float], current: int, most: int = 1000) -> list[int]:
    """Sizes at one sync after the other; every worker is ready at once."""
    state, sizes = HpaState(), []
    for i, metric in enumerate(metrics):
        current, state = desired(current, current, metric, 1.0, 1, most, 15.0 * i, state)
        sizes.append(current)
    return sizes


def test_a_sync_adds_four_or_doubles_whichever_is_more() -> None:
    assert walk([100.0] * 5, 1) == [5, 10, 20, 40, 80]


def test_growth_within_one_period_is_counted_from_its_beginning() -> None:
    state = HpaState()
    size, state = desired(2, 2, 100.0, 1.0, 1, 100, 0.0, state)
    assert size == 6
    assert desired(6, 6, 100.0, 1.0, 1, 100, 5.0, state)[0] == 6
    assert desired(6, 6, 100.0, 1.0, 1, 100, 15.0, state)[0] == 12


def test_a_scale_down_waits_for_the_window_then_takes_all_at_once() -> None:
    sizes = walk([1.0] + [0.25] * 21, 8)
    assert sizes[:20] == [8] * 20  # 285 s
    assert sizes[20] == 2


def test_a_peak_within_the_window_holds_the_size() -> None:
    calm = [0.5] * 10
    sizes = walk([*calm, 1.0, *calm, *calm, *calm], 8)
    # The recommendation of the 11th sync (8 workers) leaves the window at the 31st.
    assert sizes[29] == 8
    assert sizes[30] == 4


def test_the_first_size_counts_as_a_recommendation() -> None:
    assert walk([0.1], 8) == [8]


def test_bounds_come_first() -> None:
    assert desired(1, 1, None, 1.0, 2, 16, 0.0, HpaState())[0] == 2
    assert desired(20, 20, 1.0, 1.0, 2, 16, 0.0, HpaState())[0] == 16


@given(counts, st.data(), metrics, st.floats(0.1, 10.0))
def test_no_answer_leaves_the_bounds(
    current: int, data: st.DataObject, metric: float, target: float
) -> None:
    ready = data.draw(st.integers(0, current))
    least = data.draw(st.integers(1, 100))
    most = data.draw(st.integers(least, 100))
    size, _ = desired(current, ready, metric, target, least, most, 0.0, HpaState())
    assert least <= size <= most


@given(counts, st.data(), metrics, metrics)
def test_more_load_never_asks_for_fewer(
    current: int, data: st.DataObject, a: float, b: float
) -> None:
    ready = data.draw(st.integers(1, current))
    low, high = sorted((a, b))
    assert recommended(current, ready, low, 1.0) <= recommended(current, ready, high, 1.0)


ELASTIC = Settings(
    ladder=(0, 5), latency_s=20.0, workers_min=2, workers_max=16, policy="LeastOutstanding"
)
PROFILE = Profile("gpu", 50, 0.0, 0.0, (0.1,))


def seen(now: float, ready: int, starting: int = 0) -> Observation:
    views = [WorkerView(f"w{i}", True, 0, 1, PROFILE) for i in range(ready)]
    views += [WorkerView(f"s{i}", False, starting=True) for i in range(starting)]
    return Observation(now, None, tuple(views))


def test_the_planner_keeps_k_0_and_looks_every_15_seconds() -> None:
    asked: list[float] = []
    planner = Autoscaled("HPAUtilization@0.5", lambda: asked.append(1.0) or 1.0)  # type: ignore[func-returns-value]
    state, sizes = PlannerState(), []
    for i in range(7):
        ready, starting = (2, 0) if i == 0 else (2, 2)
        decision, state = planner.decide(seen(10.0 * i, ready, starting), state, ELASTIC)
        sizes.append(decision.fleet_size)
        assert set(decision.assignment.values()) == {0}
    # Twice the target on two workers: four are asked for; while two of them start, no more are.
    assert sizes == [4] * 7
    assert len(asked) == 5  # at 0, 20, 30, 50 and 60 s: 15 s on average


def test_the_planner_tells_why_it_grows() -> None:
    decision, _ = Autoscaled("HPAQueue@1", lambda: 3.0).decide(
        seen(0.0, 2), PlannerState(), ELASTIC
    )
    assert (decision.fleet_size, decision.reason) == (6, "ScaleOut")
    assert decision.message == "HPAQueue@1: 6 workers, 2 before"


def test_a_lost_worker_is_still_asked_for() -> None:
    planner = Autoscaled("HPAUtilization", lambda: 0.7)
    decision, state = planner.decide(seen(0.0, 4), PlannerState(), ELASTIC)
    decision, _ = planner.decide(seen(15.0, 3), state, ELASTIC)
    assert decision.fleet_size == 4


def test_a_fleet_of_a_fixed_size_has_no_autoscaler() -> None:
    fixed = Settings(ladder=(0,), latency_s=20.0)
    with pytest.raises(ValueError, match="HPAQueue is not allowed: for elastic fleets"):
        Autoscaled("HPAQueue", lambda: 1.0).decide(seen(0.0, 2), PlannerState(), fixed)


def test_targets_come_with_the_name() -> None:
    assert autoscaler_of("HPAUtilization@0.65") == ("HPAUtilization", 0.65)
    assert autoscaler_of("HPAQueue") == ("HPAQueue", 2.0)


@pytest.mark.parametrize(
    "policy", ["HPA@1", "HPAQueue@", "HPAQueue@x", "HPAQueue@0", "HPAQueue@nan"]
)
def test_other_names_are_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=f"policy: {policy} is not allowed"):
        autoscaler_of(policy)
