"""The slow loop's I/O: observe by gRPC, decide purely, assign, push the plan, write the status.
Level-triggered.

A tick that fails half way needs no undoing: the next one sees what is there and repairs it. Every call has a
deadline; nothing is retried within a tick.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace

from gesso.api import DiffusionService, ServiceStatus
from gesso.rpc.v1 import router_pb2, worker_pb2
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
from gesso_operator.reports import Merged, latency_p95
from gesso_operator.starting import StartTimes
from gesso_operator.status import Refusal, Tick, build_status
from gesso_operator.switching import Failures, Measured, SwitchTimes, may_begin, reachable
from gesso_operator.window import Window
from gesso_operator.wire import apply_plan_request, last_switch, worker_view


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
        elastic: bool = False,
        status: ServiceStatus | None = None,
        planner: Executor | None = None,
    ) -> None:
        """`clock` gives unix seconds. `elastic`: workers can be had and let go. `status` is what an earlier
        loop left, to go on from. `planner` is where decisions are reckoned; None: any thread.
        """
        self._elastic = elastic
        self._planner = planner
        self._service = service
        self._settings = Settings.of(service, elastic)
        self._fleet = fleet
        self._sink = sink
        self._clients = clients
        self._log = log
        self._clock = clock
        self._state = PlannerState()
        self._merged = Merged()
        self._window = Window()
        self._times = SwitchTimes()
        known = None if status is None else status.workers.start_seconds
        self._starts = StartTimes() if known is None else StartTimes((known,))
        self._failures = Failures()
        self._measured = Measured()
        #: (worker, model) of changes that were asked for and are not known to have failed.
        self._asked: set[tuple[str, str]] = set()
        self._said = ""
        self._wake = asyncio.Event()
        self.status = ServiceStatus() if status is None else status
        self.decision: Decision | None = None
        #: Of a newer spec, that was not taken up: the status tells of it.
        self.refusal: Refusal | None = None

    def update(self, service: DiffusionService) -> None:
        """Takes up another spec at the next tick; what was learned stays."""
        self._service = service
        self._settings = self._asked_for()

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
        members, routers = self._fleet.members(), self._fleet.routers()
        await self._clients.keep_only([*routers.values(), *(m.address for m in members)])
        (replies, error), stats = await asyncio.gather(self._reports(routers), self._stats(members))
        now = self._clock()
        views = tuple(_view(m, stats.get(m.name)) for m in members)
        self._starts = self._starts.see(members)
        out = self._learn_models(members, stats, views, now)
        self._merged = self._merged.keep_only(tuple(routers)).add(replies)
        ladder = self._service.ladder
        seen = None if error else self._merged.report(replies, ladder)
        seen = reachable(seen, len(ladder), _others(self._service), out)
        if replies:
            self._window = self._window.add(self._merged.counters)
        observation = Observation(now, seen, views)
        # The solver would stall the event loop, and with it the supervision of processes.
        began = time.monotonic()
        decision, self._state = await asyncio.get_running_loop().run_in_executor(
            self._planner, decide, observation, self._state, self._settings
        )
        millis = 1000 * (time.monotonic() - began)
        request = self._request(members, views, decision)
        assigned, applied = await asyncio.gather(
            self._assign(members, views, decision, now), self._apply(routers, request, replies)
        )
        await self._fleet.decided(decision, request)
        tick = Tick(
            now_s=now,
            members=members,
            workers=_after(views, assigned),
            decision=decision,
            window=self._window,
            refusal=self.refusal,
            start_s=self._starts.seconds,
            solve_millis=millis,
            latency_p95_s=latency_p95(tuple(replies.values())),
            router_error=error,
            routers=len(routers),
            answering=len(replies),
            absent_routers=self._fleet.absent_routers(),
            apply_error=applied,
            assign_errors=(
                *(f"Assign {n}: {r}" for n, r in assigned.items() if isinstance(r, str)),
                *(f"{n}: {r.switch_error}" for n, r in stats.items() if r.switch_error),
            ),
        )
        self.decision = decision
        self.status = build_status(self._service, self.status, tick)
        await self._sink.write(self.status)
        self._tell(tick)
        return self.status

    async def _reports(
        self, routers: Mapping[str, str]
    ) -> tuple[dict[str, router_pb2.ReportResponse], str]:
        """What the routers tell, by name, and why it is not all."""
        if not routers:
            return {}, "no router is ready"
        answers = await asyncio.gather(*(self._clients.report(a) for a in routers.values()))
        replies, error = {}, ""
        for name, answer in zip(routers, answers, strict=True):
            if isinstance(answer, Failure):
                error = str(answer) if len(routers) == 1 else f"{name}: {answer}"
            else:
                replies[name] = answer
        return replies, error

    async def _stats(self, members: tuple[Member, ...]) -> dict[str, worker_pb2.StatsResponse]:
        """What the workers that serve tell, by name; who does not answer is missing."""
        serving = [m for m in members if m.serving]
        replies = await asyncio.gather(*(self._clients.stats(m.address) for m in serving))
        return {
            m.name: reply
            for m, reply in zip(serving, replies, strict=True)
            if not isinstance(reply, Failure)
        }

    def _learn_models(
        self,
        members: tuple[Member, ...],
        stats: Mapping[str, worker_pb2.StatsResponse],
        views: tuple[WorkerView, ...],
        now_s: float,
    ) -> frozenset[str]:
        """Takes up how fast models are, what changes of model have cost, and which could not be made; gives the
        models that no plan should count on.
        """
        settings = self._asked_for()
        if not settings.models:
            self._take(settings)
            return frozenset()
        names = [m.name for m in members]
        self._times = self._times.keep_only(names)
        self._failures = self._failures.keep_only(names)
        asked = self.decision.models if self.decision is not None else {}
        for name, reply in stats.items():
            self._times = self._times.add(name, reply.profile.device, last_switch(reply))
            self._failures = self._failures.holds(name, reply.model)
            self._asked.discard((name, reply.model))
            wanted = asked.get(name, reply.model)
            under_way = reply.HasField("loading_model") or reply.draining
            if (name, wanted) in self._asked and not under_way:
                self._asked.discard((name, wanted))
                self._failures = self._failures.failed(name, wanted, now_s)
                why = reply.switch_error or "it has started anew"
                self._log.warning("switch_failed", worker=name, model=wanted, error=why)
        out = self._failures.out_of_reach((r.model for r in stats.values()), now_s)
        models = tuple(m for m in settings.models if m.name not in out)
        in_memory = [(r.profile.device, (r.model, *r.kept_models)) for r in stats.values()]
        switch_s = self._times.for_settings((m.name for m in models), in_memory)
        self._measured = self._measured.add(views)
        settings = replace(
            settings,
            models=models,
            switch_s=switch_s,
            profiles=self._measured.assumed(models),
        )
        self._take(settings)
        return out

    def _asked_for(self) -> Settings:
        """What the spec asks for, with the measured time of a start in place of its guess."""
        settings = Settings.of(self._service, self._elastic)
        seconds = self._starts.seconds
        if seconds is None or not settings.elastic:
            return settings
        return replace(settings, start_s=seconds)

    def _take(self, settings: Settings) -> None:
        """Keeps the object where nothing is new: the planner keeps what it has reckoned by it."""
        if settings != self._settings:
            self._settings = settings

    async def _assign(
        self,
        members: tuple[Member, ...],
        views: tuple[WorkerView, ...],
        decision: Decision,
        now_s: float,
    ) -> dict[str, tuple[str, int] | str]:
        """Assigns where the worker's model or level is not the plan's; gives what it is to have, or the error.

        Who changes its model is left alone until it has, and who could not for a while; some wait until others
        have, so that there is always someone who serves.
        """
        if decision.plan is None:
            return {}
        address = {m.name: m.address for m in members}
        wrong: list[tuple[str, str, int]] = []
        ready = sum(w.ready for w in views)
        turns = may_begin(ready, sum(w.starting and w.name in decision.models for w in views))
        for worker in views:
            name = worker.name
            if not worker.ready or name not in decision.assignment:
                continue
            model, level = decision.models.get(name, worker.model), decision.assignment[name]
            if model != worker.model:
                if turns < 1 or not self._failures.may_try(name, model, now_s):
                    continue
                turns -= 1
            known = worker.assigned_revision > 0
            if not known or (model, level) != (worker.model, worker.skipped_steps):
                wrong.append((name, model, level))
        revision = decision.plan.revision
        replies = await asyncio.gather(
            *(
                self._clients.assign(address[name], level, revision, model)
                for name, model, level in wrong
            )
        )
        done: dict[str, tuple[str, int] | str] = {}
        held = {w.name: w.model for w in views}
        for (name, model, level), reply in zip(wrong, replies, strict=True):
            if isinstance(reply, Failure):
                done[name] = str(reply)
                self._log.warning("assign_failed", worker=name, k=level, model=model, error=reply)
            else:
                done[name] = (model, level)
                if model != held[name]:
                    self._asked.add((name, model))
                self._log.info(
                    "assigned",
                    worker=name,
                    k=level,
                    model=model,
                    revision=revision,
                    switch_s=reply.switch_seconds,
                )
        return done

    def _request(
        self, members: tuple[Member, ...], views: tuple[WorkerView, ...], decision: Decision
    ) -> router_pb2.ApplyPlanRequest | None:
        """The plan with the workers that serve; None without one."""
        if decision.plan is None:
            return None
        levels = {w.name: w.skipped_steps or 0 for w in views}
        levels.update(decision.assignment)
        serving = (m for m in members if m.serving)
        return apply_plan_request(decision.plan, self._service, serving, levels)

    async def _apply(
        self,
        routers: Mapping[str, str],
        request: router_pb2.ApplyPlanRequest | None,
        reports: Mapping[str, router_pb2.ReportResponse],
    ) -> str:
        """Pushes the plan, each time: endpoints may have moved, and a repeated plan changes nothing.

        Gives the error of one that took no plan: of those that report, if any does.
        """
        if request is None:
            return ""
        replies = await asyncio.gather(
            *(self._clients.apply_plan(address, request) for address in routers.values())
        )
        failed = {n: r for n, r in zip(routers, replies, strict=True) if isinstance(r, Failure)}
        return next((str(r) for n, r in failed.items() if n in reports or not reports), "")

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
            detail=decision.message,
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


def _others(service: DiffusionService) -> list[str]:
    """The names of the service's other models."""
    return [v.name for v in service.spec.variants if v.model is not None]


def _view(member: Member, reply: worker_pb2.StatsResponse | None) -> WorkerView:
    view = worker_view(member.name, reply)
    return replace(view, starting=True) if member.starting else view


def _after(
    views: tuple[WorkerView, ...], assigned: Mapping[str, tuple[str, int] | str]
) -> tuple[WorkerView, ...]:
    """The workers as they are after the assignments that went well: who changes its model is on its way."""
    after = []
    for worker in views:
        done = assigned.get(worker.name)
        if isinstance(done, tuple):
            model, level = done
            changes = model != worker.model
            worker = replace(
                worker,
                model=model,
                skipped_steps=level,
                ready=worker.ready and not changes,
                starting=worker.starting or changes,
            )
        after.append(worker)
    return tuple(after)
