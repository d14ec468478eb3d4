"""Runs one policy over one scenario: arrivals, plans and completions in the order of a virtual clock."""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from gesso.plan import Plan
from gesso_operator.planning import Decision, Observation, PlannerState, RouterReport
from gesso_router.routing.door import Refusals
from gesso_router.routing.keep import keep_latents
from gesso_router.routing.margin import Margins
from gesso_router.routing.pace import Pace
from gesso_router.routing.policies import Route
from gesso_router.routing.quality import Match, Option
from gesso_router.routing.view import Ask, Choice, FleetView
from gesso_simulator.engine.clipper_queue import ClipperQueue
from gesso_simulator.engine.demand import Demand
from gesso_simulator.engine.fleet import SimulatedFleet
from gesso_simulator.engine.load import Load
from gesso_simulator.engine.record import Record
from gesso_simulator.engine.systems import (
    plan_interval_s,
    planner_settings,
    planner_state,
    system,
)
from gesso_simulator.engine.worker import Job, SimulatedWorker
from gesso_simulator.reports.result import PolicyResult
from gesso_simulator.scenarios.spec import FleetEvent, ScenarioRun

_SEGMENT, _READY, _PLAN, _PUSH, _FLEET = range(5)
_PROGRESS_EVERY = 2000
ATTEMPTS = 2


