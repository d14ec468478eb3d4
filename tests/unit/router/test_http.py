"""OpenAI's shape over ASGI: answers, headers, errors; no sockets."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import httpx
import pytest
from router_kit import Clock, ScriptedPool, failing, router, service

from gesso_router.core import Router
from gesso_router.http_api import create_app
from gesso_router.validation import check_request_id

PATH = "/v1/images/generations"


@pytest.fixture
def pool() -> ScriptedPool:
    return ScriptedPool()


@pytest.fixture
def made(pool: ScriptedPool) -> Router:
    return router(pool, Clock(), service())


@pytest.fixture
async def client(made: Router) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(made))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        yield client


async def test_images_come_in_openais_shape(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"prompt": "a star", "n": 2, "seed": 3})
    assert answer.status_code == 200
    body = answer.json()
    assert [base64.b64decode(d["b64_json"]) for d in body["data"]] == [b"image", b"image"]
    assert (body["output_format"], body["size"]) == ("png", "64x64")
    assert answer.headers["X-Gesso-Skipped-Steps"] == "0, 0"
    assert answer.headers["X-Gesso-Similarity"] == "0.0000, 0.0000"
    assert set(answer.headers["X-Gesso-Worker"].split(", ")) == {"a", "b"}
    assert answer.headers["X-Gesso-Queue-Seconds"] == "0.000, 0.000"
    assert answer.headers["X-Gesso-Seed"] == "3, 4"
    first, second = answer.headers["X-Gesso-Request-Id"].split(", ")
    assert (first.removesuffix("-0"), first[-2:]) == (second.removesuffix("-1"), "-0")


async def test_errors_come_in_openais_shape(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"prompt": "", "n": 2})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "message": "prompt: empty is not allowed: 1 to 4096 bytes of UTF-8",
            "type": "invalid_request_error",
            "param": "prompt",
            "code": "invalid_value",
        }
    }


async def test_half_a_surrogate_pair_is_refused_by_name(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, content=b'{"prompt": "a", "x\\ud800": 1}')
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x\\ud800")
    assert answer.json()["error"]["message"].startswith("x\\ud800: not supported: ")


@pytest.mark.parametrize("length", [126, 127, 128])
async def test_ids_of_images_are_distinct_and_can_be_ids(
    client: httpx.AsyncClient, length: int
) -> None:
    ids: list[str] = []
    for last in "ab":
        headers = {"x-request-id": "r" * (length - 1) + last}
        answer = await client.post(PATH, json={"prompt": "a star", "n": 10}, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == headers["x-request-id"]
        ids += [d["gesso"]["request_id"] for d in answer.json()["data"]]
    assert len(set(ids)) == 20
    for name in ids:
        check_request_id("request_ids", name)


async def test_what_cannot_make_it_is_429_with_retry_after(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json={"prompt": "a star", "slo_ms": 5})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["error"]["code"] == "deadline"


async def test_failed_workers_are_503_and_the_given_up_504(
    client: httpx.AsyncClient, pool: ScriptedPool
) -> None:
    pool.scripts["a star"] = [failing(), failing(), failing(timed_out=True)]
    answer = await client.post(PATH, json={"prompt": "a star"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "worker-failed")
    answer = await client.post(PATH, json={"prompt": "a star"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")


async def test_one_image_that_fails_fails_the_request(
    client: httpx.AsyncClient, pool: ScriptedPool, made: Router
) -> None:
    pool.scripts["a star"] = [failing(retryable=False)]
    assert (await client.post(PATH, json={"prompt": "a star", "n": 4})).status_code == 503
    assert made.ledger.open == 0


async def test_a_large_body_is_refused_unread(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, content=b"x" * 70_000)
    assert answer.status_code == 400
    assert "65536 bytes" in answer.json()["error"]["message"]


async def test_unknown_paths_and_methods_keep_the_shape(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/chat")).json()["error"]["type"] == "invalid_request_error"
    answer = await client.get(PATH)
    assert (answer.status_code, answer.json()["error"]["message"]) == (405, "Method Not Allowed")


async def test_models_lists_the_service(client: httpx.AsyncClient) -> None:
    assert [m["id"] for m in (await client.get("/v1/models")).json()["data"]] == ["tiny"]


async def test_health_is_alive_and_readiness_tells_why_not(
    client: httpx.AsyncClient, made: Router
) -> None:
    assert (await client.get("/readyz")).status_code == 200
    made.draining = True
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: the router is shutting down\n")
    assert (await client.get("/healthz")).status_code == 200


async def test_metrics_have_the_routers_prefix_and_no_prompts(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json={"prompt": "a secret star", "user": "somebody"})
    text = (await client.get("/metrics")).text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert names
    assert all(n.startswith("gesso_router_") for n in names)
    assert 'gesso_router_requests_total{outcome="served_in_slo"} 1.0' in text
    assert 'gesso_router_worker_requests{state="active",worker="a"} 0.0' in text
    assert 'gesso_router_worker_barred{worker="a"} 0.0' in text
    assert "star" not in text
    assert "somebody" not in text
