"""A plan's way from the operator over the wire, through the router's file, and back: nothing is lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.api import load_service
from gesso.plan import LevelPlan, Plan
from gesso.rpc.v1 import router_pb2
from gesso_operator.fleet import Member
from gesso_operator.reports import Merged
from gesso_operator.wire import apply_plan_request
from gesso_router.plan_store import PlanError, PlanStore, plan_of, settings_of

SERVICE = load_service(Path(__file__).parents[3] / "manifests" / "samples" / "tiny.yaml")

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
    request = apply_plan_request(plan, SERVICE, [Member("w0", "127.0.0.1:1", True)], {"w0": 5})
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
    store.save(apply_plan_request(full_plan(), SERVICE, [], {}))
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
        plan_of(apply_plan_request(full_plan(**bad), SERVICE, [], {}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("latency_seconds", 0.0, "settings.latency_seconds: 0.0 is not allowed: above 0"),
        ("latency_seconds", math.inf, "settings.latency_seconds: inf is not allowed"),
        ("min_relative_quality", 1.5, "settings.min_relative_quality: 1.5 is not allowed: 0 to 1"),
        ("max_queue", 0, "settings.max_queue: 0 is not allowed: at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: float, message: str) -> None:
    request = apply_plan_request(full_plan(), SERVICE, [], {})
    assert settings_of(request) is not None
    setattr(request.settings, field, value)
    with pytest.raises(PlanError, match=message):
        settings_of(request)


def test_optimal_levels_reach_the_planner_with_their_ladder() -> None:
    def told(reply: router_pb2.ReportResponse, ladder: tuple[int, ...]) -> object:
        report = Merged().add({"r": reply}).report({"r": reply}, ladder)
        assert report is not None
        return report.optimal_levels

    first = router_pb2.ReportResponse(skipped_steps=[0, 5], optimal_by_level=[7, 3])
    assert told(first, (0, 10)) == ()
    merged = Merged().add({"r": first})
    then = router_pb2.ReportResponse(
        at=1, uptime_seconds=1, skipped_steps=[0, 5], optimal_by_level=[9, 4]
    )
    report = merged.add({"r": then}).report({"r": then}, (0, 5))
    assert report is not None
    assert report.optimal_levels == ((0, 2), (5, 1))
