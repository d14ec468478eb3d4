"""The slow loop's I/O: observe by gRPC, decide purely, assign, push the plan, write the status.
Level-triggered.

A tick that fails half way needs no undoing: the next one sees what is there and repairs it. Every call has a
deadline; nothing is retried within a tick.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from gesso.api import DiffusionService, ServiceStatus
from gesso.rpc.v1 import router_pb2
from gesso_operator.clients import Clients, Failure
from gesso_operator.fleet import Fleet, Member, StatusSink
from gesso_operator.logs import Log
from gesso_operator.planning import (
    Decision,
    Observation,
    PlannerState,
    Reason,
    Settings,
    WorkerView,
    decide,
)
from gesso_operator.status import Tick, build_status
from gesso_operator.window import Counters, Window
from gesso_operator.wire import apply_plan_request, router_report, worker_view


class ControlLoop:
    """One service's loop. `tick` does one round; `run` does rounds until told to stop."""

    def __init__(
        self,
        service: DiffusionService,
        fleet: Fleet,
        sink: StatusSink,
        clients: Clients,
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives unix seconds."""
        self._service = service
        self._settings = Settings.of(service)
        self._fleet = fleet
        self._sink = sink
        self._clients = clients
        self._log = log
        self._clock = clock
        self._state = PlannerState()
        self._window = Window()
        self._said = ""
        self._wake = asyncio.Event()
        self.status = ServiceStatus()

    def wake(self) -> None:
        """Asks for a tick now: a worker came or went, and the router should know."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Ticks every `planIntervalSeconds` and when woken, until `stop` is set.

        A slow tick does not make up for lost ones.
        """
        interval = self._service.spec.scheduling.plan_interval_seconds
        while not stop.is_set():
            started = time.monotonic()
            self._wake.clear()
            await self.tick()
            left = max(0.0, interval - (time.monotonic() - started))
            waits = [asyncio.create_task(e.wait()) for e in (stop, self._wake)]
            try:
                await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()

    async def tick(self) -> ServiceStatus:
        """One round; gives the status that was written."""
        members = self._fleet.members()
        router = self._fleet.router_address
        await self._clients.keep_only([router, *(m.address for m in members)])
        report, views = await asyncio.gather(self._clients.report(router), self._views(members))
        now = self._clock()
        error = str(report) if isinstance(report, Failure) else ""
        seen = None
        if not isinstance(report, Failure):
            seen = router_report(report, self._service.ladder)
            self._window = self._window.add(_counters(report))
        observation = Observation(now, seen, views)
        # The solver would stall the event loop, and with it the supervision of processes.
        began = time.monotonic()
        decision, self._state = await asyncio.to_thread(
            decide, observation, self._state, self._settings
        )
        millis = 1000 * (time.monotonic() - began)
        assigned, applied = await asyncio.gather(
            self._assign(members, views, decision), self._apply(router, members, views, decision)
        )
        tick = Tick(
            now_s=now,
            members=members,
            workers=_after(views, assigned),
            decision=decision,
            window=self._window,
            solve_millis=millis,
            latency_p95_s=None if isinstance(report, Failure) else _p95(report),
            router_error=error,
            apply_error=applied,
            assign_errors=tuple(
                f"Assign {n}: {r}" for n, r in assigned.items() if isinstance(r, str)
            ),
        )
        self.status = build_status(self._service, self.status, tick)
        await self._sink.write(self.status)
        self._tell(tick)
        return self.status

    async def _views(self, members: tuple[Member, ...]) -> tuple[WorkerView, ...]:
        replies = await asyncio.gather(
            *(self._clients.stats(m.address) for m in members if m.serving)
        )
        answers = dict(zip((m.name for m in members if m.serving), replies, strict=True))
        views = []
        for member in members:
            reply = answers.get(member.name)
            views.append(worker_view(member.name, None if isinstance(reply, Failure) else reply))
        return tuple(views)

    async def _assign(
        self, members: tuple[Member, ...], views: tuple[WorkerView, ...], decision: Decision
    ) -> dict[str, int | str]:
        """Assigns where the worker's level is not the plan's; gives the level or the error of each."""
        if decision.plan is None:
            return {}
        address = {m.name: m.address for m in members}
        wrong = [
            (w.name, decision.assignment[w.name])
            for w in views
            if w.ready
            and w.name in decision.assignment
            and (w.skipped_steps != decision.assignment[w.name] or w.assigned_revision == 0)
        ]
        revision = decision.plan.revision
        replies = await asyncio.gather(
            *(self._clients.assign(address[name], k, revision) for name, k in wrong)
        )
        done: dict[str, int | str] = {}
        for (name, level), reply in zip(wrong, replies, strict=True):
            if isinstance(reply, Failure):
                done[name] = str(reply)
                self._log.warning("assign_failed", worker=name, k=level, error=reply)
            else:
                done[name] = level
                self._log.info(
                    "assigned",
                    worker=name,
                    k=level,
                    revision=revision,
                    switch_s=reply.switch_seconds,
                )
        return done

    async def _apply(
        self,
        router: str,
        members: tuple[Member, ...],
        views: tuple[WorkerView, ...],
        decision: Decision,
    ) -> str:
        """Pushes the plan, each time: endpoints may have moved, and a repeated plan changes nothing."""
        if decision.plan is None:
            return ""
        levels = {w.name: w.skipped_steps or 0 for w in views}
        levels.update(decision.assignment)
        request = apply_plan_request(decision.plan, (m for m in members if m.serving), levels)
        reply = await self._clients.apply_plan(router, request)
        return str(reply) if isinstance(reply, Failure) else ""

    def _tell(self, tick: Tick) -> None:
        """One line for each plan and each change of reason; steady ticks and further prices are silent."""
        decision = tick.decision
        notable = decision.changed and decision.reason is not Reason.PRICE_UPDATED
        said = f"{decision.reason} {tick.router_error} {tick.apply_error}"
        if not notable and said == self._said:
            return
        self._said = said
        d = decision.diagnostics
        self._log.info(
            "plan" if decision.changed else "no_plan",
            reason=decision.reason.value,
            message=decision.message,
            revision=decision.plan.revision if decision.plan else 0,
            mix=decision.plan.mix_text if decision.plan else "",
            price=round(d.price, 5),
            rate=round(d.rate_mean, 3),
            benefit=round(d.benefit_share, 6),
            disruption=round(d.disruption_share, 6),
            solve_ms=round(tick.solve_millis, 1),
            router_error=tick.router_error,
            apply_error=tick.apply_error,
        )


def _after(views: tuple[WorkerView, ...], assigned: dict[str, int | str]) -> tuple[WorkerView, ...]:
    """The workers as they are after the assignments that went well."""
    return tuple(
        replace(w, skipped_steps=k) if isinstance(k := assigned.get(w.name), int) else w
        for w in views
    )


def _counters(report: router_pb2.ReportResponse) -> Counters:
    return Counters(
        at_s=report.at,
        in_time=report.served_in_slo,
        late=report.late,
        shed=report.shed,
        failed=report.failed,
        served=sum(report.served_by_level),
        quality_sum=report.predicted_quality_sum,
    )


def _p95(report: router_pb2.ReportResponse) -> float | None:
    return report.latency_p95_seconds if report.latency_p95_seconds > 0 else None
