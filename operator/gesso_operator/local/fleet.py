"""The local fleet: the service's routers and workers as processes; implements the seams of
`gesso_operator.fleet`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gesso.api import DiffusionService, ServiceStatus
from gesso.api.local_state import FIRST_ROUTER, Child, StateDir
from gesso.rpc.v1 import router_pb2
from gesso_operator.clients import Clients
from gesso_operator.fleet import Member
from gesso_operator.local.ports import free_port
from gesso_operator.local.priority import YIELDING
from gesso_operator.local.process import STOP_SECONDS, ManagedProcess, StartError
from gesso_operator.local.restarts import RestartPolicy
from gesso_operator.logs import Log
from gesso_operator.planning import Decision

HOST = "127.0.0.1"
WORKER_MODULE = "gesso_worker.server"
ROUTER_MODULE = "gesso_router.server"
_PORT_TRIES = 3
#: Workers that share a few cores answer late, and a step on them takes long: the wait is worth it.
FETCH_DEADLINE_MS = 1000


@dataclass(frozen=True)
class Router:
    """A router's process, and the host:port of its servers."""

    process: ManagedProcess
    grpc: str
    http: str
    control: str


class LocalFleet:
    """Processes of one service. All methods belong to one event loop."""

    def __init__(
        self,
        service: DiffusionService,
        state_dir: StateDir,
        grpc_port: int,
        http_port: int,
        clients: Clients,
        log: Log,
        worker_module: str = WORKER_MODULE,
        router_module: str = ROUTER_MODULE,
        start_seconds: float = 120.0,
        policy: RestartPolicy | None = None,
    ) -> None:
        """Starts nothing yet. The modules are what `python -m` runs for a worker and for a router.

        The ports are the first router's; each further one has the two that follow.
        """
        self._dir = state_dir
        self._log = log
        self._start_seconds = start_seconds
        #: Apart from the loop's, which closes its channels to whom it does not ask.
        self._probes = Clients(tls=clients.tls)
        self._listeners: list[Callable[[], None]] = []
        file = str(state_dir.service_file.resolve())
        environment = child_environment(os.environ)
        on_disk = service.spec.cache.disk is not None
        security = service.spec.security
        tls = () if clients.tls is None else ("--tls-dir", str(clients.tls.folder.resolve()))
        guards: list[str] = [*tls]
        tracing = service.spec.tracing
        threads = str(service.spec.workers.threads)
        told = [] if log.form == "json" else ["--log-format", log.form]
        if tracing is not None:
            told += ["--otlp-endpoint", tracing.endpoint]
            guards += ["--trace-ratio", str(tracing.sample_ratio)]
        if security.keys is not None and security.keys.file is not None:
            guards += ["--keys", str(Path(security.keys.file).resolve())]

        def worker(name: str) -> ManagedProcess:
            def command(address: str) -> list[str]:
                return [
                    *(sys.executable, "-m", worker_module, "--name", name),
                    *("--listen", address, "--service", file, "--threads", threads),
                    *("--fetch-deadline-ms", str(FETCH_DEADLINE_MS)),
                    *(("--cache-dir", str(state_dir.cache(name).resolve())) if on_disk else ()),
                    *tls,
                    *told,
                ]

            # A new port for each start: someone may have taken the old one meanwhile.
            return ManagedProcess(
                name,
                command,
                lambda: f"{HOST}:{free_port(HOST)}",
                self._probes.healthy,
                state_dir.log(name),
                log,
                environment,
                start_seconds,
                policy,
                self._changed,
                YIELDING,
            )

        def router(number: int) -> Router:
            name = f"{FIRST_ROUTER}-{number}" if number else FIRST_ROUTER
            address, http = (f"{HOST}:{port + number}" for port in (grpc_port, http_port))
            # Where it is controlled: apart from its clients, if anything is guarded.
            control = f"{HOST}:{free_port(HOST)}" if security.on else address
            folder = state_dir.router(name).resolve()

            def command(address: str) -> list[str]:
                folder.mkdir(parents=True, exist_ok=True)
                return [
                    *(sys.executable, "-m", router_module, "--grpc", address),
                    *("--http", http, "--service", file, "--state-dir", str(folder)),
                    *(("--control", control) if security.on else ()),
                    *guards,
                    *told,
                ]

            process = ManagedProcess(
                name,
                command,
                lambda: address,
                self._probes.healthy,
                state_dir.log(name),
                log,
                environment,
                start_seconds,
                policy,
                self._changed,
            )
            return Router(process, address, http, control)

        self._routers = tuple(router(i) for i in range(service.spec.router.replicas))
        count = service.spec.workers.least
        self.workers = tuple(worker(f"worker-{i}") for i in range(count))

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Has `listener` called whenever a process begins or ceases to serve."""
        self._listeners.append(listener)

    @property
    def router_address(self) -> str:
        """host:port of the first router's gRPC server."""
        return self._routers[0].grpc

    @property
    def http_address(self) -> str:
        """host:port of the first router's HTTP server."""
        return self._routers[0].http

    def routers(self) -> Mapping[str, str]:
        """The routers that serve, by where they are controlled; where none does, all: one should answer."""
        serving = [r for r in self._routers if r.process.serving and r.process.pid]
        return {r.process.name: r.control for r in serving or self._routers}

    def absent_routers(self) -> tuple[str, ...]:
        """What keeps those from serving that do not, while another does."""
        answering = self.routers()
        return tuple(
            r.process.message or f"{r.process.name} is starting"
            for r in self._routers
            if r.process.name not in answering
        )

    async def decided(self, decision: Decision, plan: router_pb2.ApplyPlanRequest | None) -> None:
        """Lets go of channels to where processes were once; routers keep their plan themselves."""
        await self._probes.keep_only(p.address for p in self._processes)

    def members(self) -> tuple[Member, ...]:
        """The workers as they are now."""
        return tuple(
            Member(w.name, w.address, w.serving and w.pid != 0, w.restarts, w.message)
            for w in self.workers
        )

    def children(self) -> tuple[Child, ...]:
        """Processes for `state.json`."""
        return tuple(
            Child(name=p.name, pid=p.pid, address=p.address, http=http, serving=p.serving)
            for p, http in (
                *((r.process, r.http) for r in self._routers),
                *((w, "") for w in self.workers),
            )
        )

    @property
    def _processes(self) -> tuple[ManagedProcess, ...]:
        """All, the routers first."""
        return (*(r.process for r in self._routers), *self.workers)

    async def write(self, status: ServiceStatus) -> None:
        """Writes status.json; a full disk is told, and does not stop the loop."""
        try:
            self._dir.write_status(status)
        except OSError as error:
            self._log.error("status_not_written", detail=str(error))

    async def start(self) -> None:
        """Starts all, waits until all serve. Raises StartError at the first failure or the deadline."""
        tasks = [asyncio.create_task(self._come_up(p), name=p.name) for p in self._processes]
        try:
            done, pending = await asyncio.wait(
                tasks, timeout=self._start_seconds, return_when=asyncio.FIRST_EXCEPTION
            )
        finally:
            # Also when told to stop meanwhile: none may start a process after `stop`.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            error = task.exception()
            if error is not None:
                raise error
        if pending:
            names = ", ".join(sorted(t.get_name() for t in pending))
            raise StartError(f"not serving after {self._start_seconds:g} s: {names}")

    async def supervise(self) -> None:
        """Keeps all running. Raises StartError when every router is given up; workers may be, one by one."""
        tasks = [asyncio.create_task(p.supervise()) for p in self._processes]
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if all(r.process.given_up for r in self._routers):
                    first = self._routers[0].process
                    raise StartError(f"{first.name} {first.message}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, grace_s: float = STOP_SECONDS) -> None:
        """The routers first, so that what they accepted still finds its workers; then the workers at once."""
        await asyncio.gather(*(r.process.stop(grace_s) for r in self._routers))
        await asyncio.gather(*(w.stop(grace_s) for w in self.workers))
        await self._probes.close()

    async def _come_up(self, process: ManagedProcess) -> None:
        for attempt in range(1, _PORT_TRIES + 1):
            await process.start()
            try:
                await process.until_serving()
                return
            except StartError as error:
                # Between choosing a free port and listening on it someone else may take it.
                stolen = "in use" in str(error) and process in self.workers
                if not stolen or attempt == _PORT_TRIES:
                    raise


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """The environment of router and workers: one thread each, unless a worker's flags say otherwise."""
    settings = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    return {**base, **settings}
