"""The router as a process: start, restart, drain, what cannot start; and Clipper-HA end to end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gesso.rpc.v1 import router_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from router_process import (
    client_of,
    code_of,
    fake_workers,
    router_process,
    spawn,
    until,
    write_service,
)


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
