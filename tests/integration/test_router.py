"""The router over real gRPC and HTTP, with fake workers and the tiny open_clip."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from gesso.rpc.v1 import image_pb2, router_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from fake_worker import Failure, FakeWorker
from router_process import Client, Process, client_of, code_of, fake_workers, router_process, until


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One process for all tests that do not end or restart it: loading open_clip takes seconds."""
    with router_process(tmp_path_factory.mktemp("router")) as process:
        yield process


@pytest.fixture
async def router(process: Process) -> AsyncIterator[Client]:
    async with client_of(process) as client:
        yield client


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


async def test_a_judge_reports_on_an_image_once(router: Client) -> None:
    async with fake_workers(1, step_seconds=0.001) as workers:
        await router.apply(*workers)
        request_id = (await router.generate("a blue ring"))[-1].request_id

        async def report(**fields: Any) -> Any:
            return await router.control.ReportQuality(
                router_pb2.ReportQualityRequest(**fields), timeout=5
            )

        for value in ({}, {"relative_quality": float("nan")}, {"relative_quality": 1.6}):
            code, details, _ = await code_of(report(request_id=request_id, **value))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert details.startswith("relative_quality: ")
            assert details.endswith("is not allowed: 0 to 1.5")
        told = await report(request_id=request_id, relative_quality=0.9)
        assert (told.predicted_quality, told.learned) == (1.0, False)
        code, details, _ = await code_of(report(request_id=request_id, relative_quality=0.9))
        assert code is grpc.StatusCode.NOT_FOUND
        assert details.startswith(f"request_id: '{request_id}' is not allowed: ")


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
            ({"prompt": "a", "stream": "yes"}, "stream"),
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


async def test_a_shard_that_does_not_answer_costs_its_matches_only(router: Client) -> None:
    async with fake_workers(2, step_seconds=0.001) as workers:
        await router.apply(*workers)
        await router.generate("three yellow stars")
        holder = next(w for w in workers if w.requests)
        other = next(w for w in workers if w is not holder)
        other.may_look_up.clear()
        image = (await router.generate("three yellow stars", slo_seconds=2.0))[-1].image
        assert image.similarity == pytest.approx(1, abs=1e-3)
        holder.may_look_up.clear()
        image = (await router.generate("three yellow stars", slo_seconds=2.0))[-1].image
        assert (image.similarity, image.skipped_steps) == (0.0, 0)
        assert await router.counted() == {"offered": 3, "served_in_slo": 3}
        metrics = (await router.http.get("/metrics")).text
        assert "gesso_router_unanswered_lookups_total 3.0" in metrics


async def first_of(workers: list[FakeWorker]) -> tuple[FakeWorker, FakeWorker]:
    """The worker that is in its first step, and the other."""
    waits = [asyncio.create_task(w.first_step.wait()) for w in workers]
    await asyncio.wait(waits, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()
    busy = next(w for w in workers if w.first_step.is_set())
    return busy, next(w for w in workers if w is not busy)


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [
        pytest.param(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED), 2, id="queue-full"),
        # A worker that is about to go costs no retry.
        pytest.param(Failure(grpc.StatusCode.ABORTED), 1, id="draining"),
        pytest.param(Failure(grpc.StatusCode.INTERNAL, after_steps=10), 2, id="broken-after-start"),
    ],
)
async def test_a_request_that_fails_on_a_worker_is_served_by_another(
    router: Client, failure: Failure, attempts: int
) -> None:
    async with fake_workers(2, step_seconds=0.002) as workers:
        await router.apply(*workers)
        queue = [failure]
        for worker in workers:
            worker.failures = queue  # whoever comes first
        events = await router.generate("a star")
        image = events[-1].image
        assert (image.attempts, len(queue)) == (attempts, 0)
        assert [len(w.requests) for w in workers] == [1, 1]
        retried = {"retried": 1} if attempts > 1 else {}
        assert await router.counted() == {"offered": 1, "served_in_slo": 1, **retried}


async def lost(router: Client) -> float:
    """Workers that the router has lost since its start."""
    metrics = (await router.http.get("/metrics")).text
    (line,) = [x for x in metrics.splitlines() if x.startswith("gesso_router_workers_lost_total ")]
    return float(line.split()[1])


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_worker_that_dies_costs_one_retry(router: Client, how: str) -> None:
    async with fake_workers(2, step_seconds=0.02) as workers:
        await router.apply(*workers)
        before = await lost(router)
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
        # The router is the module's: earlier tests lose workers, too.
        assert await lost(router) == before + 1
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


def test_logs_hold_no_prompts(process: Process) -> None:
    text = process.stderr.read_text()
    assert '"serving"' in text
    assert "star" not in text
    assert all(json.loads(line)["level"] for line in text.splitlines())
