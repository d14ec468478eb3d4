"""The choice of K and worker: price, deadline, floor, locality, refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_kit import LADDER, SLOW, fleet, options

from gesso.profile import Profile
from gesso_router.routing.choose import (
    Ask,
    Choice,
    ChoicePolicy,
    Refusal,
    WorkerView,
    choose,
    fleet_backlog_seconds,
    fleet_price,
)
from gesso_router.routing.price import PricePolicy, backlog_price, current_price, plan_price_now

POLICY = ChoicePolicy(overhead_seconds=0.0)
IDLE_A, IDLE_B = WorkerView("a", SLOW), WorkerView("b", SLOW)


def ask(*quality: float, deadline: float = 100.0, **fields: object) -> Ask:
    return Ask(options(*quality), SLOW.steps, deadline, **fields)  # type: ignore[arg-type]


def chosen(decision: Choice | Refusal) -> Choice:
    assert isinstance(decision, Choice), decision
    return decision


def test_idle_fleet_gives_the_best_quality() -> None:
    got = chosen(choose(ask(1.0, 0.99, 0.95, 0.9), fleet(IDLE_A, IDLE_B), POLICY))
    assert (got.skipped_steps, got.reason, got.price.source) == (0, "price", "idle")


def test_a_price_buys_steps_from_those_who_lose_least() -> None:
    # K = 6 saves 4.5 worker-seconds at the best batch: worth 0.09 at the tenth that an idle fleet is charged.
    view = fleet(IDLE_A, price=0.2)
    robust = chosen(choose(ask(1.0, 0.99, 0.98, 0.97), view, POLICY))
    fragile = chosen(choose(ask(1.0, 0.9, 0.8, 0.7), view, POLICY))
    assert (robust.skipped_steps, fragile.skipped_steps) == (6, 0)
    assert robust.price.source == "plan"


@pytest.mark.parametrize(
    ("backlog", "share"),
    [(0.0, 0.1), (-1.0, 0.1), (2.0, 0.5), (4.0, 1.0), (400.0, 1.0)],
)
def test_the_plans_price_holds_as_far_as_the_fleet_is_busy(backlog: float, share: float) -> None:
    assert plan_price_now(0.3, backlog, full_batch_seconds=8.0) == pytest.approx(0.3 * share)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_a_plan_price_that_is_none_counts_as_0(price: float) -> None:
    assert plan_price_now(price, 100.0, 8.0) == 0.0


def test_a_backlog_raises_the_price_above_the_plans() -> None:
    busy = WorkerView("a", SLOW, active=(9, 9), queued=(10,) * 6)
    view = fleet(busy, slo=60.0, price=1e-6)
    assert fleet_backlog_seconds(view.workers) == pytest.approx(78 * 0.75)
    price = fleet_price(view, POLICY)
    assert price.source == "backlog"
    assert price.value == pytest.approx(
        POLICY.price.weight / 7.5 * (78 * 0.75 / 60) ** POLICY.price.exponent
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_where_workers_batch_the_curve_keeps_a_share_of_the_backlogs_price(share: float) -> None:
    busy = WorkerView("a", SLOW, active=(9, 9), queued=(10,) * 6)
    view = fleet(busy, slo=60.0)
    assert view.plan is not None
    backlog = backlog_price(POLICY.price, busy.backlog_seconds, 60.0, SLOW.work_seconds(0))
    for flat in (0.0, 0.7 * backlog, 2 * backlog):
        curved = replace(view, plan=replace(view.plan, price_curve=((0.0, flat), (1e3, flat))))
        price = fleet_price(curved, replace(POLICY, batch_share=share))
        assert price.value == pytest.approx(max(flat, share * backlog))


def test_where_workers_serve_one_image_the_curve_is_the_price() -> None:
    alone = WorkerView("a", Profile("slow", 10, 0.0, 0.0, (1.0,)), active=(9,), queued=(10,) * 6)
    view = fleet(alone, slo=60.0)
    assert view.plan is not None
    curved = replace(view, plan=replace(view.plan, price_curve=((0.0, 0.0), (100.0, 0.1))))
    assert fleet_price(curved, POLICY).value == pytest.approx(0.001 * alone.backlog_seconds)


def test_who_cannot_make_it_goes_to_a_larger_k() -> None:
    got = chosen(choose(ask(1.0, 0.5, 0.4, 0.3, deadline=6.5), fleet(IDLE_A), POLICY))
    assert (got.skipped_steps, got.reason) == (4, "deadline")
    assert got.finish_seconds == pytest.approx(6.0)


def test_the_margin_is_kept() -> None:
    view = fleet(IDLE_A, margin=1.2)
    got = chosen(choose(ask(1.0, 0.5, 0.4, 0.3, deadline=6.5), view, POLICY))
    assert got.skipped_steps == 6


def test_who_cannot_make_it_at_all_is_refused_at_once_with_the_time_to_wait() -> None:
    busy = WorkerView("a", SLOW, active=(10, 10), queued=(10, 10))
    got = choose(ask(1.0, 0.5, 0.4, 0.3, deadline=6.5), fleet(busy), POLICY)
    assert isinstance(got, Refusal)
    assert got.reason == "deadline"
    # Half a tick, two rounds of ten steps in twos, then four steps alone.
    assert got.retry_after_seconds == pytest.approx(0.75 + 15 + 15 + 4 - 6.5)
    assert "deadline in 6.50 s" in got.message


def test_the_quality_floor_is_kept_or_the_request_refused() -> None:
    tight = ask(1.0, 0.9, 0.8, 0.7, deadline=7.0, min_quality=0.85)
    got = choose(tight, fleet(IDLE_A), POLICY)
    assert isinstance(got, Refusal)
    assert got.reason == "quality-floor"
    assert "0.85" in got.message
    assert (
        chosen(choose(replace(tight, deadline_seconds=8.0), fleet(IDLE_A), POLICY)).skipped_steps
        == 2
    )
    assert chosen(choose(replace(tight, min_quality=0.8), fleet(IDLE_A), POLICY)).skipped_steps == 4


def test_a_floor_never_forbids_full_generation() -> None:
    got = chosen(choose(ask(1.0, 0.9, min_quality=1.0), fleet(IDLE_A), POLICY))
    assert got.skipped_steps == 0


def test_load_goes_to_the_worker_that_finishes_first() -> None:
    busy = WorkerView("a", SLOW, active=(5,))
    assert chosen(choose(ask(1.0), fleet(busy, IDLE_B), POLICY)).worker == "b"


def test_latents_draw_a_prompt_to_their_holder_by_the_fetch_they_save() -> None:
    view = fleet(IDLE_B, IDLE_A, price=1.0)
    assert chosen(choose(ask(1.0, 0.99, 0.99, 0.99), view, POLICY)).worker == "a"
    # The fetch takes half a second, the queue there far more.
    queue_there = fleet(IDLE_B, WorkerView("a", SLOW, active=(9, 9), queued=(9, 9)), price=1.0)
    got = chosen(choose(ask(1.0, 0.99, 0.99, 0.99, deadline=20.0), queue_there, POLICY))
    assert got.worker == "b"
    assert got.finish_seconds == pytest.approx(4.5)


def test_the_assigned_level_breaks_ties_only() -> None:
    at_4 = WorkerView("b", SLOW, assigned_skipped_steps=4)
    view = fleet(replace(IDLE_A, assigned_skipped_steps=2), at_4, price=0.02)
    no_match = replace(
        ask(1.0), options=tuple(replace(o, match=None) for o in options(1.0, 0.0, 0.99))
    )
    assert chosen(choose(no_match, view, POLICY)).worker == "b"
    busy = replace(at_4, active=(9, 9), queued=(9,) * 4)
    assert chosen(choose(no_match, fleet(view.workers[0], busy, price=0.02), POLICY)).worker == "a"


def test_a_retry_avoids_the_worker_that_failed_and_accepts_late_over_lost() -> None:
    again = ask(1.0, 0.5, deadline=3.0, exclude=frozenset({"a"}), accept_late=True)
    got = chosen(choose(again, fleet(IDLE_A, IDLE_B), POLICY))
    assert (got.worker, got.skipped_steps, got.reason) == ("b", 2, "late")
    alone = choose(again, fleet(IDLE_A), POLICY)
    assert isinstance(alone, Refusal)
    assert alone.reason == "no-worker"


def test_no_worker_is_a_refusal() -> None:
    got = choose(ask(1.0), fleet(), POLICY)
    assert isinstance(got, Refusal)
    assert got.reason == "no-worker"


@given(
    active=st.lists(st.lists(st.integers(1, 10), max_size=2), min_size=1, max_size=3),
    queued=st.lists(st.integers(1, 10), max_size=4),
    quality=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    deadline=st.floats(-5, 80),
    price=st.floats(0, 1),
    floor=st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_a_choice_makes_its_deadline_and_floor_and_a_refusal_says_when(
    active: list[list[int]],
    queued: list[int],
    quality: list[float],
    deadline: float,
    price: float,
    floor: float,
) -> None:
    workers = [
        WorkerView(f"w{i}", SLOW, active=tuple(a), queued=tuple(queued) if len(a) == 2 else ())
        for i, a in enumerate(active)
    ]
    asked = ask(1.0, *sorted(quality, reverse=True), deadline=deadline, min_quality=floor)
    got = choose(asked, fleet(*workers, price=price, margin=1.1), POLICY)
    if isinstance(got, Choice):
        assert got.finish_seconds * 1.1 <= deadline + 1e-9
        assert got.option.quality >= floor or got.skipped_steps == 0
        assert got.worker in {w.name for w in workers}
        assert got.skipped_steps in LADDER
    else:
        assert 0.2 <= got.retry_after_seconds <= 60
        assert got.reason in {"deadline", "quality-floor"}


def test_the_larger_of_plan_and_backlog_is_the_price() -> None:
    assert current_price(0.2, 0.1) == current_price(0.2, 0.0)
    assert current_price(0.1, 0.3).source == "backlog"
    assert current_price(float("nan"), 0.0).value == 0.0


def test_backlog_price_is_c_over_work_when_the_backlog_equals_the_deadline() -> None:
    policy = PricePolicy(weight=3.0, exponent=2.0)
    assert backlog_price(policy, 10.0, 10.0, 2.0) == pytest.approx(1.5)
    assert backlog_price(policy, 5.0, 10.0, 2.0) == pytest.approx(1.5 / 4)
    assert backlog_price(policy, 0.0, 10.0, 2.0) == 0.0


@pytest.mark.parametrize(("c", "p"), [(-1, 2), (float("nan"), 2), (1, 0), (1, float("inf"))])
def test_constants_that_cannot_be_are_refused(c: float, p: float) -> None:
    with pytest.raises(ValueError, match=r"weight|exponent"):
        PricePolicy(c, p)


def test_a_slightly_faster_worker_does_not_draw_the_crowd() -> None:
    faster = Profile("slow", 10, 0.0, 0.0, tuple(0.98 * t for t in SLOW.step_seconds))
    crowded = WorkerView("a", faster, active=(9, 9), queued=(9,))
    view = fleet(crowded, WorkerView("b", SLOW, active=(9,)), price=0.1)
    assert chosen(choose(ask(1.0), view, POLICY)).worker == "b"


def test_an_idle_worker_that_seems_too_slow_is_tried_before_all_are_refused() -> None:
    unproven = replace(IDLE_A, proven=False)
    hopeful = ask(1.0, 0.5, deadline=4.0)
    got = chosen(choose(hopeful, fleet(unproven), POLICY))
    assert (got.reason, got.skipped_steps) == ("probe", 2)
    for view in (IDLE_A, replace(unproven, active=(1,)), replace(unproven, queued=(1,))):
        assert isinstance(choose(hopeful, fleet(view), POLICY), Refusal)
    hopeless = ask(1.0, 0.5, deadline=2.0)
    assert isinstance(choose(hopeless, fleet(unproven), POLICY), Refusal)
