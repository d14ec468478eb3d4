"""Plans: accepted, refused, kept across restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from router_kit import PREDICTOR, Clock, service

from gesso.rpc.v1 import router_pb2
from gesso_router.control import Control, StaleRevisionError
from gesso_router.core import Router
from gesso_router.fleet import Fleet
from gesso_router.plan_store import PlanError, PlanStore, plan_of


class RecordingPool:
    def __init__(self) -> None:
        self.applied: list[list[str]] = []

    def apply(self, endpoints: Any, revision: int) -> None:
        self.applied.append([f"{e.name}@{e.address}:{e.assigned_skipped_steps}" for e in endpoints])


def request(revision: int = 1, price: float = 0.5, **worker: Any) -> router_pb2.ApplyPlanRequest:
    endpoint = {"name": "worker-0", "address": "127.0.0.1:7101", "assigned_skipped_steps": 10}
    return router_pb2.ApplyPlanRequest(
        plan=router_pb2.Plan(
            revision=revision,
            price=price,
            reason="Load",
            levels=[router_pb2.LevelPlan(skipped_steps=10, workers=1, share=1.0)],
        ),
        workers=[router_pb2.WorkerEndpoint(**{**endpoint, **worker})],
    )


def control(folder: Path) -> tuple[Control, Router, RecordingPool]:
    pool: Any = RecordingPool()
    made = Router(service(), PREDICTOR, Fleet(50, 4, 3), pool, clock=Clock())
    return Control(made, pool, PlanStore(folder), clock=Clock()), made, pool


async def test_a_plan_is_in_force_and_survives_a_restart(tmp_path: Path) -> None:
    first, made, pool = control(tmp_path)
    assert await first.apply(request(3)) == 3
    assert made.plan is not None
    assert (made.plan.revision, made.plan.price, made.plan.mix) == (3, 0.5, {10: 1})
    assert pool.applied == [["worker-0@127.0.0.1:7101:10"]]
    second, again, pool = control(tmp_path)
    assert second.restore()
    assert again.plan == made.plan
    assert pool.applied == [["worker-0@127.0.0.1:7101:10"]]
    assert second.report().plan_revision == 3


async def test_the_same_plan_again_is_fine_an_older_one_is_not(tmp_path: Path) -> None:
    made, router, _ = control(tmp_path)
    await made.apply(request(3))
    await made.apply(request(3))
    with pytest.raises(StaleRevisionError, match="revision: 2 is not allowed: at least 3"):
        await made.apply(request(2))
    assert router.plan is not None
    assert router.plan.revision == 3
    assert PlanStore(tmp_path).load() == request(3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (request(0), "revision: 0"),
        (request(price=-1), "price: -1"),
        (request(price=float("nan")), "price: nan"),
        (request(name=""), r"workers\[0\].name: ''"),
        (request(name="wörker"), r"workers\[0\].name"),
        (request(address="nowhere"), r"workers\[0\].address: 'nowhere' is not allowed: host:port"),
        (
            router_pb2.ApplyPlanRequest(
                plan=request().plan, workers=[*request().workers, *request().workers]
            ),
            r"workers\[1\].name: .* twice",
        ),
    ],
)
async def test_bad_plans_are_refused_and_change_nothing(
    tmp_path: Path, bad: router_pb2.ApplyPlanRequest, message: str
) -> None:
    made, router, pool = control(tmp_path)
    with pytest.raises(PlanError, match=message):
        await made.apply(bad)
    assert (router.plan, pool.applied, PlanStore(tmp_path).load()) == (None, [], None)


@pytest.mark.parametrize("text", ["", "{", '{"plan": {"revision": "0"}}', '{"plan": 3}'])
def test_a_saved_plan_that_is_none_is_left_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    made, router, _ = control(tmp_path)
    assert not made.restore()
    assert router.plan is None


async def test_a_plan_that_cannot_be_saved_is_not_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, router, _ = control(tmp_path)

    def full(self: PlanStore, request: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PlanStore, "save", full)
    with pytest.raises(OSError, match="No space"):
        await made.apply(request())
    assert router.plan is None


def test_levels_and_shares_come_through() -> None:
    plan, endpoints = plan_of(request())
    assert (plan.levels[0].share, endpoints[0].assigned_skipped_steps) == (1.0, 10)
