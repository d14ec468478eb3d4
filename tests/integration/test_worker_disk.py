"""A worker that is killed comes back warm, and what nobody got to see is nothing to start from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gesso.rpc.v1 import worker_pb2
from gesso.vectors import packed

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from one_query import one_query, only_answer
from worker_process import (
    LADDER,
    StartWorker,
    Worker,
    ask,
    generate,
    idle,
    pixels,
    service_file,
    started,
    until,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    folder = tmp_path_factory.mktemp("workers")
    with started(folder, service_file(folder)) as begin:
        yield begin


def embedding(i: int) -> bytes:
    return packed(np.eye(1, 64, i)[0])


def matches(worker: Worker, i: int) -> list[worker_pb2.Match]:
    request = one_query(tenant="a", embedding=embedding(i))
    found = only_answer(worker.stub.Lookup(request, timeout=5))
    return [m for m in found if m.similarity > 0.99]


def test_a_killed_worker_comes_back_warm(start: StartWorker, tmp_path: Path) -> None:
    flags = ("--cache-dir", str(tmp_path / "cache"), "--cache-disk-bytes", "64Mi")
    first = start("worker-0", *flags).ready()
    whole = generate(first, embedding=embedding(0), keep_latents=True, tenant="a")
    for i in (1, 2):
        generate(first, embedding=embedding(i), keep_latents=True, tenant="a", skipped_steps=0)
    (before,) = matches(first, 0)
    # A call that its client leaves after the last step at the latest has left nothing.
    call = first.stub.Generate(
        ask(embedding=embedding(3), keep_latents=True, tenant="a"), timeout=60
    )
    for event in call:
        if event.progress.step >= 40:
            call.cancel()
            break
    until(lambda: idle(first), 10)
    assert matches(first, 3) == []
    until(lambda: len(list(tmp_path.rglob("*.safetensors"))) == 3 * len(LADDER[1:]), 20)
    stats = first.stats()
    assert 0 < stats.cache_disk_bytes <= stats.cache_disk_capacity_bytes == 64 << 20
    first.process.kill()
    first.process.wait(10)

    again = start("worker-0", *flags).ready()
    stats = again.stats()
    assert (stats.cache_entries, stats.cache_disk_corrupt) == (3, 0)
    (match,) = matches(again, 0)
    assert (match.entry_id, list(match.held_levels)) == (before.entry_id, list(LADDER[1:]))
    source = worker_pb2.LatentSource(entry_id=match.entry_id, worker="worker-0")
    resumed = generate(again, skipped_steps=20, source=source, tenant="a", seed=9)
    assert resumed.skipped_steps == 20
    assert np.array_equal(pixels(resumed), pixels(whole))
    assert matches(again, 3) == []


def test_two_workers_on_one_folder_are_told(start: StartWorker, tmp_path: Path) -> None:
    flags = ("--cache-dir", str(tmp_path / "cache"), "--cache-disk-bytes", "64Mi")
    start("worker-1", *flags).ready()
    second = start("worker-2", *flags)
    assert second.process.wait(60) == 2
    (line,) = second.log.read_text().splitlines()
    assert line.startswith("gesso worker: --cache-dir: ")
    assert "another worker is using it" in line
