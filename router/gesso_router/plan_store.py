"""The plan in force, kept so that a restarted router serves while the operator is away."""

from __future__ import annotations

import math
import os
from pathlib import Path

from google.protobuf import json_format

from gesso.plan import LevelPlan, Plan
from gesso.rpc.v1 import router_pb2
from gesso_router.fleet import Endpoint

FILE_NAME = "plan.json"
_ROW_TOLERANCE = 1e-6


class PlanError(ValueError):
    """A plan that cannot be; names field, value and what is allowed."""


def plan_of(request: router_pb2.ApplyPlanRequest) -> tuple[Plan, tuple[Endpoint, ...]]:
    """The plan and its workers from the wire. Raises PlanError."""
    plan = _plan(request.plan)
    names: set[str] = set()
    for i, worker in enumerate(request.workers):
        # Names travel in HTTP headers.
        if not (worker.name.isascii() and worker.name.isprintable()) or not worker.name:
            raise PlanError(f"workers[{i}].name: {worker.name!r} is not allowed: printable ASCII")
        if worker.name in names:
            raise PlanError(f"workers[{i}].name: {worker.name!r} is not allowed: it is there twice")
        host, _, port = worker.address.rpartition(":")
        if not host or not port.isdigit():
            raise PlanError(f"workers[{i}].address: {worker.address!r} is not allowed: host:port")
        names.add(worker.name)
    endpoints = tuple(
        Endpoint(w.name, w.address, w.assigned_skipped_steps) for w in request.workers
    )
    return plan, endpoints


def _plan(wire: router_pb2.Plan) -> Plan:
    if wire.revision < 1:
        raise PlanError(f"plan.revision: {wire.revision} is not allowed: at least 1")
    _amount("plan.price", wire.price)
    for i, level in enumerate(wire.levels):
        _amount(f"plan.levels[{i}].share", level.share)
    curve = tuple((p.backlog_seconds, p.price) for p in wire.price_curve)
    for i, (backlog, price) in enumerate(curve):
        _amount(f"plan.price_curve[{i}].backlog_seconds", backlog)
        _amount(f"plan.price_curve[{i}].price", price)
        if i and backlog < curve[i - 1][0]:
            raise PlanError(
                f"plan.price_curve[{i}].backlog_seconds: {backlog} is not allowed: ascending"
            )
    for i, device in enumerate(wire.device_worth):
        _amount(f"plan.device_worth[{i}].worth", device.worth)
    route = tuple(tuple(row.probability) for row in wire.route)
    for i, row in enumerate(route):
        for p in row:
            _amount(f"plan.route[{i}]", p)
        if len(row) != len(route) or abs(sum(row) - 1) > _ROW_TOLERANCE:
            raise PlanError(
                f"plan.route[{i}]: {row} is not allowed: {len(route)} probabilities with sum 1"
            )
    return Plan(
        revision=wire.revision,
        made_at_s=wire.made_at,
        levels=tuple(
            LevelPlan(p.skipped_steps, p.workers, p.share, p.model, p.device) for p in wire.levels
        ),
        price=wire.price,
        reason=wire.reason,
        message=wire.message,
        price_curve=curve,
        device_worth=tuple((d.device, d.worth) for d in wire.device_worth),
        route=route,
    )


def _amount(field: str, value: float) -> None:
    if not math.isfinite(value) or value < 0:
        raise PlanError(f"{field}: {value} is not allowed: 0 or more, finite")


def settings_of(request: router_pb2.ApplyPlanRequest) -> router_pb2.ServiceSettings | None:
    """The settings that come with a plan; None where none do. Raises PlanError."""
    if not request.HasField("settings"):
        return None
    told = request.settings
    if not (math.isfinite(told.latency_seconds) and told.latency_seconds > 0):
        raise PlanError(
            f"settings.latency_seconds: {told.latency_seconds} is not allowed: above 0, finite"
        )
    if not 0 <= told.min_relative_quality <= 1:
        raise PlanError(
            f"settings.min_relative_quality: {told.min_relative_quality} is not allowed: 0 to 1"
        )
    if told.max_queue < 1:
        raise PlanError(f"settings.max_queue: {told.max_queue} is not allowed: at least 1")
    return told


def read_plan(path: Path) -> router_pb2.ApplyPlanRequest | None:
    """The plan in a file; None without the file. Raises PlanError on a file that is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        request = json_format.Parse(text, router_pb2.ApplyPlanRequest(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: not a plan: {error}") from None
    plan_of(request)
    settings_of(request)
    return request


class PlanStore:
    """`plan.json`: the last ApplyPlanRequest, as protobuf's JSON, replaced atomically."""

    def __init__(self, state_dir: Path) -> None:
        """Makes the directory. Raises OSError if it cannot be written to."""
        state_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(state_dir, os.W_OK):
            raise PermissionError(13, "not writable", str(state_dir))
        self.path = state_dir / FILE_NAME

    def load(self) -> router_pb2.ApplyPlanRequest | None:
        """The plan last saved; None without one. Raises PlanError on a file that is none."""
        return read_plan(self.path)

    def save(self, request: router_pb2.ApplyPlanRequest) -> None:
        """Writes the plan; after a crash at any point the old or the new one is there, whole."""
        partial = self.path.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("w", encoding="utf-8") as file:
            file.write(json_format.MessageToJson(request))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
