"""Builds the typed status from what one tick saw and did; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gesso.api import (
    PLAN_HISTORY,
    READY_PARTS,
    Condition,
    ConditionStatus,
    ConditionType,
    DiffusionService,
    PlanStatus,
    ServiceStatus,
    SloStatus,
    WorkersStatus,
    WorkerStatus,
    transition,
)
from gesso_operator.fastest import slo_below_fastest_image
from gesso_operator.fleet import Member
from gesso_operator.planning import Decision, Reason, WorkerView
from gesso_operator.window import Window

_FEW = 64


@dataclass(frozen=True)
class Refusal:
    """A spec that was not taken up: its generation, and why."""

    generation: int
    reason: str
    message: str


@dataclass(frozen=True)
class Tick:
    """What one tick of the loop saw and did.

    `start_s` is how long workers take to start, as measured. `answering` of the `routers` that were asked did
    answer; `absent_routers` were not asked, for want of being up: a line each. `router_error` and `apply_error`
    are empty when Report and ApplyPlan went well; `assign_errors` are one line each.
    """

    now_s: float
    members: tuple[Member, ...]
    workers: tuple[WorkerView, ...]
    decision: Decision
    window: Window
    solve_millis: float
    latency_p95_s: float | None = None
    router_error: str = ""
    apply_error: str = ""
    assign_errors: tuple[str, ...] = ()
    refusal: Refusal | None = None
    start_s: float | None = None
    routers: int = 0
    answering: int = 0
    absent_routers: tuple[str, ...] = ()


def build_status(service: DiffusionService, before: ServiceStatus, tick: Tick) -> ServiceStatus:
    """The status after a tick; `before` gives the transition times and the history of plans."""
    now = datetime.fromtimestamp(tick.now_s, UTC)
    refusal = tick.refusal
    generation = refusal.generation if refusal else service.metadata.generation
    conditions: dict[ConditionType, Condition] = {}

    def put(kind: ConditionType, verdict: tuple[ConditionStatus, str, str]) -> None:
        status, reason, message = verdict
        conditions[kind] = transition(
            before.conditions, kind, status, reason, message, now, generation
        )

    put("Accepted", _accepted(service, tick))
    put("WorkersReady", _workers(service, tick))
    put("ProfileReady", _profile(tick))
    put("RouterReady", _router(tick))
    put("MetricsAvailable", _metrics(tick))
    put("PlanReady", _plan(tick))
    first = next((conditions[k] for k in READY_PARTS if conditions[k].status != "True"), None)
    ready: tuple[ConditionStatus, str, str] = ("True", "Serving", "serving")
    put("Ready", ready if first is None else ("False", first.reason, first.message))
    put("SLOMet", _slo(service, tick))
    put("QualityMet", _quality(service, tick))

    serving = {m.name for m in tick.members if m.serving}
    views = {w.name: w for w in tick.workers}
    plan, history = _history(before, tick)
    wanted = tick.decision.wanted
    ready_workers = sum(1 for w in tick.workers if w.ready)
    return ServiceStatus(
        observed_generation=generation,
        observed_at=now,
        conditions=tuple(conditions.values()),
        mix=_mix(tick.workers),
        desired_mix=wanted.mix_text if wanted else "",
        slo=_slo_status(tick),
        quality=_rounded(tick.window.quality),
        plan=plan,
        plan_history=history,
        workers=WorkersStatus(
            desired=len(tick.members),
            ready=ready_workers,
            summary=f"{ready_workers}/{len(tick.members)}",
            start_seconds=tick.start_s,
            members=tuple(
                WorkerStatus(
                    name=m.name,
                    address=m.address,
                    ready=m.name in serving and views[m.name].ready,
                    skipped_steps=views[m.name].skipped_steps,
                    restarts=m.restarts,
                )
                for m in tick.members[:_FEW]
                if m.name in views
            ),
        ),
    )


def _mix(workers: Sequence[WorkerView]) -> str:
    """Ready workers by K, then those that hold another model by its name."""
    ready = [w for w in workers if w.ready]
    levels = Counter(w.skipped_steps for w in ready if not w.model and w.skipped_steps is not None)
    models = Counter(w.model for w in ready if w.model)
    return ",".join(
        f"{variant}:{n}" for variant, n in (*sorted(levels.items()), *sorted(models.items()))
    )


def _accepted(service: DiffusionService, tick: Tick) -> tuple[ConditionStatus, str, str]:
    """The spec itself is checked before; whether its deadline can be met at all, only workers tell."""
    if tick.refusal is not None:
        return "False", tick.refusal.reason, tick.refusal.message
    told = slo_below_fastest_image(service, tick.workers)
    if told:
        return "False", "SLOBelowFastestImage", told
    return "True", "SpecAccepted", "the spec is valid"


def _slo_status(tick: Tick) -> SloStatus:
    attainment = _rounded(tick.window.attainment)
    return SloStatus(
        attainment=attainment,
        summary="" if attainment is None else f"{attainment:.1%}",
        latency_p95_seconds=_rounded(tick.latency_p95_s),
    )


def _rounded(value: float | None) -> float | None:
    """To a thousandth: what differs by less is not worth a write."""
    return None if value is None else round(value, 3)


def _workers(service: DiffusionService, tick: Tick) -> tuple[ConditionStatus, str, str]:
    ready = sum(1 for w in tick.workers if w.ready)
    serving = {m.name for m in tick.members if m.serving}
    changing = sum(1 for w in tick.workers if w.starting and not w.ready and w.name in serving)
    text = f"{ready} of {len(tick.members)} workers are ready"
    if changing:
        text += f", {changing} {'changes its model' if changing == 1 else 'change their models'}"
    if not service.spec.workers.most:
        return "False", "Stopped", "spec.workers.replicas is 0: the fleet is stopped"
    # Whoever changes its model is as the plan wants it, as long as others serve.
    if ready and ready + changing >= service.spec.workers.least:
        if tick.assign_errors:
            return "True", "AssignFailed", f"{text}; {tick.assign_errors[0]}"
        return "True", "WorkersServe", text
    stuck = next((m for m in tick.members if m.message and not m.serving), None)
    reason = "SomeWorkersDown" if ready else "NoReadyWorkers"
    if stuck is None:
        starting = sum(1 for m in tick.members if m.starting and not m.serving)
        if starting:
            reason, text = "WorkersStarting", f"{text}, {starting} on their way"
        return "False", reason, text
    if ready:
        text += ", and those take the load at the plan's mix"
    return "False", stuck.reason or reason, f"{text}; {stuck.message}"


def _profile(tick: Tick) -> tuple[ConditionStatus, str, str]:
    if any(w.ready and w.profile for w in tick.workers):
        return "True", "Measured", "workers have measured their step times"
    if not any(w.ready for w in tick.workers):
        return "Unknown", "NoReadyWorkers", "no worker is ready to tell its step times"
    return "False", "NoProfile", "no worker has measured its step times"


def _router(tick: Tick) -> tuple[ConditionStatus, str, str]:
    if tick.router_error and not tick.answering:
        return "False", "RouterUnreachable", f"Report: {tick.router_error}"
    silent = (f"Report: {tick.router_error}",) if tick.router_error else ()
    down = (*silent, *tick.absent_routers)
    if down:
        many = tick.routers + len(tick.absent_routers)
        return "True", "SomeRoutersDown", f"{tick.answering} of {many} routers serve; {down[0]}"
    if tick.routers > 1:
        return "True", "RouterServes", f"{tick.routers} routers answer"
    return "True", "RouterServes", "the router answers"


def _metrics(tick: Tick) -> tuple[ConditionStatus, str, str]:
    if tick.router_error and tick.answering:
        text = f"{tick.answering} of {tick.routers} routers report; the plan is frozen until all do"
        return "True", "SomeReport", text
    if tick.router_error:
        return "False", "NoReport", "the router does not report; the plan is frozen"
    return "True", "Reporting", "the router reports"


def _plan(tick: Tick) -> tuple[ConditionStatus, str, str]:
    if tick.decision.plan is None:
        return "False", tick.decision.reason.value, tick.decision.message
    if tick.apply_error:
        return "False", "ApplyFailed", f"ApplyPlan: {tick.apply_error}"
    return "True", tick.decision.reason.value, tick.decision.message


def _slo(service: DiffusionService, tick: Tick) -> tuple[ConditionStatus, str, str]:
    attainment, target = tick.window.attainment, service.spec.slo.attainment
    if attainment is None:
        return "Unknown", "NoRequests", "no request ended in the last minute"
    seconds = service.spec.slo.latency_seconds
    text = f"{attainment:.1%} of the last minute's requests were served within {seconds:g} s"
    if attainment >= target:
        return "True", "InTime", text
    return "False", "TooManyLate", f"{text}; {target:.1%} are promised"


def _quality(service: DiffusionService, tick: Tick) -> tuple[ConditionStatus, str, str]:
    quality, floor = tick.window.quality, service.spec.slo.min_relative_quality
    if quality is None:
        return "Unknown", "NoImages", "no image was served in the last minute"
    text = f"mean predicted relative quality {quality:.3f}"
    return (
        ("True", "AboveFloor", text)
        if quality >= floor
        else (
            "False",
            "BelowFloor",
            f"{text} is below {floor:g}",
        )
    )


def _history(before: ServiceStatus, tick: Tick) -> tuple[PlanStatus | None, tuple[PlanStatus, ...]]:
    """The wanted plan and the last ones, newest first; a plan is noted once."""
    plan, decision = tick.decision.wanted or tick.decision.plan, tick.decision
    history = before.plan_history
    if plan is None:
        return None, history
    if history and history[0].revision == plan.revision:
        return history[0], history
    noted = PlanStatus(
        revision=plan.revision,
        made_at=datetime.fromtimestamp(plan.made_at_s, UTC),
        mix=plan.mix_text,
        reason=plan.reason,
        message=plan.message,
        price=plan.price,
        objective=decision.diagnostics.objective,
        switches=decision.switches,
        solve_millis=tick.solve_millis,
    )
    # New prices for the same mix come often; the last stands for all of them.
    if history and plan.reason == history[0].reason == Reason.PRICE_UPDATED:
        history = history[1:]
    return noted, (noted, *history)[:PLAN_HISTORY]
