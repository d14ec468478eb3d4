"""What a request may ask of a worker: samplers, sizes, several images, progress, previews."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gesso.rpc.v1 import worker_pb2
from gesso_worker.engine.images import read_provenance

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from one_query import one_query, only_answer
from worker_process import EMBEDDING, STEPS, Worker, ask, generate, pixels, service_file, started


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("worker")
    with started(folder, service_file(folder)) as begin:
        yield begin("worker-0").ready()


def test_images_of_one_prompt_are_those_of_seeds_that_count_up(worker: Worker) -> None:
    events = list(worker.stub.Generate(ask(images=3, seed=5), timeout=60))
    images = {e.image_index: e.image for e in events if e.WhichOneof("event") == "image"}
    assert sorted(images) == [0, 1, 2]
    assert [images[i].seed for i in range(3)] == [5, 6, 7]
    for i in range(3):
        alone = generate(worker, seed=5 + i)
        assert np.abs(pixels(alone) - pixels(images[i])).max() <= 1


@pytest.mark.parametrize("size", [(32, 64), (128, 32), (16, 16)])
def test_sizes_up_to_the_services_pixels_are_made(worker: Worker, size: tuple[int, int]) -> None:
    image = generate(worker, width=size[0], height=size[1])
    assert (image.width, image.height) == size
    assert Image.open(io.BytesIO(image.data)).size == size


@pytest.mark.parametrize("scheduler", ["DDIM", "DPM++ 2M"])
def test_another_sampler_makes_another_image_and_says_so(worker: Worker, scheduler: str) -> None:
    made, own = generate(worker, scheduler=scheduler), generate(worker)
    assert not np.array_equal(pixels(made), pixels(own))
    told = read_provenance(Image.open(io.BytesIO(made.data)))
    assert (told.scheduler, told.seed, told.steps) == (scheduler, 1, STEPS)


@pytest.mark.parametrize("changes", [{"scheduler": "DDIM"}, {"width": 32}, {"guidance_scale": 3.0}])
def test_latents_of_another_sampler_or_size_start_nothing(
    worker: Worker, changes: dict[str, object]
) -> None:
    generate(worker, embedding=EMBEDDING, keep_latents=True, tenant="t")
    lookup = one_query(tenant="t", embedding=EMBEDDING)
    entry = only_answer(worker.stub.Lookup(lookup, timeout=5))[0].entry_id
    source = worker_pb2.LatentSource(entry_id=entry, worker=worker.name)
    asked = {"tenant": "t", "embedding": EMBEDDING, "source": source, "skipped_steps": 10}
    assert generate(worker, **asked).skipped_steps == 10
    assert generate(worker, **asked, **changes).skipped_steps == 0


def test_progress_and_previews_come_as_often_as_asked(worker: Worker) -> None:
    asked = ask(progress_steps=1, preview_steps=10)
    events = list(worker.stub.Generate(asked, timeout=60))
    told = [e.progress for e in events if e.WhichOneof("event") == "progress"]
    assert [p.step for p in told] == list(range(1, STEPS))
    assert [p.step for p in told if p.preview] == [10, 20, 30, 40]
    assert Image.open(io.BytesIO(told[9].preview)).size == (8, 8)


def test_memory_is_told_of(worker: Worker) -> None:
    stats = worker.stats()
    assert stats.out_of_memory == 0
    assert 1 <= stats.batch_limit <= 4
