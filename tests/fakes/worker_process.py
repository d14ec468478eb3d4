"""Worker processes on the tiny SD-XL, and what tests say to them. Put `tests/fakes` on sys.path."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.vectors import packed

PROMPT = "a large red star above a small blue ring"
STEPS = 50
LADDER = (0, 5, 10, 15, 20, 25)
START_S = 90.0
EMBEDDING = packed(np.eye(1, 64)[0])

SERVICE = """\
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {{name: tiny}}
spec:
  model:
    source: {source}
    steps: 50
    width: 64
    height: 64
    guidanceScale: 2
    dtype: float32
  variants:
    - {{name: default, skippedSteps: [0, 5, 10, 15, 20, 25]}}
{others}
  slo: {{latencySeconds: 10}}
  workers: {{min: 1, max: 2, maxBatch: 4}}
  cache: {{capacity: 8Mi}}
"""


@dataclass
class Worker:
    """A running process, its address and where its stderr goes."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path
    channel: grpc.Channel

    @property
    def stub(self) -> Any:
        return worker_pb2_grpc.WorkerStub(self.channel)

    def stats(self) -> worker_pb2.StatsResponse:
        return self.stub.Stats(worker_pb2.StatsRequest(), timeout=5)

    def health(self) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status

    def ready(self) -> Worker:
        """Waits for SERVING, as a router does."""
        until(lambda: self.process.poll() is not None or _serving(self), START_S)
        assert self.process.poll() is None, self.log.read_text()
        return self


def _serving(worker: Worker) -> bool:
    try:
        return worker.health() == health_pb2.HealthCheckResponse.SERVING
    except grpc.RpcError:
        return False


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Polls another process, which tells no event."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(name: str, address: str, service: Path, *more: str) -> list[str]:
    # A busy machine answers late: what a deadline does is tested elsewhere.
    slow = ["--fetch-deadline-ms", "5000"]
    flags = ["--name", name, "--listen", address, "--service", str(service), *slow, *more]
    return [sys.executable, "-m", "gesso_worker.server", *flags]


def service_file(
    folder: Path, source: object = "builtin://tiny-sdxl", others: dict[str, object] | None = None
) -> Path:
    """`others` are sources of other models of 8 steps, by name."""
    rows = [
        f"    - {{name: {name}, model: {{source: {other}, steps: 8, quality: 0.9}}}}"
        for name, other in (others or {}).items()
    ]
    file = folder / "service.yaml"
    file.write_text(SERVICE.format(source=source, others="\n".join(rows)))
    return file


StartWorker = Callable[..., Worker]


@contextmanager
def started(folder: Path, service: Path) -> Iterator[StartWorker]:
    """What starts workers of a service, by name; all are ended on the way out."""
    workers: list[Worker] = []

    def begin(name: str, *more: str) -> Worker:
        address = f"127.0.0.1:{free_port()}"
        log = folder / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command(name, address, service, *more), stderr=stream)
        workers.append(Worker(name, address, process, log, grpc.insecure_channel(address)))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.channel.close()
        worker.process.kill()
        worker.process.wait(10)


def ask(**changes: Any) -> worker_pb2.WorkerGenerateRequest:
    return worker_pb2.WorkerGenerateRequest(**{"prompt": PROMPT, "seed": 1, **changes})


def generate(worker: Worker, timeout: float = 60, **changes: Any) -> worker_pb2.WorkerImage:
    return list(worker.stub.Generate(ask(**changes), timeout=timeout))[-1].image


def pixels(image: worker_pb2.WorkerImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image.data)).convert("RGB"), dtype=np.int16)


def idle(worker: Worker) -> bool:
    stats = worker.stats()
    return not stats.active and not stats.queued


def status(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()
