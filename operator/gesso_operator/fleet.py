"""The seam between the control loop and what runs the fleet: processes on one machine, or Kubernetes.

The loop asks a `Fleet` who is there, tells it what was decided, and hands what it sees to a `StatusSink`; it
neither starts nor stops anything. `gesso_operator.local` implements both with processes and files,
`gesso_operator.cluster` with pods and the status subresource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gesso.api import ServiceStatus
from gesso.rpc.v1 import router_pb2
from gesso_operator.planning import Decision


@dataclass(frozen=True)
class Member:
    """A worker that should run. `serving` says that it was healthy when last probed, `starting` that it is on
    its way up; `reason` and `message` tell, to machines and people, what keeps it from it. `instance` names
    this life of it, and `start_seconds` how long that took from being asked for until it served, where known.
    """

    name: str
    address: str
    serving: bool
    restarts: int = 0
    message: str = ""
    reason: str = ""
    starting: bool = False
    instance: str = ""
    start_seconds: float | None = None


class Fleet(Protocol):
    """Who is there."""

    def routers(self) -> Mapping[str, str]:
        """host:port of the gRPC server of each router that should answer now, by its name."""

    def absent_routers(self) -> tuple[str, ...]:
        """What keeps each router that should run from serving, a line each."""

    def members(self) -> tuple[Member, ...]:
        """Every worker that should run, in order of name; those that do not serve included."""

    async def decided(self, decision: Decision, plan: router_pb2.ApplyPlanRequest | None) -> None:
        """Told after each round, once the plan is pushed: for what is to be kept, marked or resized. Must not
        raise for passing trouble.
        """


class StatusSink(Protocol):
    """Where the status goes."""

    async def write(self, status: ServiceStatus) -> None:
        """Replaces the status. Must not raise for passing trouble; the next tick writes again."""
