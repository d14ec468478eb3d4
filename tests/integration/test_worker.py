"""Worker processes on the tiny SD-XL, spoken to over gRPC as router, operator and peers do."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from PIL import Image

from gesso.builtin import builtin_path
from gesso.rpc.v1 import image_pb2, worker_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from one_query import one_query, only_answer
from worker_process import (
    EMBEDDING,
    LADDER,
    PROMPT,
    START_S,
    STEPS,
    StartWorker,
    Worker,
    ask,
    command,
    free_port,
    generate,
    idle,
    pixels,
    service_file,
    started,
    status,
    until,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    folder = tmp_path_factory.mktemp("workers")
    with started(folder, service_file(folder)) as begin:
        yield begin


@pytest.fixture(scope="module")
def fleet(start: StartWorker) -> tuple[Worker, Worker]:
    first, second = start("worker-0"), start("worker-1", "--max-accepted", "4")
    return first.ready(), second.ready()


@pytest.fixture(scope="module")
def worker(fleet: tuple[Worker, Worker]) -> Worker:
    return fleet[0]


def test_a_ready_worker_tells_what_it_measured(worker: Worker) -> None:
    stats = worker.stats()
    assert (stats.worker, stats.ready, stats.draining) == ("worker-0", True, False)
    assert (stats.profile.steps, len(stats.profile.step_seconds)) == (STEPS, 4)
    assert min(stats.profile.step_seconds) > 0
    assert stats.profile.decode_seconds > 0
    assert stats.cache_capacity_bytes == 8 << 20
    assert len(stats.fingerprint) == 32


def test_reflection_lists_the_services(worker: Worker) -> None:
    services = set(ProtoReflectionDescriptorDatabase(worker.channel).get_services())
    assert {"gesso.v1.Worker", "grpc.health.v1.Health"} <= services


def test_an_image_is_streamed_with_its_progress(worker: Worker) -> None:
    events = list(worker.stub.Generate(ask(progress_steps=10), timeout=60))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "image"
    assert set(kinds[1:-1]) == {"progress"}
    assert len(kinds) <= 2 + STEPS // 10
    steps = [event.progress.step for event in events[1:-1]]
    assert steps == sorted(set(steps))
    assert events[0].started == image_pb2.Started(worker="worker-0", skipped_steps=0)
    image = events[-1].image
    assert (image.width, image.height, image.skipped_steps) == (64, 64, 0)
    assert pixels(image).std() > 0
    assert image.denoise_seconds > 0


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_every_format_is_made(worker: Worker, name: str) -> None:
    code = image_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{name}")
    image = generate(worker, format=code)
    assert image.format == code
    assert Image.open(io.BytesIO(image.data)).format == name


def test_the_same_seed_gives_the_same_image_and_another_does_not(worker: Worker) -> None:
    first, again, other = (pixels(generate(worker, seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_peer_resumes_from_the_owners_latents_bit_for_bit(fleet: tuple[Worker, Worker]) -> None:
    owner, peer = fleet
    whole = generate(owner, embedding=EMBEDDING, keep_latents=True, tenant="a")
    lookup = one_query(tenant="a", embedding=EMBEDDING)
    match = only_answer(owner.stub.Lookup(lookup, timeout=5))[0]
    assert tuple(match.held_levels) == LADDER[1:]
    assert match.similarity == pytest.approx(1)
    assert match.embedding == EMBEDDING
    source = worker_pb2.LatentSource(
        entry_id=match.entry_id, worker=owner.name, address=owner.address
    )
    for worker in (peer, owner):
        resumed = generate(worker, skipped_steps=10, source=source, tenant="a", seed=99)
        assert resumed.skipped_steps == 10
        assert (resumed.source.worker, resumed.source.entry_id) == (owner.name, match.entry_id)
        assert np.array_equal(pixels(resumed), pixels(whole))
    assert resumed.fetch_seconds < 1
    # Another tenant can neither see nor use it.
    foreign = one_query(tenant="b", embedding=EMBEDDING)
    assert not only_answer(owner.stub.Lookup(foreign, timeout=5))
    denied = generate(peer, skipped_steps=10, source=source, tenant="b")
    assert denied.skipped_steps == 0
    assert not denied.HasField("source")
    stats = owner.stats()
    assert stats.cache_entries >= 1
    assert 0 < stats.cache_bytes <= stats.cache_capacity_bytes


def test_a_source_that_is_gone_runs_in_full_and_says_so(worker: Worker) -> None:
    source = worker_pb2.LatentSource(entry_id="gone", worker="worker-0")
    events = list(worker.stub.Generate(ask(skipped_steps=25, source=source), timeout=60))
    assert events[0].started.skipped_steps == 0
    assert events[-1].image.skipped_steps == 0


def test_requests_at_unlike_k_share_the_batch(worker: Worker) -> None:
    generate(worker, embedding=EMBEDDING, keep_latents=True)
    lookup = one_query(embedding=EMBEDDING)
    entry = only_answer(worker.stub.Lookup(lookup, timeout=5))[0].entry_id
    source = worker_pb2.LatentSource(entry_id=entry, worker=worker.name)
    alone = {k: pixels(generate(worker, skipped_steps=k, source=source)) for k in LADDER[1:]}
    with ThreadPoolExecutor(8) as pool:
        made = {
            k: pool.submit(generate, worker, skipped_steps=k, source=source) for k in LADDER[1:]
        }
        for k, future in made.items():
            image = future.result()
            assert image.skipped_steps == k
            assert np.abs(pixels(image) - alone[k]).max() <= 1


def test_a_cancelled_call_frees_its_place(worker: Worker) -> None:
    call = worker.stub.Generate(ask(), timeout=60)
    assert next(iter(call)).WhichOneof("event") == "started"
    assert [r.remaining_steps for r in worker.stats().active] <= [STEPS]
    done = worker.stats().images_done
    call.cancel()
    until(lambda: idle(worker), 5)
    assert worker.stats().images_done == done


def test_a_deadline_ends_the_call_and_frees_its_place(worker: Worker) -> None:
    code, _ = status(lambda: generate(worker, timeout=0.15))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: idle(worker), 5)


def test_more_than_the_bound_is_refused_and_the_others_are_served(
    fleet: tuple[Worker, Worker],
) -> None:
    bounded = fleet[1]
    until(lambda: idle(bounded), 10)
    calls = [bounded.stub.Generate(ask(seed=i), timeout=60) for i in range(7)]
    outcomes = []
    for call in calls:
        try:
            outcomes.append(list(call)[-1].WhichOneof("event"))
        except grpc.RpcError as error:
            outcomes.append(error.code())  # type: ignore[attr-defined]
    assert sorted(map(str, outcomes)) == sorted(
        ["image"] * 4 + [str(grpc.StatusCode.RESOURCE_EXHAUSTED)] * 3
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"prompt": ""}, "prompt: empty is not allowed", id="empty prompt"),
        pytest.param({"width": 65}, "width: 65 is not allowed: 64 pixels", id="width"),
        pytest.param({"skipped_steps": 3}, "skipped_steps: 3 is not allowed", id="level"),
    ],
)
def test_bad_input_is_refused(worker: Worker, changes: dict[str, Any], message: str) -> None:
    code, told = status(lambda: generate(worker, **changes))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message in told


def test_latents_that_are_not_there_are_not_found(worker: Worker) -> None:
    request = worker_pb2.FetchLatentsRequest(entry_id="gone", skipped_steps=5)
    code, told = status(lambda: worker.stub.FetchLatents(request, timeout=5))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'gone'" in told


def test_an_assignment_is_idempotent_and_never_goes_back(worker: Worker) -> None:
    def assign(level: int, revision: int) -> worker_pb2.AssignResponse:
        request = worker_pb2.AssignRequest(skipped_steps=level, revision=revision)
        return worker.stub.Assign(request, timeout=5)

    assert assign(10, 5).skipped_steps == 10
    again = assign(10, 5)
    assert (again.skipped_steps, again.switch_seconds) == (10, 0)
    assert status(lambda: assign(20, 4))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert status(lambda: assign(11, 6))[0] is grpc.StatusCode.INVALID_ARGUMENT
    stats = worker.stats()
    assert (stats.assigned_skipped_steps, stats.assigned_revision) == (10, 5)


def test_the_log_holds_no_prompt_and_few_lines(worker: Worker) -> None:
    log = worker.log.read_text()
    assert "ready" in log
    assert PROMPT not in log
    lines = [json.loads(line) for line in log.splitlines()]
    images = [x["attempt"] for x in lines if x["message"] in ("image", "no image")]
    assert len(images) == len(set(images)), "one for each request"
    assert len(lines) - len(images) < 20


def test_a_term_signal_finishes_what_was_accepted(start: StartWorker) -> None:
    leaving = start("worker-2").ready()
    calls = [leaving.stub.Generate(ask(seed=i), timeout=60) for i in range(3)]
    until(lambda: len(leaving.stats().active) + len(leaving.stats().queued) == 3, 10)
    began = time.monotonic()
    leaving.process.send_signal(signal.SIGTERM)
    assert all(list(call)[-1].WhichOneof("event") == "image" for call in calls)
    assert leaving.process.wait(10) == 0
    assert time.monotonic() - began < 10


def test_a_term_signal_while_loading_ends_at_once(start: StartWorker) -> None:
    loading = start("worker-3")
    until(lambda: _answers(loading), START_S)
    assert not loading.stats().ready
    assert loading.health() == health_pb2.HealthCheckResponse.NOT_SERVING
    loading.process.send_signal(signal.SIGTERM)
    assert loading.process.wait(10) == 0


def _answers(worker: Worker) -> bool:
    try:
        worker.stats()
    except grpc.RpcError:
        return False
    return True


def _refusal(arguments: list[str]) -> str:
    """The one line of a worker that does not start; whatever else may be there is a defect."""
    done = subprocess.run(
        arguments, stderr=subprocess.PIPE, timeout=START_S, env=os.environ, check=False, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_port_in_use_is_told(worker: Worker, tmp_path: Path) -> None:
    told = _refusal(command("worker-9", worker.address, service_file(tmp_path)))
    assert f"--listen: {worker.address} cannot be bound" in told


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        pytest.param("missing", "no such folder", id="missing folder"),
        pytest.param("torn", "cannot be loaded", id="torn weights"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path, breaking: str, message: str) -> None:
    folder = tmp_path / "model"
    if breaking == "torn":
        shutil.copytree(builtin_path("builtin://tiny-sdxl"), folder)
        file = next((folder / "unet").glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-1000])
    address = f"127.0.0.1:{free_port()}"
    told = _refusal(command("worker-9", address, service_file(tmp_path, folder)))
    assert message in told
    assert str(folder) in told
