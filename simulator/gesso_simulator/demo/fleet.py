"""The demo's fleet: brought up and taken down with the `gesso` command, watched through its status file."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import yaml

from gesso.api.local_state import StateDir
from gesso.api.status import ServiceStatus
from gesso_simulator.demo.report import MixSample


class FleetError(RuntimeError):
    """The fleet could not be brought up; the message is what its own command said."""


def write_service(source: Path, target: Path, policy: str, slo_seconds: float) -> None:
    """Copies a DiffusionService file with another `spec.scheduling.policy` and `spec.slo.latencySeconds`."""
    data = yaml.safe_load(source.read_text())
    data["spec"].setdefault("scheduling", {})["policy"] = policy
    data["spec"].setdefault("slo", {})["latencySeconds"] = slo_seconds
    target.write_text(yaml.safe_dump(data, sort_keys=False))


class Fleet(AbstractContextManager["Fleet"]):
    """A running service: routers and workers as processes of this machine. Down again when the block ends."""

    def __init__(self, service: Path, state_dir: Path, up_timeout_s: float = 180.0) -> None:
        self.service = service
        self.state_dir = state_dir
        self._up_timeout_s = up_timeout_s
        # Each router has the ports that follow the one's before.
        routers = yaml.safe_load(service.read_text())["spec"].get("router", {}).get("replicas", 1)
        self.grpc_port, self.http_port = _free_ports(2, routers)

    @property
    def target(self) -> str:
        """The router's gRPC `host:port`."""
        return f"127.0.0.1:{self.grpc_port}"

    def __enter__(self) -> Fleet:
        try:
            self._gesso(
                "up",
                str(self.service),
                f"--grpc-port={self.grpc_port}",
                f"--http-port={self.http_port}",
                f"--timeout={self._up_timeout_s:.0f}",
                deadline_s=self._up_timeout_s + 15,
            )
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._down()

    def _down(self) -> None:
        # A second Ctrl-C must not leave processes behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._gesso("down", deadline_s=40, check=False)
        finally:
            signal.signal(signal.SIGINT, before)

    def _gesso(self, *args: str, deadline_s: float, check: bool = True) -> None:
        command = [sys.executable, "-m", "gesso.cli.main", *args, f"--state-dir={self.state_dir}"]
        try:
            # A session of its own: Ctrl-C reaches this process, which then takes the fleet down in order.
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=deadline_s, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            if check:
                raise FleetError(f"gesso {args[0]}: no end within {deadline_s:.0f} s") from None
            return
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise FleetError(f"gesso {args[0]} ended with {done.returncode}: {said}")

    def status(self) -> ServiceStatus:
        """The status as last written; an empty one while there is none."""
        return StateDir(self.state_dir).read_status() or ServiceStatus()

    def workers(self) -> dict[str, tuple[int, str]]:
        """Pid (0: not running) and `host:port` by worker name, as the supervisor wrote them last."""
        state = StateDir(self.state_dir).read_state()
        children = state.children if state else ()
        return {c.name: (c.pid, c.address) for c in children if not c.http}

    def routers(self) -> dict[str, tuple[int, str, str]]:
        """Pid (0: not running), gRPC and HTTP `host:port` by the router's name, in order."""
        state = StateDir(self.state_dir).read_state()
        return {c.name: (c.pid, c.address, c.http) for c in state.routers} if state else {}

    def whole(self) -> bool:
        """Whether every process runs and served when it was last looked at."""
        state = StateDir(self.state_dir).read_state()
        return state is not None and all(c.pid and c.serving for c in state.children)

    def supervisor(self) -> int:
        """Pid of the supervisor, which plans; 0 without one."""
        state = StateDir(self.state_dir).read_state()
        return state.pid if state else 0


@dataclass
class Watcher:
    """Samples what the operator says once a second, and notices workers that were replaced."""

    fleet: Fleet
    samples: list[MixSample] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)

    async def run(self, start: float) -> None:
        """Samples until cancelled; `start` is the monotonic time of second 0."""
        pids = {name: pid for name, (pid, _) in self.fleet.workers().items()}
        while True:
            at_s = time.monotonic() - start
            status = self.fleet.status()
            plan = status.plan
            self.samples.append(
                MixSample(
                    at_s=at_s,
                    mix=status.mix,
                    reason=plan.reason if plan else "",
                    message=plan.message if plan else "",
                    revision=plan.revision if plan else 0,
                    workers_ready=status.workers.ready,
                )
            )
            for name, (pid, _) in self.fleet.workers().items():
                if pid and pids.get(name, pid) != pid:
                    self.restarts.append(f"{name} died and was replaced at {at_s:.0f} s")
                pids[name] = pid or pids.get(name, 0)
            await asyncio.sleep(1.0)


def kill_hard(fleet: Fleet) -> str:
    """Sends SIGKILL to the fleet's first worker; gives its name."""
    name, (pid, _) = min(fleet.workers().items())
    os.kill(pid, signal.SIGKILL)
    return name


def _free_ports(count: int, each: int = 1) -> list[int]:
    """`count` ports that are free now, and so are the `each` - 1 that follow each of them."""
    found: list[int] = []
    taken: set[int] = set()
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        row = range(first, first + each)
        if row[-1] <= 65535 and taken.isdisjoint(row) and all(map(_is_free, row)):
            found.append(first)
            taken.update(row)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
