"""The local fleet: one router and the service's workers as processes; implements the seams of
`gesso_operator.fleet`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from gesso.api import DiffusionService, ServiceStatus
from gesso.api.local_state import Child, StateDir
from gesso.rpc.v1 import router_pb2
from gesso_operator.clients import Clients
from gesso_operator.fleet import Member
from gesso_operator.local.ports import free_port
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
        """Starts nothing yet. The modules are what `python -m` runs for a worker and for the router."""
        self._dir = state_dir
        self._log = log
        self._start_seconds = start_seconds
        self._listeners: list[Callable[[], None]] = []
        self._router_address = f"{HOST}:{grpc_port}"
        self.http_address = f"{HOST}:{http_port}"
        file = str(state_dir.service_file.resolve())
        environment = child_environment(os.environ)
        on_disk = service.spec.cache.disk is not None
        security = service.spec.security
        tls = () if clients.tls is None else ("--tls-dir", str(clients.tls.folder.resolve()))
        #: Where the router is controlled: apart from its clients, if anything is guarded.
        self._control_address = self._router_address
        guards: list[str] = [*tls]
        tracing = service.spec.tracing
        told = [] if log.form == "json" else ["--log-format", log.form]
        if tracing is not None:
            told += ["--otlp-endpoint", tracing.endpoint]
            guards += ["--trace-ratio", str(tracing.sample_ratio)]
        if security.on:
            self._control_address = f"{HOST}:{free_port(HOST)}"
            guards += ["--control", self._control_address]
        if security.keys is not None and security.keys.file is not None:
            guards += ["--keys", str(Path(security.keys.file).resolve())]

        def worker(name: str) -> ManagedProcess:
            def command(address: str) -> list[str]:
                return [
                    *(sys.executable, "-m", worker_module, "--name", name),
                    *("--listen", address, "--service", file, "--threads", "1"),
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
                clients.healthy,
                state_dir.log(name),
                log,
                environment,
                start_seconds,
                policy,
                self._changed,
            )

        def router_command(address: str) -> list[str]:
            return [
                *(sys.executable, "-m", router_module, "--grpc", address),
                *("--http", self.http_address, "--service", file),
                *("--state-dir", str(state_dir.path.resolve())),
                *guards,
                *told,
            ]

        self.router = ManagedProcess(
            "router",
            router_command,
            lambda: self._router_address,
            clients.healthy,
            state_dir.log("router"),
            log,
            environment,
            start_seconds,
            policy,
            self._changed,
        )
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
        """host:port of the router's gRPC server."""
        return self._router_address

    def routers(self) -> Mapping[str, str]:
        """The one router, by where it is controlled."""
        return {"router": self._control_address}

    async def decided(self, decision: Decision, plan: router_pb2.ApplyPlanRequest | None) -> None:
        """Nothing: the router keeps its plan itself, and the number of processes is fixed."""

    def members(self) -> tuple[Member, ...]:
        """The workers as they are now."""
        return tuple(
            Member(w.name, w.address, w.serving and w.pid != 0, w.restarts, w.message)
            for w in self.workers
        )

    def children(self) -> tuple[Child, ...]:
        """Processes for `state.json`."""
        return tuple(
            Child(name=p.name, pid=p.pid, address=p.address) for p in (self.router, *self.workers)
        )

    async def write(self, status: ServiceStatus) -> None:
        """Writes status.json; a full disk is told, and does not stop the loop."""
        try:
            self._dir.write_status(status)
        except OSError as error:
            self._log.error("status_not_written", detail=str(error))

    async def start(self) -> None:
        """Starts all, waits until all serve. Raises StartError at the first failure or the deadline."""
        tasks = [
            asyncio.create_task(self._come_up(p), name=p.name) for p in (self.router, *self.workers)
        ]
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
        """Keeps all running. Raises StartError when the router is given up; workers may be, one by one."""
        tasks = [asyncio.create_task(p.supervise()) for p in (self.router, *self.workers)]
        pending = set(tasks)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if self.router.given_up:
                    raise StartError(f"router {self.router.message}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, grace_s: float = STOP_SECONDS) -> None:
        """The router first, so that what it accepted still finds its workers; then the workers at once."""
        await self.router.stop(grace_s)
        await asyncio.gather(*(w.stop(grace_s) for w in self.workers))

    async def _come_up(self, process: ManagedProcess) -> None:
        for attempt in range(1, _PORT_TRIES + 1):
            await process.start()
            try:
                await process.until_serving()
                return
            except StartError as error:
                # Between choosing a free port and listening on it someone else may take it.
                stolen = "in use" in str(error) and process is not self.router
                if not stolen or attempt == _PORT_TRIES:
                    raise


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """The environment of router and workers: one thread each, which is faster than two on small models."""
    settings = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    return {**base, **settings}
