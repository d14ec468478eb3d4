"""A plan's way from the operator over the wire, through the router's file, and back: nothing is lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.plan import LevelPlan, Plan
from gesso.rpc.v1 import router_pb2
from gesso_operator.fleet import Member
from gesso_operator.wire import apply_plan_request, router_report
from gesso_router.plan_store import PlanError, PlanStore, plan_of

amounts = st.floats(0.0, 1e6)
names = st.text("abc-0", max_size=5)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(0, 4))
    rows = [draw(st.lists(st.integers(1, 9), min_size=size, max_size=size)) for _ in range(size)]
    return Plan(
        revision=draw(st.integers(1, 2**40)),
        made_at_s=draw(st.floats(0.0, 2e9)),
        levels=tuple(
            draw(
                st.lists(
                    st.builds(
                        LevelPlan,
                        st.integers(0, 50),
                        st.integers(0, 4096),
                        st.floats(0.0, 1.0),
                        names,
                        names,
                    ),
                    max_size=6,
                )
            )
        ),
        price=draw(amounts),
        reason=draw(names),
        message=draw(names),
        price_curve=tuple(sorted(draw(st.lists(st.tuples(amounts, amounts), max_size=5)))),
        device_worth=tuple(draw(st.lists(st.tuples(names, amounts), max_size=3))),
        route=tuple(tuple(p / sum(row) for p in row) for row in rows),
    )


@given(plans())
def test_a_plan_survives_the_wire(plan: Plan) -> None:
    request = apply_plan_request(plan, [Member("w0", "127.0.0.1:1", True)], {"w0": 5})
    received = router_pb2.ApplyPlanRequest.FromString(request.SerializeToString())
    known, endpoints = plan_of(received)
    assert known == plan
    assert [(e.name, e.assigned_skipped_steps) for e in endpoints] == [("w0", 5)]


def full_plan(**fields: Any) -> Plan:
    values: dict[str, Any] = {
        "revision": 3,
        "made_at_s": 1.5,
        "levels": (LevelPlan(0, 2, 0.25, "", "a100"), LevelPlan(0, 1, 0.75, "light", "h100")),
        "price": 0.5,
        "reason": "LoadRose",
        "message": "m",
        "price_curve": ((0.0, 0.0), (1.5, 0.25)),
        "device_worth": (("a100", 0.5), ("light", 2.0)),
        "route": ((0.5, 0.5), (0.0, 1.0)),
    }
    return Plan(**{**values, **fields})


def test_and_the_file(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    store.save(apply_plan_request(full_plan(), [], {}))
    saved = store.load()
    assert saved is not None
    assert plan_of(saved)[0] == full_plan()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"route": ((0.5, 0.4), (0.0, 1.0))}, r"plan.route\[0\]: .*2 probabilities with sum 1"),
        ({"route": ((1.0,), (0.0, 1.0))}, r"plan.route\[0\]: .*2 probabilities"),
        ({"route": ((1.5, -0.5), (0.0, 1.0))}, r"plan.route\[0\]: -0.5 is not allowed: 0 or more"),
        ({"price_curve": ((1.0, 0.1), (0.5, 0.2))}, r"price_curve\[1\].backlog_seconds: 0.5"),
        ({"price_curve": ((0.0, math.nan),)}, r"plan.price_curve\[0\].price: nan"),
        ({"device_worth": (("a", -1.0),)}, r"plan.device_worth\[0\].worth: -1"),
        ({"levels": (LevelPlan(0, 1, math.inf),)}, r"plan.levels\[0\].share: inf"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_of(apply_plan_request(full_plan(**bad), [], {}))


def test_optimal_levels_reach_the_planner_with_their_ladder() -> None:
    reply = router_pb2.ReportResponse(skipped_steps=[0, 5], optimal_by_level=[7, 3])
    assert router_report(reply, (0, 5)).optimal_levels == ((0, 7), (5, 3))
    assert router_report(reply, (0, 10)).optimal_levels == ()
    assert router_report(router_pb2.ReportResponse(skipped_steps=[0]), (0,)).optimal_levels == ()
