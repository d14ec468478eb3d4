"""Runs a service on this machine: routers, workers and the control loop, until SIGTERM.

`python -m gesso_operator.local.supervisor --service FILE --state-dir DIR --grpc-port N --http-port N`

Exit codes: 0 stopped as asked, 1 the fleet did not come up or every router was given up, 2 bad flags, a bad
service file, a port in use, or a supervisor that runs in the state directory already; each with one clear
last line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gesso.api import DiffusionService, SpecError, load_service
from gesso.api.local_state import LocalState, Phase, StateDir
from gesso.observing import add_log_flag
from gesso.tls import Tls, TlsError
from gesso_operator.clients import Clients
from gesso_operator.local.fleet import ROUTER_MODULE, WORKER_MODULE, LocalFleet
from gesso_operator.local.ports import in_use
from gesso_operator.local.process import StartError
from gesso_operator.logs import Log
from gesso_operator.loop import ControlLoop

_STATE_SECONDS = 1.0
_FIRST_PLAN_SECONDS = 0.25


class UsageError(ValueError):
    """A flag or a file that cannot be used; one clear line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until stopped; gives the exit code."""
    flags = _parser().parse_args(argv)
    log = Log("supervisor", form=flags.log_format)
    state_dir = StateDir(flags.state_dir)
    try:
        service = load_service(flags.service)
        if not service.spec.workers.least:
            raise UsageError(
                f"{flags.service}: spec.workers.replicas: 0 is not allowed on one machine: at least 1"
            )
        first = Ports(flags.grpc_port, flags.http_port, service.spec.router.replicas)
        lock = _prepare(state_dir, Path(flags.service), first)
    except (SpecError, UsageError) as error:
        for line in str(error).splitlines():
            log.error("refused", detail=line)
        return 2
    # What was imported stays: looking through it for garbage now and then would hold up a plan for 0.1 s.
    gc.freeze()
    try:
        return asyncio.run(_serve(service, state_dir, flags, log))
    finally:
        os.close(lock)


@dataclass(frozen=True)
class Ports:
    """The first router's two ports, and how many routers there are: each further one has the next two."""

    grpc: int
    http: int
    routers: int = 1

    def all(self) -> list[tuple[str, int]]:
        """Each port with the flag that it comes from. Raises UsageError where they cannot be."""
        apart = abs(self.grpc - self.http)
        if apart < self.routers:
            both = f"both {self.grpc}" if not apart else f"{self.grpc} and {self.http}"
            if self.routers == 1:
                raise UsageError(f"--grpc-port and --http-port are {both}: two ports are needed")
            raise UsageError(
                f"--grpc-port and --http-port are {both}: {self.routers} routers need {self.routers} ports "
                "in a row from each, and none twice"
            )
        if max(self.grpc, self.http) + self.routers - 1 > 65535:
            raise UsageError(
                f"--grpc-port {self.grpc}, --http-port {self.http}: {self.routers} ports in a row from each "
                "are needed, up to 65535"
            )
        flags = (("--grpc-port", self.grpc), ("--http-port", self.http))
        return [(flag, port + i) for flag, port in flags for i in range(self.routers)]


def _prepare(state_dir: StateDir, service_file: Path, ports: Ports) -> int:
    """Checks ports, takes the lock, copies the service file; gives the lock. Raises UsageError."""
    wanted = ports.all()
    try:
        state_dir.create()
        lock = state_dir.try_lock()
    except OSError as error:
        raise UsageError(f"--state-dir {state_dir.path}: {error.strerror or error}") from None
    if lock is None:
        raise UsageError(f"a service is up already in {state_dir.path}: `gesso down` ends it")
    try:
        for flag, port in wanted:
            trouble = in_use(port)
            if trouble:
                raise UsageError(f"port {port} {trouble}: choose another with {flag}")
        # What an earlier run left behind would be taken for this one's.
        for stale in ("state.json", "status.json", "plan.json"):
            (state_dir.path / stale).unlink(missing_ok=True)
        for plan in state_dir.path.glob("routers/*/plan.json"):
            plan.unlink(missing_ok=True)
        if service_file.resolve() != state_dir.service_file.resolve():
            shutil.copyfile(service_file, state_dir.service_file)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise UsageError(f"--state-dir {state_dir.path}: {error.strerror or error}") from None
        raise
    return lock


