"""Between protobuf messages and the planner's types: conversions only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf import json_format

from gesso.api import DiffusionService
from gesso.plan import Plan
from gesso.profile import Profile
from gesso.rpc.v1 import router_pb2, worker_pb2
from gesso_operator.fleet import Member
from gesso_operator.planning import WorkerView
from gesso_operator.switching import Switch


def worker_view(name: str, reply: worker_pb2.StatsResponse | None) -> WorkerView:
    """The planner's view of a worker; not ready when it did not answer, or drains.

    One that changes its model counts as on its way to that: not ready, with the profile of the old one only to
    tell its device class.
    """
    if reply is None:
        return WorkerView(name, ready=False)
    loading = reply.HasField("loading_model")
    return WorkerView(
        name=name,
        ready=reply.ready and not reply.draining and not loading,
        skipped_steps=reply.assigned_skipped_steps,
        assigned_revision=reply.assigned_revision,
        profile=device_profile(reply.profile) if reply.HasField("profile") else None,
        model=reply.loading_model if loading else reply.model,
        starting=loading and not reply.draining,
    )


def last_switch(reply: worker_pb2.StatsResponse) -> Switch | None:
    """The worker's last change of model; None where there was none."""
    if not reply.HasField("last_switch"):
        return None
    told = reply.last_switch
    return Switch(
        before=getattr(told, "from"),
        after=told.to,
        drain_s=told.drain_seconds,
        load_s=told.load_seconds,
        warmup_s=told.warmup_seconds,
        kept=told.kept,
    )


def device_profile(message: worker_pb2.DeviceProfile) -> Profile | None:
    """The profile that a worker measured; None where it makes no sense, so that it is not reckoned with."""
    try:
        return Profile(
            device=message.device,
            steps=message.steps,
            encode_seconds=message.encode_seconds,
            decode_seconds=message.decode_seconds,
            step_seconds=tuple(message.step_seconds),
        )
    except ValueError:
        return None


def plan_message(plan: Plan) -> router_pb2.Plan:
    """A plan for the wire, nothing left out."""
    return router_pb2.Plan(
        revision=plan.revision,
        made_at=plan.made_at_s,
        levels=[
            router_pb2.LevelPlan(
                skipped_steps=level.skipped_steps,
                workers=level.workers,
                share=level.share,
                model=level.model,
                device=level.device,
            )
            for level in plan.levels
        ],
        price=plan.price,
        reason=plan.reason,
        message=plan.message,
        price_curve=[
            router_pb2.PricePoint(backlog_seconds=backlog, price=price)
            for backlog, price in plan.price_curve
        ],
        device_worth=[
            router_pb2.DeviceWorth(device=device, worth=worth)
            for device, worth in plan.device_worth
        ],
        route=[router_pb2.RouteRow(probability=row) for row in plan.route],
    )


def apply_plan_request(
    plan: Plan, service: DiffusionService, members: Iterable[Member], levels: Mapping[str, int]
) -> router_pb2.ApplyPlanRequest:
    """A plan with the endpoints of the workers that serve, and what the router takes of the spec live;
    `levels` are the workers' assigned levels, by name.
    """
    spec = service.spec
    return router_pb2.ApplyPlanRequest(
        plan=plan_message(plan),
        settings=router_pb2.ServiceSettings(
            latency_seconds=spec.slo.latency_seconds,
            min_relative_quality=spec.slo.min_relative_quality,
            max_queue=spec.router.max_queue,
        ),
        workers=[
            router_pb2.WorkerEndpoint(
                name=m.name, address=m.address, assigned_skipped_steps=levels.get(m.name, 0)
            )
            for m in members
        ],
    )


def plan_json(request: router_pb2.ApplyPlanRequest) -> str:
    """A plan as the router's store writes it: what its `--plan-file` may hold."""
    return json_format.MessageToJson(request)
