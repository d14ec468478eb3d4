"""Bad requests are told the field, the value and what is allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from one_query import one_query

from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso.vectors import packed
from gesso_worker.requests import (
    BadRequestError,
    Limits,
    Source,
    check_embedding,
    check_generate,
    check_level,
    check_lookup,
)

LIMITS = Limits(64, 64, 2.0, (0, 5, 10))


def _request(**changes: object) -> worker_pb2.WorkerGenerateRequest:
    return worker_pb2.WorkerGenerateRequest(**{"prompt": "a red circle", **changes})


def test_defaults_are_the_services() -> None:
    spec = check_generate(_request(seed=7), LIMITS)
    assert (spec.guidance_scale, spec.skipped_steps, spec.image_format) == (2.0, 0, "png")
    assert (spec.seed, spec.source, spec.embedding) == (7, None, None)
    assert spec.request_id
    assert (spec.width, spec.height, spec.scheduler, spec.images) == (64, 64, "Euler", 1)


@pytest.mark.parametrize("size", [(64, 64), (32, 64), (64, 16), (128, 32), (16, 16), (0, 48)])
def test_sizes_up_to_the_services_pixels_are_made(size: tuple[int, int]) -> None:
    spec = check_generate(_request(width=size[0], height=size[1]), LIMITS)
    assert (spec.width, spec.height) == (size[0] or 64, size[1])


def test_what_is_given_is_taken() -> None:
    source = worker_pb2.LatentSource(entry_id="e", worker="worker-1", address="127.0.0.1:1")
    spec = check_generate(
        _request(
            request_id="r",
            width=64,
            height=64,
            guidance_scale=0.0,
            skipped_steps=5,
            source=source,
            format=image_pb2.IMAGE_FORMAT_WEBP,
            tenant="t",
            embedding=packed([0.6, 0.8]),
            keep_latents=True,
            negative_prompt="blurry",
            seed=2**64 - 1,
        ),
        LIMITS,
    )
    assert spec.source == Source("e", "worker-1", "127.0.0.1:1")
    assert spec.embedding is not None
    assert np.allclose(spec.embedding, [0.6, 0.8])
    assert (spec.request_id, spec.tenant, spec.guidance_scale) == ("r", "t", 0.0)
    assert (spec.image_format, spec.seed, spec.keep_latents) == ("webp", 2**64 - 1, True)


@pytest.mark.parametrize(
    ("changes", "field", "allowed"),
    [
        pytest.param({"prompt": ""}, "prompt: empty", "1 to 4096 bytes", id="empty prompt"),
        pytest.param({"prompt": " \n"}, "prompt: empty", "1 to 4096 bytes", id="blank prompt"),
        pytest.param({"prompt": "é" * 2049}, "prompt: 4098 bytes", "4096", id="long prompt"),
        pytest.param(
            {"negative_prompt": "x" * 4097}, "negative_prompt: 4097", "4096", id="long negative"
        ),
        pytest.param({"width": 128}, "width: 128", "64 pixels", id="width"),
        pytest.param({"height": 63}, "height: 63", "64 pixels", id="height"),
        pytest.param({"width": 128, "height": 40}, "width: 128", "4096 pixels", id="area"),
        pytest.param({"width": 8}, "width: 8", "from 16 on", id="narrow"),
        pytest.param({"width": 2**32 - 1, "height": 1}, "width: 4294967295", "64", id="huge"),
        pytest.param({"scheduler": "Heun"}, "scheduler: 'Heun'", "DPM++ 2M", id="scheduler"),
        pytest.param({"images": 11}, "images: 11", "at most 10", id="images"),
        pytest.param({"seed": 2**64 - 1, "images": 2}, "seed: 1844", "for 2 images", id="seeds"),
        pytest.param({"progress_steps": 1001}, "progress_steps: 1001", "1000", id="progress"),
        pytest.param({"preview_steps": 1001}, "preview_steps: 1001", "1000", id="previews"),
        pytest.param({"guidance_scale": float("inf")}, "guidance_scale: inf", "0 to 50", id="inf"),
        pytest.param({"skipped_steps": 50}, "skipped_steps: 50", "0, 5, 10", id="all steps"),
        pytest.param({"guidance_scale": -1.0}, "guidance_scale: -1.0", "0 to 50", id="guidance"),
        pytest.param(
            {"guidance_scale": float("nan")}, "guidance_scale: nan", "0 to 50", id="nan guidance"
        ),
        pytest.param({"skipped_steps": 7}, "skipped_steps: 7", "0, 5, 10", id="level"),
        pytest.param({"skipped_steps": 5}, "source: none", "entry", id="no source"),
        pytest.param({"format": 9}, "format: 9", "PNG, JPEG or WEBP", id="format"),
        pytest.param(
            {"embedding": packed([1.0, 1.0])}, "embedding: length 1.414", "unit", id="length"
        ),
        pytest.param(
            {"embedding": packed([float("nan")])}, "embedding: length nan", "unit", id="nan"
        ),
        pytest.param({"tenant": "t" * 300}, "tenant: 300 bytes", "256", id="tenant"),
        pytest.param({"request_id": "r" * 300}, "request_id: 300 bytes", "256", id="id"),
    ],
)
def test_a_bad_request_is_refused(changes: dict[str, object], field: str, allowed: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_generate(_request(**changes), LIMITS)
    message = str(caught.value)
    assert message.startswith(field)
    assert "not allowed" in message
    assert allowed in message


def test_a_lookup_needs_an_embedding_and_a_bounded_limit() -> None:
    (query,) = check_lookup(one_query(tenant="t", embedding=packed([1.0])))
    assert (query.tenant, query.embedding, query.limit) == ("t", [1.0], 1)
    with pytest.raises(BadRequestError, match="embedding: 0 numbers"):
        check_lookup(one_query())
    with pytest.raises(
        BadRequestError, match=r"queries\[0\].limit: 100000 is not allowed: at most 64"
    ):
        check_lookup(one_query(embedding=packed([1.0]), limit=100_000))


@pytest.mark.parametrize("count", [0, 65])
def test_a_lookup_has_queries_and_not_too_many(count: int) -> None:
    query = worker_pb2.LookupQuery(embedding=packed([1.0]))
    with pytest.raises(BadRequestError, match=f"queries: {count} is not allowed: 1 to 64"):
        check_lookup(worker_pb2.LookupRequest(queries=[query] * count))


def test_levels_are_those_of_the_ladder() -> None:
    assert check_level(10, LIMITS.ladder) == 10
    with pytest.raises(BadRequestError, match="one of the levels 0, 5, 10"):
        check_level(11, LIMITS.ladder)


def test_an_enormous_embedding_is_refused() -> None:
    with pytest.raises(BadRequestError, match="5000 numbers"):
        check_embedding(packed(np.zeros(5000)))


def test_an_embedding_is_made_of_whole_numbers() -> None:
    with pytest.raises(BadRequestError, match="embedding: 5 bytes is not allowed: 4 for each"):
        check_embedding(b"12345")


def test_a_model_with_guidance_of_its_own_keeps_it() -> None:
    distilled = replace(LIMITS, guidance_scale=1.0, fixed_guidance=True)
    asked = worker_pb2.WorkerGenerateRequest(prompt="a red star", guidance_scale=7.5)
    assert check_generate(asked, LIMITS).guidance_scale == 7.5
    assert check_generate(asked, distilled).guidance_scale == 1.0
    asked.guidance_scale = float("nan")
    with pytest.raises(BadRequestError, match="guidance_scale"):
        check_generate(asked, distilled)
