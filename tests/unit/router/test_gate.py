"""Clipper-HA's queue: order, windows, lazy drops, cancellation, who has failed somewhere."""

from __future__ import annotations

import asyncio

import pytest
from router_kit import PROFILE, Clock

from gesso_router.fleet import Endpoint, Fleet, WorkerReport
from gesso_router.gate import ClipperGate, DeadlinePassedError, NoWorkerLeftError
from gesso_router.routing.clipper import Waiting


def gate(clock: Clock, *workers: str) -> tuple[ClipperGate, Fleet]:
    fleet = Fleet(50, 4, 3)
    fleet.apply([Endpoint(w, f"{w}:1", 0) for w in workers])
    for name in workers:
        fleet.reported(name, WorkerReport(ready=True, draining=False, profile=PROFILE), clock.now)
    return ClipperGate(fleet, 4, clock), fleet


async def taken(made: ClipperGate, fleet: Fleet, request_id: str, deadline: float = 200.0) -> str:
    worker = await made.turn(Waiting(request_id, deadline), give_up_s=400.0)
    fleet.sent(worker, request_id, 50, 100.0)
    return worker


async def test_turns_come_in_order_as_windows_open() -> None:
    clock = Clock()
    made, fleet = gate(clock, "a")
    order: list[str] = []

    async def go(request_id: str) -> None:
        await taken(made, fleet, request_id)
        order.append(request_id)

    tasks = [asyncio.create_task(go(f"r{i}")) for i in range(4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["r0"]
    fleet.done("a", "r0", clock.now)
    made.finished("a", missed=False)  # the window is two now
    await asyncio.wait(tasks[1:3])
    assert order == ["r0", "r1", "r2"]
    assert len(made) == 1
    fleet.done("a", "r1", clock.now)
    made.finished("a", missed=True)  # and one again
    fleet.done("a", "r2", clock.now)
    made.pump()
    await tasks[3]
    assert order[-1] == "r3"


async def test_the_late_are_dropped_at_their_turn_only() -> None:
    clock = Clock()
    made, fleet = gate(clock, "a")
    await taken(made, fleet, "r0")
    waiting = asyncio.create_task(taken(made, fleet, "r1", deadline=101.0))
    await asyncio.sleep(0)
    clock.now = 150.0
    made.pump()
    await asyncio.sleep(0)
    assert not waiting.done()
    fleet.done("a", "r0", clock.now)
    made.pump()
    with pytest.raises(DeadlinePassedError):
        await waiting


async def test_without_any_worker_the_wait_ends() -> None:
    clock = Clock()
    made, _ = gate(clock)
    with pytest.raises(DeadlinePassedError):
        await made.turn(Waiting("r0", 100.0), give_up_s=clock.now + 0.01)
    assert len(made) == 0


async def test_a_turn_in_the_hand_of_one_who_left_goes_to_the_next() -> None:
    clock = Clock()
    made, fleet = gate(clock, "a")
    await taken(made, fleet, "r0")
    leaving = asyncio.create_task(taken(made, fleet, "r1"))
    staying = asyncio.create_task(taken(made, fleet, "r2"))
    await asyncio.sleep(0)
    fleet.done("a", "r0", clock.now)
    made.pump()  # r1 is promised the worker
    leaving.cancel()
    assert await staying == "a"
    assert leaving.cancelled() or ((await asyncio.wait({leaving})) and leaving.cancelled())
    assert fleet.in_flight("a") == 1


async def test_the_head_is_judged_at_its_own_level() -> None:
    clock = Clock()
    made, _ = gate(clock, "a")
    # In full an image takes 0.5 s alone, at K = 25 half of it.
    soon = clock.now + 0.3
    with pytest.raises(DeadlinePassedError):
        await made.turn(Waiting("full", soon), give_up_s=400.0)
    assert await made.turn(Waiting("fast", soon, skipped_steps=25), give_up_s=400.0) == "a"


async def again(made: ClipperGate, request_id: str, *tried: str) -> str:
    """The turn of one that was failed by workers."""
    return await made.turn(Waiting(request_id, 200.0, frozenset(tried)), give_up_s=400.0)


async def test_one_who_waits_for_a_worker_holds_up_nobody_who_may_go_to_another() -> None:
    clock = Clock()
    made, fleet = gate(clock, "a", "b")
    assert [await taken(made, fleet, r) for r in ("r0", "r1")] == ["a", "b"]
    failed = asyncio.create_task(again(made, "failed", "a"))
    behind = asyncio.create_task(taken(made, fleet, "behind"))
    last = asyncio.create_task(taken(made, fleet, "last"))
    await asyncio.sleep(0)
    fleet.done("a", "r0", clock.now)
    made.pump()
    assert await behind == "a"
    fleet.done("b", "r1", clock.now)
    made.pump()  # it has kept its place
    assert await failed == "b"
    assert not last.done()
    last.cancel()


async def test_one_whose_last_worker_is_lost_is_told_at_once() -> None:
    clock = Clock()
    made, fleet = gate(clock, "a", "b")
    for request_id in ("r0", "r1"):
        await taken(made, fleet, request_id)
    head = asyncio.create_task(again(made, "head", "a"))
    first_try = asyncio.create_task(taken(made, fleet, "first try"))
    behind = asyncio.create_task(again(made, "behind", "a"))
    await asyncio.sleep(0)
    fleet.lost("b", clock.now)
    made.pump()
    for failed in (head, behind):
        with pytest.raises(NoWorkerLeftError):
            await failed
    assert len(made) == 1
    fleet.done("a", "r0", clock.now)
    made.pump()
    assert await first_try == "a"