def _tls(service: DiffusionService) -> Tls | None:
    """What the parts talk with. Raises UsageError where the service's files cannot be used."""
    security = service.spec.security
    if security.keys is not None and security.keys.file is None:
        raise UsageError("spec.security.keys.file: is needed for a fleet on one machine")
    wanted = security.tls
    if wanted is None:
        return None
    if wanted.directory is None:
        raise UsageError("spec.security.tls.directory: is needed for a fleet on one machine")
    try:
        return Tls.wanted_by(wanted, Path(wanted.directory))
    except TlsError as error:
        raise UsageError(f"spec.security.tls.directory: {error}") from None


async def _serve(
    service: DiffusionService, state_dir: StateDir, flags: argparse.Namespace, log: Log
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clients = Clients(tls=_tls(service))
    fleet = LocalFleet(
        service,
        state_dir,
        flags.grpc_port,
        flags.http_port,
        clients,
        log,
        flags.worker_module,
        flags.router_module,
        flags.start_timeout,
    )
    control = ControlLoop(service, fleet, fleet, clients, log)
    fleet.on_change(control.wake)
    started = datetime.now(UTC)
    phase: Phase = "Starting"
    message = "starting routers and workers"

    def publish() -> None:
        state_dir.write_state(
            LocalState(
                name=service.name,
                phase=phase,
                message=message,
                pid=os.getpid(),
                started_at=started,
                grpc=fleet.router_address,
                http=fleet.http_address,
                children=fleet.children(),
            )
        )

    log.info("up", service=service.name, state_dir=str(state_dir.path), workers=len(fleet.workers))
    publish()
    code = 0
    try:
        if await _unless(stop, fleet.start()):
            phase, message = "Ready", "serving"
            await _first_plan(control, stop, flags.start_timeout)
            publish()
            log.info("ready", grpc=fleet.router_address, http=fleet.http_address)
            await _until_first(
                stop.wait(), fleet.supervise(), control.run(stop), _publishing(publish, stop)
            )
    except StartError as error:
        code, phase, message = 1, "Failed", str(error)
        log.error("failed", detail=message)
    finally:
        if code == 0:
            phase, message = "Stopping", "finishing accepted requests"
        with suppress(OSError):
            publish()
        await fleet.stop()
        await clients.close()
        with suppress(OSError):
            publish()
            if code == 0:
                (state_dir.path / "state.json").unlink(missing_ok=True)
        # The last line in the log says how it ended.
        if code == 0:
            log.info("down")
        else:
            log.error("down", detail=message)
    return code


async def _first_plan(control: ControlLoop, stop: asyncio.Event, limit_s: float) -> None:
    """Ticks until the router has a plan: without one it knows no workers. Raises StartError at the limit."""
    began = time.monotonic()
    while not stop.is_set():
        plan = (await control.tick()).condition("PlanReady")
        if plan is not None and plan.status == "True":
            return
        if time.monotonic() - began > limit_s:
            raise StartError(
                f"no plan after {limit_s:g} s: {plan.message if plan else 'no reason'}"
            )
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _FIRST_PLAN_SECONDS)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does the work unless told to stop first; whether it was done. The work's errors are raised."""
    await _until_first(stop.wait(), work)
    return not stop.is_set()


async def _until_first(*work: Coroutine[Any, Any, object]) -> None:
    """Runs all until the first ends, then cancels the rest. Raises the error of the one that ended, if any."""
    tasks = [asyncio.create_task(w) for w in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [t for t in tasks if t.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def _publishing(publish: Callable[[], None], stop: asyncio.Event) -> None:
    """Keeps state.json current: processes come and go."""
    while not stop.is_set():
        with suppress(OSError):
            publish()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _STATE_SECONDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gesso_operator.local.supervisor", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--service", required=True, metavar="FILE", help="a DiffusionService in YAML"
    )
    parser.add_argument("--state-dir", required=True, metavar="DIR", help="where state and logs go")
    parser.add_argument(
        "--grpc-port", required=True, type=_port, metavar="N", help="the first router's gRPC port"
    )
    parser.add_argument(
        "--http-port", required=True, type=_port, metavar="N", help="the first router's HTTP port"
    )
    parser.add_argument(
        "--start-timeout",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="seconds in which all must serve",
    )
    add_log_flag(parser)
    # Other servers of the same contract, as the tests use.
    parser.add_argument("--worker-module", default=WORKER_MODULE, help=argparse.SUPPRESS)
    parser.add_argument("--router-module", default=ROUTER_MODULE, help=argparse.SUPPRESS)
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a port from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: seconds above 0")
    return value


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # gRPC's own thread may hold the interpreter on its way out, with nothing left to do.
    os._exit(code)
