"""The seam between the control loop and what runs the fleet: processes on one machine, or Kubernetes.

The loop asks a `Fleet` who is there and hands what it sees to a `StatusSink`; it neither starts nor stops
anything. `gesso_operator.local` implements both with processes and files; a Kubernetes actuator stands
beside it with pods and the status subresource.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gesso.api import ServiceStatus


@dataclass(frozen=True)
class Member:
    """A worker that should run. `serving` says that it was healthy when last probed."""

    name: str
    address: str
    serving: bool
    restarts: int = 0
    message: str = ""


class Fleet(Protocol):
    """Who is there."""

    @property
    def router_address(self) -> str:
        """host:port of the router's gRPC server."""

    def members(self) -> tuple[Member, ...]:
        """Every worker that should run, in order of name; those that do not serve included."""


class StatusSink(Protocol):
    """Where the status goes."""

    async def write(self, status: ServiceStatus) -> None:
        """Replaces the status. Must not raise for passing trouble; the next tick writes again."""