def simulate(
    run: ScenarioRun,
    policy: str,
    *,
    seed: int,
    progress: Callable[[float], None] | None = None,
    keep_models: bool = False,
    route: Route | None = None,
) -> PolicyResult:
    """One policy's run. `seed` draws service times and random redirections, the same for every policy.

    With `keep_models` every worker keeps the model that it begins with: a static mix, the policy's routing.
    `route` takes the place of the policy's own routing, to try other constants.
    `progress` is told the share of the requests that have arrived. Raises ValueError for a policy that is not
    known, or needs an elastic fleet and has none.
    """
    simulation = _Simulation(run, policy, seed, keep_models)
    if route is not None:
        simulation.system = replace(simulation.system, route=route)
    with _seldom_collected():
        return simulation.go(progress)


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """A run makes millions of objects and hardly a cycle: looking for these takes a tenth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Simulation:
    def __init__(self, run: ScenarioRun, policy: str, seed: int, keep_models: bool) -> None:
        self.run = run
        self.keep_models = keep_models
        self.settings = planner_settings(run, policy, keep_models)
        self.state: PlannerState = planner_state(run, self.settings)
        self.record = Record(run)
        self.cache = run.cache() if run.cache is not None else None
        self.demand = Demand(run, self.cache)
        self.events: list[tuple[float, int, int, Any, int]] = []
        self._order = 0
        gone = self.cache.lost if self.cache is not None else lambda *_: None
        self.fleet = SimulatedFleet(run, self.record, self._ready_at, gone)
        self.now = 0.0
        self.system = system(policy, run, Load(lambda: self.fleet.routable, lambda: self.now))
        self.interval_s = plan_interval_s(run, policy)
        self.clipper: ClipperQueue | None = None
        if self.system.route is None:
            self.clipper = ClipperQueue(
                run.slo_s, run.max_batch, policy == "ClipperHT", run.min_quality
            )
        rng = np.random.default_rng((seed, 0x6E550))
        n = len(run.workload)
        self.factors: list[float] = np.maximum(0.2, rng.normal(1.0, run.jitter, n)).tolist()
        self.draws: list[float] = rng.random(n).tolist()
        self.arrivals: list[float] = run.workload.arrival_s.tolist()
        self.plan: Plan | None = None
        self.margins = Margins()
        self.refusals = Refusals()
        self.pace = Pace()
        self.dispatched = 0
        self.came = 0
        self.batched = run.max_batch > 1
        self.variant = {(v.model, v.skipped_steps): i for i, v in enumerate(run.variants)}

    def go(self, progress: Callable[[float], None] | None) -> PolicyResult:
        events, arrivals = self.events, self.arrivals
        for at_s, together in groupby(self.run.events, key=lambda event: event.at_s):
            self._schedule(at_s, _FLEET, tuple(together))
        self._schedule(0.0, _PLAN, None)
        end, n = self.run.workload.duration_s, len(arrivals)
        next_request = 0
        while True:
            arrival = arrivals[next_request] if next_request < n else float("inf")
            if events and events[0][0] <= arrival:
                now, _, kind, payload, version = heapq.heappop(events)
                if kind == _SEGMENT:
                    if payload.version == version:
                        self._segment(payload, now)
                elif kind == _PLAN:
                    if now < end:
                        self._observe(now)
                        self._schedule(now + self.interval_s, _PLAN, None)
                elif kind == _PUSH:
                    self._apply(payload, now)
                elif kind == _READY:
                    self.fleet.arrived(payload, now)
                    self._pump(now)
                else:
                    self._fleet_events(payload, now)
            elif next_request < n:
                self.came = next_request + 1
                self.record.open += 1
                self._arrive(next_request, arrival)
                next_request += 1
                if progress is not None and next_request % _PROGRESS_EVERY == 0:
                    progress(next_request / n)
            else:
                break
        self.fleet.end(end)
        if progress is not None:
            progress(1.0)
        extra = self.cache.figures() if self.cache is not None else {}
        return self.record.result(self.system.name, self.demand.predicted_k, extra)

    def _schedule(self, at_s: float, kind: int, payload: Any, version: int = 0) -> None:
        self._order += 1
        heapq.heappush(self.events, (at_s, self._order, kind, payload, version))

    def _ready_at(self, at_s: float, worker: int) -> None:
        self._schedule(at_s, _READY, worker)

    def _arrive(self, request: int, now: float) -> None:
        if self.record.open > self.run.max_queue + 1:
            self.record.shed(request)
        elif self.clipper is not None:
            self.clipper.add(request, self.demand.options(request, now), now)
            self._pump(now)
        else:
            self._place(request, now, now + self.run.slo_s, 1)

    def _place(self, request: int, now: float, deadline: float, attempt: int) -> None:
        """Routes a request now; refused means shed at its first attempt, lost at a later one."""
        run = self.run
        view = FleetView(
            tuple([w.view(now) for w in self.fleet.routable]),
            run.slo_s,
            self.plan,
            self.dispatched,
            self.pace.per_second(now) if self.batched else 0.0,
            self.pace.mean_steps if self.batched else 1.0,
            0.0,
            self.margins.factor(most_refused=self.refusals.most),
            self.demand.mean_quality,
        )
        options = self.demand.options(request, now)
        ask = Ask(options, run.steps, deadline - now, run.min_quality, accept_late=attempt > 1)
        route = self.system.route
        assert route is not None
        choice = route(ask, view, self.draws[request])
        if attempt == 1:
            self.refusals = self.refusals.seen(not isinstance(choice, Choice))
        if not isinstance(choice, Choice):
            (self.record.shed if attempt == 1 else self.record.lost)(request)
            return
        option = choice.option
        worker = self.fleet.by_name[choice.worker]
        steps = worker.profile.steps if option.model else run.steps
        job = Job(
            request,
            self.variant[option.model, option.skipped_steps],
            option.skipped_steps,
            steps - option.skipped_steps,
            self.factors[request],
            now,
            choice.finish_seconds,
        )
        job.attempts = attempt
        job.match = option.match
        if self.cache is not None:
            job.keep = self._keeps(option, [o.match for o in options if o.match is not None])
        if self.batched:
            self.pace = self.pace.arrived(now, job.steps)
        self._send(worker, job, now)

    def _keeps(self, option: Option, matches: Sequence[Match]) -> bool:
        """Whether an image's latents stay in the cache: the live router's rule."""
        run = self.run
        return (
            self.cache is not None
            and not option.model
            and keep_latents(option.skipped_steps, option.quality, run.steps, matches, run.ladder)
        )

    def _send(self, worker: SimulatedWorker, job: Job, now: float) -> None:
        self.dispatched += 1
        at = worker.push(job, now)
        if at is not None:
            self._schedule(at, _SEGMENT, worker, worker.version)

    def _segment(self, worker: SimulatedWorker, now: float) -> None:
        """A worker's batch reaches a boundary."""
        done, leaves, at = worker.advance(now)
        if at is not None:
            self._schedule(at, _SEGMENT, worker, worker.version)
        for job in done:
            deadline = self.arrivals[job.request] + self.run.slo_s
            match = job.match
            self.record.done(
                job.request,
                job.variant,
                worker.index,
                job.start_s,
                leaves,
                leaves <= deadline,
                match.similarity if match is not None else float("nan"),
            )
            if job.estimate_s > 0:
                self.margins = self.margins.observe(
                    job.estimate_s, leaves - job.sent_s, deadline - job.sent_s
                )
            if self.cache is not None:
                prompt = int(self.run.workload.prompt[job.request])
                k = job.skipped_steps
                self.cache.served(prompt, k, worker.name, leaves, match, job.keep)
            if self.clipper is not None:
                self.clipper.finished(worker.name, leaves - job.sent_s)
        if worker.draining and not worker.in_flight:
            self.fleet.emptied(worker, leaves)
        if done:
            self._pump(now)

    def _pump(self, now: float) -> None:
        """Clipper's queue moves as far as windows are open."""
        if self.clipper is None:
            return
        for request, option, worker in self.clipper.turns(self.fleet.routable, now):
            if worker is None:
                self.record.shed(request)
                continue
            variant = self.variant[option.model, option.skipped_steps]
            steps = self.run.steps - option.skipped_steps
            job = Job(request, variant, option.skipped_steps, steps, self.factors[request], now)
            job.match = option.match
            if self.system.name == "ClipperHT":  # Clipper-HA does not embed prompts
                job.keep = self._keeps(option, (option.match,) if option.match else ())
            self._send(worker, job, now)

    def _observe(self, now: float) -> None:
        """The slow loop: observe, decide, and send out what was decided."""
        self.now = now
        self.demand.arrived(self.came)
        views = [w.view(now) for w in self.fleet.routable]
        backlog = sum(v.backlog_seconds for v in views) / len(views) if views else 0.0
        report = RouterReport(
            at_s=now,
            uptime_s=now + self.settings.interval_s,
            offered=self.came,
            classes=self.demand.classes,
            backlog_s=backlog,
            plan_revision=self.plan.revision if self.plan else 0,
            optimal_levels=self.demand.optimal_levels,
        )
        observation = Observation(now, report, self.fleet.views())
        decision, self.state = self.system.decide(observation, self.state, self.settings)
        self._schedule(now + (self.run.push_delay_s if now > 0 else 0.0), _PUSH, decision)

    def _apply(self, decision: Decision, now: float) -> None:
        plan = decision.plan
        if plan is not None:
            if self.plan is None or plan.revision != self.plan.revision:
                self.record.planned(now, plan.mix_text)
            self.plan = plan
            self.fleet.assign(decision.assignment, plan.revision)
        if decision.models and not self.keep_models:
            self.fleet.load(decision.models, now)
        if decision.fleet_size is not None:
            self.fleet.resize(decision.fleet_size, now)
        self._pump(now)

    def _fleet_events(self, events: tuple[FleetEvent, ...], now: float) -> None:
        """Workers are lost or back at one instant; what the lost ones were serving is tried again elsewhere."""
        jobs = []
        for event in events:
            if event.kind == "back":
                self.fleet.back(event.worker, now)
            else:
                jobs += self.fleet.lose(event.worker, now)
        for job in jobs:
            if job.attempts >= ATTEMPTS:
                self.record.lost(job.request)
            elif self.clipper is not None:
                options = self.demand.options(job.request, now)
                self.clipper.add(job.request, options, self.arrivals[job.request])
            else:
                deadline = self.arrivals[job.request] + self.run.slo_s
                self._place(job.request, now, deadline, job.attempts + 1)
        self._pump(now)
