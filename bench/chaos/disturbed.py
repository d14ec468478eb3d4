"""One fault after another under a steady open-loop load, each with a calm before and after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from chaos.client import Balanced
from chaos.faults import Fault
from chaos.figures import WINDOW_S, Answer, back_after, due, told, touched, windows, worst
from chaos.watch import Watch
from gesso_simulator.bench.open_loop import open_loop
from gesso_simulator.demo.fleet import Fleet
from gesso_simulator.workloads.sessions import PromptRequest

#: No counter or condition later than this is the fault's any more.
READ_LATE_S = 1.0
WHOLE_S = 60.0


def schedule(faults: Sequence[Fault], calm_s: float, stretch: float) -> list[tuple[Fault, float]]:
    """Each fault and its second; `stretch` shortens what is waited for after faults."""
    at, plan = calm_s, []
    for fault in faults:
        plan.append((fault, at))
        at += fault.lasts_s + stretch * fault.after_s + calm_s
    return plan


def seconds_of(faults: Sequence[Fault], calm_s: float, stretch: float) -> float:
    """How long all of them take."""
    last, at = schedule(faults, calm_s, stretch)[-1]
    return at + last.lasts_s + stretch * last.after_s + calm_s


async def disturbed(
    fleet: Fleet,
    asked: Sequence[PromptRequest],
    slo_seconds: float,
    target: float,
    faults: Sequence[Fault],
    calm_s: float,
    stretch: float,
) -> dict[str, Any]:
    """Plays `asked` and breaks things meanwhile; `target` is the attainment that is promised."""
    targets = [grpc for _, grpc, _ in fleet.routers().values()]
    done: dict[str, str] = {}
    began: dict[str, float] = {}
    start: list[float] = []
    watch = Watch(fleet, time.monotonic())

    async def until(at_s: float) -> None:
        await asyncio.sleep(max(0.0, start[0] + at_s - time.monotonic()))

    async def breaking() -> None:
        while not start:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        watch.start = start[0]
        for fault, at_s in schedule(faults, calm_s, stretch):
            await until(at_s)
            await _whole(fleet)
            began[fault.name] = time.monotonic() - start[0]
            done[fault.name] = fault.begin(fleet)
            if fault.end is not None:
                await until(began[fault.name] + fault.lasts_s)
                done[fault.name] += f", then {fault.end(fleet)}"

    watching = asyncio.create_task(watch.run())
    breaks = asyncio.create_task(breaking())
    try:
        async with Balanced(targets, slo_seconds) as client:
            answers = await open_loop(asked, client.send, start.append)
        await breaks
    finally:
        watching.cancel()
        breaks.cancel()
        await asyncio.gather(watching, breaks, return_exceptions=True)
    end = answers[-1].at_s if answers else 0.0
    return {
        "faults": {
            fault.name: _found(
                fault, began[fault.name], done, answers, watch, target, calm_s, stretch
            )
            for fault in faults
        },
        "all": told(answers),
        "lost_because": sorted({a.detail for a in answers if a.lost}),
        "attainment_over_time": windows(answers, 0.0, end, 1.0),
        "memory_over_time": dict(watch.memory),
    }


async def _whole(fleet: Fleet) -> None:
    """Until what was broken before is whole again, a minute at most: one fault at a time."""
    end = time.monotonic() + WHOLE_S
    while time.monotonic() < end:
        workers = fleet.status().workers
        if fleet.whole() and workers.ready == workers.desired:
            return
        await asyncio.sleep(0.2)


def _found(
    fault: Fault,
    at_s: float,
    done: dict[str, str],
    answers: Sequence[Answer],
    watch: Watch,
    target: float,
    calm_s: float,
    stretch: float,
) -> dict[str, Any]:
    """The figures of one fault: before, from its begin until the next calm, and in that calm."""
    over_s = at_s + fault.lasts_s + stretch * fault.after_s
    return {
        "title": fault.title,
        "did": done.get(fault.name, ""),
        "at_s": at_s,
        "lasts_s": fault.lasts_s,
        "before": told(
            [a for a in due(answers, at_s - calm_s, at_s) if a.at_s + a.latency_s < at_s]
        ),
        "during": told(touched(answers, at_s, over_s)),
        "after": told(due(answers, over_s, over_s + calm_s)),
        # What is under way when something breaks was due before.
        "worst_window": worst(answers, at_s - WINDOW_S / 2, over_s),
        "back_after_s": back_after(answers, at_s, over_s + calm_s, target),
        "counters": watch.counted(at_s, over_s + READ_LATE_S),
        "said": watch.said(at_s, over_s + READ_LATE_S),
    }
