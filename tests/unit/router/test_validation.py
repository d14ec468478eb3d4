"""Bad input at both front doors: each message names the field, the value and what is allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from router_kit import Clock, ScriptedPool, router, service

from gesso.rpc.v1 import image_pb2
from gesso_router.errors import Ending, RequestError
from gesso_router.grpc_api import raw_of
from gesso_router.image_request import parse
from gesso_router.validation import MAX_SEED, Raw, validate

SPEC = service()
HTTP = router(ScriptedPool(), Clock(), SPEC)


@pytest.mark.parametrize(
    ("field", "fields", "message"),
    [
        ("prompt", {"prompt": ""}, "prompt: empty is not allowed: 1 to 4096 bytes"),
        ("prompt", {"prompt": " \n"}, "prompt: empty"),
        ("prompt", {"prompt": "x" * 10_000}, "prompt: 10000 bytes is not allowed: 1 to 4096"),
        ("prompt", {"prompt": "ü" * 2049}, "prompt: 4098 bytes"),
        ("prompt", {"prompt": "\ud800"}, "prompt: .*surrogate"),
        ("negative_prompt", {"negative_prompt": "x" * 5000}, "negative_prompt: 5000 bytes"),
        ("width", {"width": 63, "height": 64}, "width: 63 is not allowed: 64x64"),
        ("height", {"height": 65}, "height: 65 is not allowed: 64x64"),
        ("seed", {"seed": MAX_SEED + 1}, f"seed: {2**63} is not allowed: 0 to {2**63 - 1}"),
        ("seed", {"seed": -1}, "seed: -1 is not allowed"),
        ("guidance_scale", {"guidance_scale": 50.5}, "guidance_scale: 50.5 .* 0 to 50"),
        ("guidance_scale", {"guidance_scale": float("nan")}, "guidance_scale: nan"),
        ("slo_seconds", {"slo_seconds": 0.0}, "slo_seconds: '0' is not allowed: above 0"),
        ("slo_seconds", {"slo_seconds": float("nan")}, "slo_seconds: 'nan'"),
        ("slo_seconds", {"slo_seconds": 1e9}, "slo_seconds: .* at most 3600"),
        ("min_quality", {"min_quality": 1.1}, "min_quality: 1.1 is not allowed: 0 to 1"),
        ("format", {"format": 9}, r"format: 9 is not allowed: 1 \(PNG\)"),
        ("tenant", {"tenant": "x" * 129}, "tenant: .* at most 128 bytes"),
        ("tenant", {"tenant": "a\nb"}, "tenant: .* printable"),
        ("request_id", {"request_id": "a b"}, "request_id: 'a b' is not allowed"),
    ],
)
def test_grpc_fields(field: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        validate(Raw(**{"prompt": "a star", **fields}), SPEC)
    assert (error.value.ending, error.value.param) == (Ending.INVALID, field)


@pytest.mark.parametrize(
    ("field", "fields", "message"),
    [
        ("prompt", {"prompt": ""}, "prompt: empty"),
        ("prompt", {"prompt": None}, "prompt: missing"),
        ("prompt", {"prompt": ["a"]}, r'prompt: .\["a"\]. is not allowed: a string'),
        ("n", {"n": 11}, "n: 11 is not allowed: 1 to 10"),
        ("n", {"n": 2, "stream": True}, "n: 2 is not allowed: 1 with stream"),
        ("n", {"n": 0}, "n: 0"),
        ("n", {"n": True}, "n: 'true'"),
        ("n", {"n": 1.5}, "n: '1.5'"),
        ("size", {"size": "65x64"}, "size: '65x64' is not allowed: 64x64"),
        ("size", {"size": "0x0"}, "size: '0x0'"),
        ("size", {"size": "big"}, "size: 'big' is not allowed: WIDTHxHEIGHT"),
        ("size", {"size": "9" * 5000 + "x1"}, "size: .* WIDTHxHEIGHT"),
        ("seed", {"seed": -1}, f"seed: -1 is not allowed: 0 to {MAX_SEED}"),
        ("seed", {"seed": 2**63}, f"seed: {2**63}"),
        ("seed", {"seed": MAX_SEED, "n": 2}, "seed: .* with n = 2"),
        ("slo_ms", {"slo_ms": 0}, "slo_ms: '0' is not allowed: above 0, at most 3.6e"),
        ("min_quality", {"min_quality": -0.1}, "min_quality: -0.1"),
        ("output_format", {"output_format": "gif"}, "output_format: 'gif' .* png, jpeg or webp"),
        (
            "response_format",
            {"response_format": "xml"},
            "response_format: 'xml' .* b64_json or url",
        ),
        (
            "response_format",
            {"response_format": "url", "stream": True},
            "response_format: 'url' .* b64_json with stream",
        ),
        ("model", {"model": "dall-e-3"}, "model: 'dall-e-3' is not allowed: tiny"),
        ("user", {"user": "x" * 129}, "user: "),
        ("stream", {"stream": "yes"}, "stream: '\"yes\"' is not allowed: true or false"),
        ("partial_images", {"partial_images": 2}, "partial_images: 2 is not allowed: 0 without"),
        ("partial_images", {"partial_images": 4, "stream": True}, "4 is not allowed: 0 to 3"),
        ("slo_ms", {"slo_ms": 10**400}, "slo_ms: 'a number too large'"),
        ("quality", {"quality": "hd"}, "quality: 'hd' is not allowed: auto"),
        ("background", {"background": "transparent"}, "background: .* auto or opaque"),
        ("style", {"style": "vivid"}, "style: not supported: the parameters are prompt, model"),
        ("user", {"safety_identifier": "x" * 129}, "user: "),
    ],
)
def test_http_fields(field: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        parse(json.dumps({"prompt": "a star", **fields}).encode(), HTTP)
    assert (error.value.ending, error.value.param) == (Ending.INVALID, field)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"[" * 60_000, b"\xff"])
def test_http_bodies(body: bytes) -> None:
    with pytest.raises(RequestError, match="body: ") as error:
        parse(body, HTTP)
    assert error.value.ending is Ending.INVALID


def test_absent_fields_are_the_services() -> None:
    job = validate(Raw(prompt="a star"), SPEC)
    assert (job.width, job.height, job.slo_seconds, job.min_quality) == (64, 64, 2.0, 0.5)
    assert (job.guidance_scale, job.format, job.tenant) == (None, 1, "")
    assert 0 <= job.seed <= MAX_SEED
    assert job.request_id
    again = validate(Raw(prompt="a star"), SPEC)
    assert again.seed != job.seed
    assert again.request_id != job.request_id


def test_zero_is_not_absent() -> None:
    request = image_pb2.GenerateRequest(
        prompt="a star", seed=0, min_quality=0.0, guidance_scale=0.0
    )
    job = validate(raw_of(request), SPEC)
    assert (job.seed, job.min_quality, job.guidance_scale) == (0, 0.0, 0.0)
    assert raw_of(image_pb2.GenerateRequest(prompt="a star")) == Raw(prompt="a star")


def test_several_images_differ_by_seed_and_id() -> None:
    body = {
        "prompt": "a star",
        "n": 3,
        "seed": 7,
        "size": "64x64",
        "slo_ms": 1500,
        "user": "t",
        "output_format": "webp",
        "response_format": "b64_json",
        "model": "tiny",
        "min_quality": 0.9,
    }
    jobs = parse(json.dumps(body).encode(), HTTP).jobs
    assert [j.seed for j in jobs] == [7, 8, 9]
    assert len({j.request_id for j in jobs}) == 3
    assert {(j.slo_seconds, j.tenant, j.format, j.min_quality) for j in jobs} == {
        (1.5, "t", 3, 0.9)
    }


def test_null_and_auto_are_absent() -> None:
    body = b'{"prompt": "a star", "seed": null, "n": null, "size": "auto"}'
    (job,) = parse(body, HTTP).jobs
    assert (job.width, job.height) == (64, 64)
