"""The router's process over real gRPC and HTTP, with fake workers and the tiny open_clip."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
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
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gesso.rpc.v1 import image_pb2, image_pb2_grpc, router_pb2, router_pb2_grpc

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from fake_worker import Failure, FakeWorker

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

    async def ended(self) -> int:
        return await asyncio.to_thread(self.popen.wait, 15)


class Client:
    """A test's view of a router: counters count from the test's beginning."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{process.grpc_port}")
        self.images = image_pb2_grpc.ImageServiceStub(self.channel)
        self.control = router_pb2_grpc.RouterControlStub(self.channel)
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
            n: getattr(now, n) - getattr(self.before, n) for n in (*names, "cancelled", "retried")
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
def router_process(folder: Path, policy: str = "QualityAware") -> Iterator[Process]:
    """A router that serves, stopped at the end whatever happens."""
    grpc_port, http_port = free_ports()
    stderr = folder / f"stderr-{grpc_port}.log"
    popen = spawn(
        stderr,
        {
            "--grpc": f"127.0.0.1:{grpc_port}",
            "--http": f"127.0.0.1:{http_port}",
            "--service": str(write_service(folder, policy)),
            "--state-dir": str(folder / "state"),
        },
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
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
        await client.http.aclose()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One process for all tests that do not end or restart it: loading open_clip takes seconds."""
    with router_process(tmp_path_factory.mktemp("router")) as process:
        yield process


@pytest.fixture
async def router(process: Process) -> AsyncIterator[Client]:
    async with client_of(process) as client:
        yield client


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


async def test_serves_by_both_doors_and_hits_the_cache(router: Client) -> None:
    async with fake_workers(2, step_seconds=0.001) as workers:
        await router.apply(*workers)
        events = await router.generate("a large red star above a small blue ring", seed=7)
        kinds = [e.WhichOneof("event") for e in events]
        assert kinds[:2] == ["queued", "started"]
        assert kinds[-1] == "image"
        assert kinds.count("progress") == 50
        image = events[-1].image
        assert (image.seed, image.skipped_steps, image.similarity) == (7, 0, 0.0)
        assert image.data == f"image of 7 by {image.worker}".encode()

        answer = await router.post(prompt="a large red star above a small blue ring", n=2, seed=3)
        assert answer.status_code == 200, answer.text
        data = [base64.b64decode(d["b64_json"]) for d in answer.json()["data"]]
        assert [d[:10] for d in data] == [b"image of 3", b"image of 4"]
        similarity = float(answer.headers["X-Gesso-Similarity"].split(",")[0])
        assert similarity == pytest.approx(1, abs=1e-3)

        assert await router.counted() == {"offered": 3, "served_in_slo": 3}
        report = await router.report()
        assert report.workers_ready == 2
        assert sum(c.arrivals for c in report.classes) == report.offered
        metrics = (await router.http.get("/metrics")).text
        assert 'gesso_router_requests_total{outcome="served_in_slo"}' in metrics
        assert "star" not in metrics
        assert (await router.http.get("/readyz")).status_code == 200


def test_logs_hold_no_prompts(process: Process) -> None:
    text = process.stderr.read_text()
    assert '"serving"' in text
    assert "star" not in text
    assert all(json.loads(line)["level"] for line in text.splitlines())


async def test_a_plan_with_a_price_skips_steps(router: Client) -> None:
    async with fake_workers(1, step_seconds=0.001) as workers:
        await router.apply(*workers)
        await router.control.ApplyPlan(
            router_pb2.ApplyPlanRequest(
                plan=router_pb2.Plan(revision=time.time_ns(), price=50.0),
                workers=[router_pb2.WorkerEndpoint(name="worker-0", address=workers[0].address)],
            )
        )
        first = (await router.generate("two green squares"))[-1].image
        second = (await router.generate("two green squares"))[-1].image
        assert (first.skipped_steps, second.skipped_steps) == (0, 25)
        assert second.similarity == pytest.approx(1, abs=1e-3)
        assert workers[0].requests[1].source.entry_id == "worker-0-0"


async def code_of(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    trailing = {k: str(v) for k, v in error.value.trailing_metadata() or ()}
    return error.value.code(), error.value.details() or "", trailing


async def test_bad_input_is_refused_by_both_doors_and_not_counted(router: Client) -> None:
    async with fake_workers(1) as workers:
        await router.apply(*workers)
        grpc_cases: tuple[tuple[dict[str, Any], str], ...] = (
            ({"prompt": ""}, "prompt: empty is not allowed: 1 to 4096 bytes"),
            ({"prompt": "x" * 10_000}, "prompt: 10000 bytes is not allowed"),
            ({"prompt": "a", "width": 65}, "width: 65 is not allowed: 64x64"),
            ({"prompt": "a", "seed": 2**63}, "seed: 9223372036854775808 is not allowed"),
        )
        for fields, message in grpc_cases:
            code, details, _ = await code_of(router.generate(**fields))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert message in details
        http_cases: tuple[tuple[dict[str, Any], str], ...] = (
            ({"prompt": ""}, "prompt"),
            ({"prompt": "x" * 10_000}, "prompt"),
            ({"prompt": "a", "size": "1024x1024"}, "size"),
            ({"prompt": "a", "seed": -1}, "seed"),
            ({"prompt": "a", "stream": True}, "stream"),
        )
        for body, param in http_cases:
            answer = await router.post(**body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert await router.counted() == {}
        assert workers[0].requests == []


async def test_what_cannot_make_its_deadline_is_refused_with_a_time_to_wait(
    router: Client,
) -> None:
    async with fake_workers(1, step_seconds=0.02) as workers:
        await router.apply(*workers)
        code, details, trailing = await code_of(router.generate("a star", slo_seconds=0.3))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "deadline" in details
        assert int(trailing["retry-after-ms"]) >= 200
        answer = await router.post(prompt="a star", slo_ms=300)
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert await router.counted() == {"offered": 2, "shed": 2}
        assert workers[0].requests == []


async def test_cancelling_frees_the_worker_by_both_doors(router: Client) -> None:
    async with fake_workers(1, step_seconds=0.02) as workers:
        await router.apply(*workers)
        worker = workers[0]
        call = router.images.Generate(image_pb2.GenerateRequest(prompt="a star"), timeout=20)
        async with asyncio.timeout(20):
            await worker.first_step.wait()
            call.cancel()
            await worker.saw_cancel.wait()
        worker.first_step.clear()
        worker.saw_cancel.clear()
        post = asyncio.create_task(router.post(prompt="a ring"))
        async with asyncio.timeout(20):
            await worker.first_step.wait()
            post.cancel()
            await worker.saw_cancel.wait()

        async def idle() -> bool:
            return (await router.report()).queued == 0

        await until(idle)
        assert await router.counted() == {"offered": 2, "cancelled": 2}


async def first_of(workers: list[FakeWorker]) -> tuple[FakeWorker, FakeWorker]:
    """The worker that is in its first step, and the other."""
    waits = [asyncio.create_task(w.first_step.wait()) for w in workers]
    await asyncio.wait(waits, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()
    busy = next(w for w in workers if w.first_step.is_set())
    return busy, next(w for w in workers if w is not busy)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED),
        Failure(grpc.StatusCode.ABORTED),
        Failure(grpc.StatusCode.INTERNAL, after_steps=10),
    ],
    ids=["queue-full", "draining", "broken-after-start"],
)
async def test_a_request_that_fails_on_a_worker_is_served_by_another(
    router: Client, failure: Failure
) -> None:
    async with fake_workers(2, step_seconds=0.002) as workers:
        await router.apply(*workers)
        queue = [failure]
        for worker in workers:
            worker.failures = queue  # whoever comes first
        events = await router.generate("a star")
        image = events[-1].image
        assert (image.attempts, len(queue)) == (2, 0)
        assert [len(w.requests) for w in workers] == [1, 1]
        assert await router.counted() == {"offered": 1, "served_in_slo": 1, "retried": 1}


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_worker_that_dies_costs_one_retry(router: Client, how: str) -> None:
    async with fake_workers(2, step_seconds=0.02) as workers:
        await router.apply(*workers)
        running = asyncio.create_task(router.generate("a star"))
        victim, other = await first_of(workers)
        if how == "killed":
            await victim.stop()
        else:
            victim.thawed.clear()
        image = (await running)[-1].image
        assert (image.worker, image.attempts) == (other.name, 2)
        counted = await router.counted()
        assert counted.get("served_in_slo", 0) + counted.get("late", 0) == 1
        assert "failed" not in counted
        victim.thawed.set()


async def test_a_draining_worker_gets_nothing_new(router: Client) -> None:
    async with fake_workers(2, step_seconds=0.001) as workers:
        await router.apply(*workers)
        workers[0].draining = True

        async def known() -> bool:
            return (await router.report()).workers_ready == 1

        await until(known)
        images = [(await router.generate(f"star {i}"))[-1].image for i in range(3)]
        assert {i.worker for i in images} == {"worker-1"}
        assert workers[0].requests == []
        assert len(workers[0].lookups) == 3  # its latents are still there


async def test_what_no_worker_can_serve_fails_after_the_retry(router: Client) -> None:
    async with fake_workers(2, step_seconds=0.001) as workers:
        await router.apply(*workers)
        for worker in workers:
            worker.failures = [Failure(grpc.StatusCode.INTERNAL)]
        code, details, _ = await code_of(router.generate("a star"))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "worker-0" in details
        assert "worker-1" in details
        assert await router.counted() == {"offered": 1, "failed": 1, "retried": 1}


async def test_a_worker_that_comes_back_on_its_port_is_used_again(router: Client) -> None:
    async with fake_workers(1, step_seconds=0.001) as workers:
        await router.apply(*workers)

        async def ready() -> bool:
            return bool((await router.report()).workers_ready)

        async def gone() -> bool:
            return not await ready()

        await workers[0].stop()
        await until(gone)
        again = FakeWorker("worker-0", steps=50, step_seconds=0.001)
        await again.start(int(workers[0].address.split(":")[1]))
        await until(ready)
        assert (await router.generate("a star"))[-1].image.worker == "worker-0"
        await again.stop()


async def test_without_a_plan_it_serves_health_and_says_what_is_missing(tmp_path: Path) -> None:
    with router_process(tmp_path, "ClipperHA") as process:
        async with client_of(process) as router:
            code, details, _ = await code_of(router.generate("a star"))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert details == "no plan has named a worker yet"
            assert (await router.post(prompt="a star")).status_code == 503
            assert (await router.http.get("/healthz")).status_code == 200
            assert (await router.http.get("/readyz")).status_code == 503
            assert (await router.report()).shed == 2
            stub = reflection_pb2_grpc.ServerReflectionStub(router.channel)
            listing = reflection_pb2.ServerReflectionRequest(list_services="")
            async for reply in stub.ServerReflectionInfo(iter([listing])):
                names = {s.name for s in reply.list_services_response.service}
            assert names >= {
                "gesso.v1.ImageService",
                "gesso.v1.RouterControl",
                "grpc.health.v1.Health",
            }


async def test_plans_only_grow_and_outlive_the_process(tmp_path: Path) -> None:
    async with fake_workers(1, step_seconds=0.001) as workers:
        with router_process(tmp_path, "ClipperHA") as process:
            async with client_of(process) as router:
                await router.apply(*workers, revision=5)
                await router.apply(*workers, revision=5)
                older = router_pb2.ApplyPlanRequest(plan=router_pb2.Plan(revision=4))
                code, details, _ = await code_of(router.control.ApplyPlan(older))
                assert code is grpc.StatusCode.FAILED_PRECONDITION
                assert "plan.revision: 4 is not allowed: at least 5" in details
        with router_process(tmp_path, "ClipperHA") as process:
            async with client_of(process) as router:

                async def ready() -> bool:
                    return (await router.http.get("/readyz")).status_code == 200

                await until(ready)
                assert (await router.report()).plan_revision == 5
                assert (await router.generate("a star"))[-1].image.data


async def test_sigterm_finishes_what_was_accepted(tmp_path: Path) -> None:
    with router_process(tmp_path, "ClipperHA") as process:
        async with client_of(process) as router, fake_workers(2, step_seconds=0.01) as workers:
            await router.apply(*workers)
            by_grpc = asyncio.create_task(router.generate("a star"))
            by_http = asyncio.create_task(router.post(prompt="a ring"))
            async with asyncio.timeout(20):
                for worker in workers:
                    await worker.first_step.wait()
            process.popen.send_signal(signal.SIGTERM)
            assert (await by_grpc)[-1].WhichOneof("event") == "image"
            assert (await by_http).status_code == 200
            assert await process.ended() == 0


async def test_clipper_queues_generates_in_full_and_drops_the_late(tmp_path: Path) -> None:
    with router_process(tmp_path, "ClipperHA") as process:
        async with client_of(process) as router, fake_workers(1, step_seconds=0.004) as workers:
            await router.apply(*workers)
            results = await asyncio.gather(
                *(router.generate(f"star {i}", slo_seconds=0.5) for i in range(12)),
                return_exceptions=True,
            )
            images = [r[-1].image for r in results if not isinstance(r, BaseException)]
            errors = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
            assert len(images) + len(errors) == 12
            assert images
            assert {i.skipped_steps for i in images} == {0}
            assert {e.code() for e in errors} == {grpc.StatusCode.DEADLINE_EXCEEDED}
            report = await router.report()
            assert report.served_in_slo + report.late == 12
            assert report.late >= len(errors) > 0
            assert workers[0].lookups == []


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--http", "BUSY", "--http: 127.0.0.1:{port} cannot be bound: Address already in use"),
        ("--grpc", "BUSY", "--grpc: 127.0.0.1:{port} cannot be bound: Address already in use"),
        ("--grpc", "nowhere", "'nowhere' is not allowed: HOST:PORT"),
        ("--service", "missing.yaml", "missing.yaml: no such file"),
        ("--service", "BAD", "spec.slo.latencySeconds: 0 is not allowed"),
        ("--service", "UNLOADABLE", "spec.router.embedding: "),
        ("--service", "TABLE", "quality.json: skipped_steps: missing"),
        ("--state-dir", "FILE", "--state-dir: "),
    ],
    ids=["http-port", "grpc-port", "address", "no-file", "bad-file", "model", "table", "state-dir"],
)
def test_what_cannot_start_exits_2_with_a_clear_line(
    tmp_path: Path, flag: str, value: str, message: str
) -> None:
    good = write_service(tmp_path)
    text = good.read_text()
    flags = {
        "--grpc": "127.0.0.1:0",
        "--http": "127.0.0.1:0",
        "--service": str(good),
        "--state-dir": str(tmp_path / "state"),
    }
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        if value == "BUSY":
            value = f"127.0.0.1:{port}"
        elif value == "BAD":
            good.write_text(text.replace("latencySeconds: 5.0", "latencySeconds: 0"))
        elif value == "UNLOADABLE":
            (tmp_path / "no-model").mkdir()
            good.write_text(text.replace("builtin://tiny-clip", str(tmp_path / "no-model")))
        elif value == "TABLE":
            (tmp_path / "quality.json").write_text(json.dumps({"by_similarity": []}))
        flags[flag] = str(good) if value.isupper() else value
        stderr = tmp_path / "stderr.log"
        popen = spawn(stderr, flags)
        try:
            assert popen.wait(60) == 2
        finally:
            popen.kill()
            popen.wait()
    lines = stderr.read_text().splitlines()
    assert len([line for line in lines if message.format(port=port) in line]) == 1, lines
    assert not any("Traceback" in line for line in lines)
