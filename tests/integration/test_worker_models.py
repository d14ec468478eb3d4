"""Workers that change their model while they serve, and give their shard away before they go."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gesso.builtin import builtin_path
from gesso.rpc.v1 import router_pb2, worker_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from one_query import one_query, only_answer
from router_process import Client, client_of, router_process
from worker_process import (
    EMBEDDING,
    START_S,
    STEPS,
    Worker,
    ask,
    generate,
    pixels,
    service_file,
    started,
    status,
    until,
)

FAST_STEPS = 8


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny SD-XL, itself with fewer steps as a stand-in for a distilled one, and one with torn weights."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("fast", "torn"):
        shutil.copytree(builtin_path("builtin://tiny-sdxl"), folder / name)
    file = next((folder / "torn" / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    others = {"fast": folder / "fast", "torn": folder / "torn", "gone": folder / "gone"}
    return service_file(folder, others=others)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fleet(
    service: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Worker, Worker]]:
    with started(tmp_path_factory.mktemp("workers"), service) as begin:
        first, second = begin("worker-0"), begin("worker-1")
        yield first.ready(), second.ready()


def assign(worker: Worker, model: str, level: int = 0) -> worker_pb2.AssignResponse:
    request = worker_pb2.AssignRequest(skipped_steps=level, revision=1, model=model)
    return worker.stub.Assign(request, timeout=5)


def held(worker: Worker, model: str) -> worker_pb2.StatsResponse:
    """Waits until a worker serves by a model."""

    def confirmed() -> bool:
        stats = worker.stats()
        return bool(stats.ready and stats.model == model and not stats.HasField("loading_model"))

    until(confirmed, START_S)
    return worker.stats()


def cached(worker: Worker) -> Any:
    lookup = one_query(embedding=EMBEDDING)
    return only_answer(worker.stub.Lookup(lookup, timeout=5))


def test_a_worker_changes_its_model_and_back(fleet: tuple[Worker, Worker]) -> None:
    worker = fleet[0]
    whole = generate(worker, embedding=EMBEDDING, keep_latents=True)
    before = worker.stats()
    under_way = worker.stub.Generate(ask(seed=2), timeout=60)
    assert next(iter(under_way)).WhichOneof("event") == "started"
    told = assign(worker, "fast")
    assert (told.model, told.loading_model) == ("", "fast")
    # What was accepted is finished first.
    assert list(under_way)[-1].WhichOneof("event") == "image"

    stats = held(worker, "fast")
    assert stats.profile.steps == FAST_STEPS
    last = stats.last_switch
    assert (getattr(last, "from"), last.to) == ("", "fast")
    assert min(last.load_seconds, last.warmup_seconds) > 0
    loaded_in = last.load_seconds + last.warmup_seconds
    # Both fit into memory.
    assert list(stats.kept_models) == [""]
    assert before.model_bytes < stats.model_bytes <= stats.model_capacity_bytes
    code, message = status(lambda: generate(worker))
    assert (code, "wrong model" in message) == (grpc.StatusCode.ABORTED, True)
    events = list(worker.stub.Generate(ask(model="fast", keep_latents=True), timeout=60))
    assert [e.progress.steps for e in events[1:-1]] == [FAST_STEPS] * (len(events) - 2)
    # The shard stays open, with latents of the service's own model only, and they are not used by another.
    assert stats.fingerprint == before.fingerprint
    assert worker.stats().cache_entries == before.cache_entries
    entry = cached(worker)[0].entry_id
    source = worker_pb2.LatentSource(entry_id=entry, worker=worker.name)
    code, message = status(lambda: generate(worker, model="fast", skipped_steps=10, source=source))
    assert (code, message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "skipped_steps: 10 is not allowed: one of the levels 0",
    )

    assign(worker, "", level=10)
    stats = held(worker, "")
    assert (stats.profile.steps, stats.assigned_skipped_steps) == (STEPS, 10)
    back = stats.last_switch
    assert (back.kept, back.drain_seconds, list(stats.kept_models)) == (True, 0.0, ["fast"])
    assert back.load_seconds + back.warmup_seconds < loaded_in
    assert stats.images_done >= before.images_done + 2
    resumed = generate(worker, skipped_steps=10, source=source, seed=9)
    assert resumed.skipped_steps == 10
    assert np.array_equal(pixels(resumed), pixels(whole))


def test_requests_of_the_model_before_are_finished_beside_the_one_in_memory(
    fleet: tuple[Worker, Worker],
) -> None:
    worker = fleet[0]
    assign(worker, "fast")
    held(worker, "fast")
    assign(worker, "")
    held(worker, "")
    calls = [worker.stub.Generate(ask(seed=n), timeout=60) for n in range(3)]
    for call in calls:
        assert next(iter(call)).WhichOneof("event") == "started"
    assign(worker, "fast")
    stats = held(worker, "fast")
    # Their backlog is told, and requests of the other model are taken meanwhile.
    assert len(stats.active) + len(stats.queued) > 0
    assert generate(worker, model="fast").skipped_steps == 0
    assert [list(call)[-1].WhichOneof("event") for call in calls] == ["image"] * 3
    assign(worker, "")
    assert not held(worker, "").HasField("loading_model")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param("gone", "spec.variants[3].model.source: ", id="missing"),
        pytest.param("torn", "spec.variants[2].model.source: ", id="torn weights"),
    ],
)
def test_a_model_that_cannot_be_loaded_leaves_the_one_before(
    fleet: tuple[Worker, Worker], model: str, message: str
) -> None:
    worker = fleet[0]
    assign(worker, model)
    until(lambda: bool(worker.stats().switch_error), START_S)
    stats = held(worker, "")
    assert message in stats.switch_error
    assert generate(worker).skipped_steps == 0


@pytest.mark.parametrize(
    ("model", "level", "message"),
    [
        ("slow", 0, "model: 'slow' is not allowed: empty for spec.model, or one of fast, gone"),
        ("fast", 5, "skipped_steps: 5 is not allowed: one of the levels 0"),
    ],
)
def test_a_bad_assignment_changes_nothing(
    fleet: tuple[Worker, Worker], model: str, level: int, message: str
) -> None:
    code, told = status(lambda: assign(fleet[0], model, level))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message in told
    assert not fleet[0].stats().HasField("loading_model")


def test_what_a_leaving_worker_hands_over_is_resumed_elsewhere(
    fleet: tuple[Worker, Worker],
) -> None:
    leaving, stays = fleet
    whole = generate(leaving, embedding=EMBEDDING, keep_latents=True)
    request = worker_pb2.HandOverRequest(
        targets=[worker_pb2.Peer(name=stays.name, address=stays.address)], timeout_seconds=30
    )
    done = leaving.stub.HandOver(request, timeout=40)
    assert (done.entries >= 1, done.skipped) == (True, 0)
    (match,) = cached(stays)
    source = worker_pb2.LatentSource(entry_id=match.entry_id, worker=stays.name)
    resumed = generate(stays, skipped_steps=10, source=source, seed=99)
    assert resumed.skipped_steps == 10
    assert np.array_equal(pixels(resumed), pixels(whole))


@pytest.mark.timeout(300)
async def test_under_load_a_change_of_model_loses_nothing(
    fleet: tuple[Worker, Worker], service: Path, tmp_path: Path
) -> None:
    """By a router: it passes a request on where a worker has changed its model since it last looked."""
    changing = fleet[0]
    models, failures, done = [], [], asyncio.Event()

    async def served(count: int) -> None:
        async with asyncio.timeout(START_S):
            while len(models) < count and not failures:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def load(router: Client, n: int) -> None:
        sent = 0
        while not done.is_set():
            sent += 1
            try:
                prompt = f"a large red star above {n} blue rings"
                events = await router.generate(prompt, seed=sent, slo_seconds=120)
                models.append(events[-1].image.model)
            except grpc.aio.AioRpcError as error:
                failures.append((error.code(), error.details()))

    with router_process(tmp_path, service=service) as process:
        async with client_of(process) as router:
            await router.apply(*fleet)  # type: ignore[arg-type]
            request = router_pb2.ApplyPlanRequest(
                # So dear a worker-second that the fast model is worth its loss.
                plan=router_pb2.Plan(revision=time.time_ns(), price=5.0),
                workers=[router_pb2.WorkerEndpoint(name=w.name, address=w.address) for w in fleet],
            )
            await router.control.ApplyPlan(request, timeout=5)
            clients = [asyncio.create_task(load(router, n)) for n in range(3)]
            for model in ("fast", ""):
                await asyncio.to_thread(assign, changing, model)
                await asyncio.to_thread(held, changing, model)
                await served(len(models) + 6)
            done.set()
            await asyncio.gather(*clients)
            report = await router.report()
    assert failures == []
    assert {"", "fast"} <= set(models)
    assert report.failed == report.shed == 0
    assert [len(c.quality) for c in report.classes if c.arrivals] == [6 + 3] * sum(
        c.arrivals > 0 for c in report.classes
    )
