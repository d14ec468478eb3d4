"""A router in a process of its own, a client of it, and fakes of its workers. Put `tests/fakes` on sys.path."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from fake_worker import FakeWorker
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gesso.rpc.v1 import image_pb2, image_pb2_grpc, router_pb2, router_pb2_grpc

SERVICE = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: tiny}
spec:
  model: {source: SOURCE, steps: 50, width: 64, height: 64, guidanceScale: 2.0}
  variants: [{skippedSteps: [0, 5, 10, 15, 20, 25]}]
  slo: {latencySeconds: 5.0, minRelativeQuality: 0.5}
  workers: {min: 1, max: 2, maxBatch: 4}
  scheduling: {policy: POLICY}
  router: {embedding: "builtin://tiny-clip"}
"""


@dataclass
class Process:
    """A router in a process of its own, and what it wrote to stderr."""

    popen: subprocess.Popen[bytes]
    grpc_port: int
    http_port: int
    stderr: Path
    #: Where it is controlled, if not on the clients' port.
    control_port: int = 0

    async def ended(self) -> int:
        return await asyncio.to_thread(self.popen.wait, 15)


class Client:
    """A test's view of a router: counters count from the test's beginning."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{process.grpc_port}")
        self.images = image_pb2_grpc.ImageServiceStub(self.channel)
        self.control_channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{process.control_port or process.grpc_port}"
        )
        self.control = router_pb2_grpc.RouterControlStub(self.control_channel)
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{process.http_port}", timeout=20, trust_env=False
        )
        self.before: Any = None

    async def apply(self, *workers: FakeWorker, revision: int = 0) -> None:
        request = router_pb2.ApplyPlanRequest(
            plan=router_pb2.Plan(revision=revision or time.time_ns(), reason="Test"),
            workers=[router_pb2.WorkerEndpoint(name=w.name, address=w.address) for w in workers],
        )
        await self.control.ApplyPlan(request, timeout=5)
        self.before = await self.report()

        async def ready() -> bool:
            return int((await self.report()).workers_ready) == len(workers)

        await until(ready)

    async def report(self) -> Any:
        return await self.control.Report(router_pb2.ReportRequest(), timeout=5)

    async def counted(self) -> dict[str, int]:
        """Counters since `apply` that are not 0."""
        now, names = await self.report(), ("offered", "served_in_slo", "late", "shed", "failed")
        counts = {
            n: getattr(now, n) - getattr(self.before, n)
            for n in (*names, "cancelled", "invalid", "retried")
        }
        return {name: n for name, n in counts.items() if n}

    async def generate(self, prompt: str, **fields: Any) -> list[Any]:
        request = image_pb2.GenerateRequest(prompt=prompt, **fields)
        return [e async for e in self.images.Generate(request, timeout=20)]

    async def post(self, **body: Any) -> httpx.Response:
        return await self.http.post("/v1/images/generations", json=body)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Polls another process, which cannot set an event here."""
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def spawn(stderr: Path, flags: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gesso_router.server"]
    with stderr.open("wb") as out:
        return subprocess.Popen(
            [*command, *(x for pair in flags.items() for x in pair)], stderr=out
        )


def write_service(folder: Path, policy: str = "QualityAware") -> Path:
    # A folder without quality.json: published thresholds, whatever the tiny model's table says.
    path = folder / f"{policy}.yaml"
    path.write_text(SERVICE.replace("SOURCE", str(folder)).replace("POLICY", policy))
    return path


def free_ports() -> tuple[int, int]:
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        return int(a.getsockname()[1]), int(b.getsockname()[1])


@contextlib.contextmanager
def router_process(
    folder: Path,
    policy: str = "QualityAware",
    service: Path | None = None,
    extra: dict[str, str] | None = None,
) -> Iterator[Process]:
    """A router that serves, stopped at the end whatever happens; `service` in place of one with that policy."""
    grpc_port, http_port = free_ports()
    stderr = folder / f"stderr-{grpc_port}.log"
    popen = spawn(
        stderr,
        {
            "--grpc": f"127.0.0.1:{grpc_port}",
            "--http": f"127.0.0.1:{http_port}",
            "--service": str(service or write_service(folder, policy)),
            "--state-dir": str(folder / "state"),
            **(extra or {}),
        },
    )
    health_at = (extra or {}).get("--health", f"127.0.0.1:{grpc_port}")
    try:
        with grpc.insecure_channel(health_at) as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            health = health_pb2_grpc.HealthStub(channel)
            for answer in health.Watch(health_pb2.HealthCheckRequest(), timeout=60):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
        yield Process(popen, grpc_port, http_port, stderr)
    finally:
        popen.kill()
        popen.wait()


@contextlib.asynccontextmanager
async def client_of(process: Process) -> AsyncIterator[Client]:
    client = Client(process)
    try:
        yield client
    finally:
        await client.channel.close()
        await client.control_channel.close()
        await client.http.aclose()


async def code_of(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    trailing = {k: str(v) for k, v in error.value.trailing_metadata() or ()}
    return error.value.code(), error.value.details() or "", trailing


@contextlib.asynccontextmanager
async def fake_workers(n: int, **fields: Any) -> AsyncIterator[list[FakeWorker]]:
    ladder = (0, 5, 10, 15, 20, 25)
    workers = [
        await FakeWorker(f"worker-{i}", steps=50, ladder=ladder, max_batch=4, **fields).start()
        for i in range(n)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.stop()
