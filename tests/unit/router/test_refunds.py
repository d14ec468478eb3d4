"""Rates count images: what was refused costs nothing, at every front door; what was accepted does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from router_kit import Clock, ScriptedPool, failing, router

from gesso.rpc.v1 import image_pb2, image_pb2_grpc
from gesso_router.access.callers import Callers
from gesso_router.access.limits import Bucket
from gesso_router.console.pages import pages
from gesso_router.console.watch import Watch
from gesso_router.core import Router
from gesso_router.grpc_api import ImageService, add_image_service
from gesso_router.http_api import create_app
from gesso_router.idempotency import Idempotent
from gesso_router.images_api import kept_bytes

KEY = "slow-key-0123456789"
FILE = f"keys: [{{name: slow, tenant: slow, key: {KEY}, imagesPerMinute: 1, burst: 2}}]"
#: Asks for one image by way of a front door; the reason of a refusal, None with an image.
Ask = Callable[..., Awaitable[str | None]]


@pytest.fixture
def pool() -> ScriptedPool:
    return ScriptedPool()


@pytest.fixture
def made(pool: ScriptedPool) -> Router:
    return router(pool, Clock())


@pytest.fixture
def callers(tmp_path: Path) -> Callers:
    (tmp_path / "keys.yaml").write_text(FILE)
    return Callers(tmp_path / "keys.yaml", Clock())


@pytest.fixture(params=["images", "stream", "console", "grpc"])
async def ask(request: Any, made: Router, callers: Callers) -> AsyncIterator[Ask]:
    results = Idempotent(kept_bytes)
    app = create_app(made, pages(Watch(made, "Off")), callers=callers, results=results)
    server = grpc.aio.server()
    add_image_service(ImageService(made, callers, results), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = httpx.ASGITransport(app)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://router") as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):

        async def by_http(path: str, body: dict[str, Any], key: str | None) -> str | None:
            headers = {"Authorization": f"Bearer {KEY}"}
            if key is not None:
                headers["Idempotency-Key"] = key
            answer = await http.post(path, json=body, headers=headers)
            if answer.status_code != 200:
                return str(answer.json()["error"]["code"])
            told = answer.text.partition("event: error\ndata: ")[2]
            return str(json.loads(told)["code"]) if told else None

        async def by_grpc(prompt: str, key: str | None) -> str | None:
            metadata = [("authorization", f"Bearer {KEY}")]
            if key is not None:
                metadata.append(("idempotency-key", key))
            asked = image_pb2.GenerateRequest(prompt=prompt)
            call = image_pb2_grpc.ImageServiceStub(channel).Generate(asked, metadata=metadata)
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                return str(dict(error.trailing_metadata() or ())["reason"])
            return None

        async def by(prompt: str, key: str | None = None) -> str | None:
            images = "/v1/images/generations"
            match request.param:
                case "images":
                    return await by_http(images, {"prompt": prompt}, key)
                case "stream":
                    return await by_http(images, {"prompt": prompt, "stream": True}, key)
                case "console":
                    return await by_http("/console/generate", {"prompt": prompt}, key)
            return await by_grpc(prompt, key)

        yield by
    await server.stop(0)


async def test_what_is_refused_costs_nothing_and_images_do(
    ask: Ask, made: Router, pool: ScriptedPool
) -> None:
    made.draining = True
    assert [await ask("a star") for _ in range(3)] == ["not-ready"] * 3
    made.draining = False
    pool.scripts["a ring"] = [failing(retryable=False)] * 3
    assert [await ask("a ring") for _ in range(3)] == ["worker-failed"] * 3
    limited = "rate_limit_exceeded"
    assert [await ask("a star") for _ in range(3)] == [None, None, limited]


async def test_what_was_accepted_and_came_too_late_costs_as_an_image_does(
    ask: Ask, pool: ScriptedPool
) -> None:
    pool.scripts["a star"] = [failing(timed_out=True)] * 3
    found = [await ask("a star") for _ in range(3)]
    assert found == ["deadline", "deadline", "rate_limit_exceeded"]


@pytest.mark.parametrize("ask", ["images", "stream", "grpc"], indirect=True)
async def test_who_repeats_with_a_key_pays_once_and_only_for_an_image(
    ask: Ask, made: Router
) -> None:
    made.draining = True
    assert [await ask("a star", "k") for _ in range(3)] == ["not-ready"] * 3
    made.draining = False
    assert [await ask("a star", "k") for _ in range(3)] == [None] * 3
    found = [await ask("a star") for _ in range(2)]
    assert found == [None, "rate_limit_exceeded"]


def test_a_bucket_is_never_more_than_full() -> None:
    bucket, _ = Bucket.full(1.0, 2.0, 0.0).take(1, 0.0)
    assert bucket.give_back(1).left == 2.0
    assert bucket.give_back(5).left == 2.0
