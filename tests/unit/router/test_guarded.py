"""A guarded router, within this process: what needs a key, who gets a share, what is told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.routing import APIRoute
from router_kit import Clock, ScriptedPool, job, router, service

from gesso.logs import Formatter
from gesso.rpc.v1 import image_pb2, worker_pb2
from gesso_router.access.callers import Callers
from gesso_router.console.pages import pages
from gesso_router.console.watch import Watch
from gesso_router.core import Router
from gesso_router.errors import RequestError
from gesso_router.flags import StartError, parse_flags
from gesso_router.http_api import create_app
from gesso_router.idempotency import Idempotent
from gesso_router.images_api import ImagesApi, kept_bytes

KEY = "a-key-of-16-or-so"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def pool() -> ScriptedPool:
    return ScriptedPool()


@pytest.fixture
def made(pool: ScriptedPool) -> Router:
    return router(pool, Clock(), service(max_queue=8))


@pytest.fixture
async def client(made: Router, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "keys.yaml").write_text(f"keys: [{{name: a, tenant: team-a, key: {KEY}}}]")
    app = create_app(made, pages(Watch(made, "Private")), callers=Callers(tmp_path / "keys.yaml"))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "open_to_all"),
    [
        ("POST", "/v1/images/generations", False),
        ("GET", "/v1/models", False),
        ("GET", "/v1/models/tiny", False),
        ("GET", "/", False),
        ("GET", "/console/state", False),
        ("GET", "/console/assets/console.js", False),
        ("POST", "/console/generate", False),
        ("GET", "/console/images/x/1", False),
        ("GET", "/healthz", True),
        ("GET", "/readyz", True),
        ("GET", "/metrics", True),
    ],
)
async def test_every_path_but_health_metrics_and_urls_needs_a_key(
    client: httpx.AsyncClient, method: str, path: str, open_to_all: bool
) -> None:
    answer = await client.request(
        method, path, json={"prompt": "a star"} if method == "POST" else None
    )
    assert (answer.status_code != 401) == open_to_all
    if not open_to_all:
        assert answer.json()["error"]["code"] == "missing_api_key"
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        allowed = await client.request(
            method,
            path,
            json={"prompt": "a star"} if method == "POST" else None,
            headers={"Authorization": f"Bearer {KEY}"},
        )
        assert allowed.status_code in ((404,) if path == "/console/images/x/1" else (200,))


async def test_every_route_of_the_api_and_the_console_needs_a_key(
    client: httpx.AsyncClient, made: Router
) -> None:
    api = ImagesApi(made, Idempotent(kept_bytes))
    routes = [*api.guarded().routes, *pages(Watch(made, "Full")).routes]
    assert len(routes) >= 8
    for route in routes:
        assert isinstance(route, APIRoute)
        (method,) = route.methods - {"HEAD"}
        path = route.path.replace("{name:path}", "x").replace("{name}", "x")
        path = path.replace("{instance}", "x").replace("{number}", "1")
        answer = await client.request(method, path)
        assert answer.status_code == 401, route.path
    assert [r.path for r in api.public().routes] == ["/v1/images/files/{name}"]


async def test_the_consoles_images_belong_to_the_keys_tenant(
    client: httpx.AsyncClient, pool: ScriptedPool
) -> None:
    body = {"prompt": "a star", "user": "team-b"}
    answer = await client.post("/console/generate", json=body, auth=("anything", KEY))
    assert answer.status_code == 200
    assert [request.tenant for _, request in pool.sent] == ["team-a/team-b"]


KEYS = """
keys:
- {name: alice, tenant: team-a, key: alice-has-this-key}
- {name: adam, tenant: team-a, key: adam-has-this-key}
- {name: bob, tenant: team-b, key: bob-has-another-key}
"""


async def test_the_gallery_shows_each_tenant_its_own_images(made: Router, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(KEYS)
    watch = Watch(made, "Full")
    app = create_app(made, pages(watch), callers=Callers(tmp_path / "keys.yaml"))
    alice, adam, bob = (
        {"Authorization": f"Bearer {key}"}
        for key in ("alice-has-this-key", "adam-has-this-key", "bob-has-another-key")
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as http:

        async def make(who: dict[str, str], prompt: str, path: str) -> None:
            body = {"prompt": prompt, "user": "team-b"}
            assert (await http.post(path, json=body, headers=who)).status_code == 200

        async def shown(who: dict[str, str]) -> dict[int, str]:
            state = (await http.get("/console/state", headers=who)).json()
            assert state["gallery"] is True
            return {p["number"]: p["prompt"] for p in state["pictures"]}

        await make(alice, "alice's star", "/v1/images/generations")
        await make(bob, "bob's ring", "/console/generate")
        assert await shown(alice) == await shown(adam) == {1: "alice's star"}
        assert await shown(bob) == {2: "bob's ring"}
        for who, own, other in ((adam, 1, 2), (bob, 2, 1)):
            images = f"/console/images/{watch.instance}"
            assert (await http.get(f"{images}/{own}", headers=who)).content == b"image"
            hidden = await http.get(f"{images}/{other}", headers=who)
            never = await http.get(f"{images}/77", headers=who)
            assert hidden.status_code == never.status_code == 404
            assert hidden.text == never.text.replace("77", str(other))


async def test_an_unforeseen_error_tells_nothing(
    client: httpx.AsyncClient, made: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> Any:
        raise RuntimeError("a secret star")

    monkeypatch.setattr(made, "generate", fails)
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = await client.post("/v1/images/generations", json={"prompt": "a"}, headers=headers)
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["read", "asked", "begun"])
async def test_an_unforeseen_error_is_logged_without_the_prompt(
    client: httpx.AsyncClient,
    made: Router,
    pool: ScriptedPool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    when: str,
    stream: bool,
) -> None:
    said = "cannot read 'a secret star'"  # a traceback shows this line only if it raises

    async def fails(*of: Any) -> Any:
        if when == "begun":
            await of[-1](worker_pb2.WorkerEvent(started=image_pb2.Started(worker="a")))
            await asyncio.sleep(0.01)
        raise ValueError(said)

    if when == "read":
        monkeypatch.setattr("gesso_router.images_api.bounded_body", fails)
    else:
        monkeypatch.setattr(pool, "generate", fails)
    caplog.handler.setFormatter(Formatter("router", "json"))
    headers = {"Authorization": f"Bearer {KEY}"}
    asked = {"prompt": "a secret star", "stream": stream}
    answer = await client.post("/v1/images/generations", json=asked, headers=headers)
    assert made.ledger.open == 0
    assert "the request failed" in caplog.text
    assert "in fails" in caplog.text  # where it was
    assert "secret" not in caplog.text + answer.text
    if stream and when == "begun":
        assert answer.status_code == 200
        (event,) = answer.text.strip().split("\n\n")
        assert event.startswith("event: error\ndata: ")
        assert json.loads(event.partition("data: ")[2])["error"]["code"] == "internal"
    else:
        assert answer.status_code == 500


async def test_an_error_of_the_console_is_logged_without_the_prompt(
    made: Router,
    pool: ScriptedPool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails(*_: Any) -> Any:
        raise ValueError(said)

    said = "cannot read 'a secret star'"
    monkeypatch.setattr(pool, "generate", fails)
    caplog.handler.setFormatter(Formatter("router", "json"))
    app = create_app(made, pages(Watch(made, "Private")))
    asked = {"prompt": "a secret star"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://router"
    ) as client:
        with pytest.raises(ValueError, match="secret") as error:
            await client.post("/console/generate", json=asked)
    # The stream has begun: the server logs it, where the request was served.
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error.value)
    assert "in fails" in caplog.text
    assert "secret" not in caplog.text


async def test_a_repetition_names_the_same_url_and_stores_nothing(
    client: httpx.AsyncClient, pool: ScriptedPool
) -> None:
    async def urls(key: str) -> list[str]:
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": key}
        asked = {"prompt": "a star", "n": 2, "seed": 1, "response_format": "url"}
        answer = await client.post("/v1/images/generations", json=asked, headers=headers)
        return [d["url"] for d in answer.json()["data"]]

    first = await urls("k")
    assert len(set(first)) == 2
    assert await urls("k") == first
    assert len(pool.sent) == 2
    assert not set(first) & set(await urls("other"))
    for url in first:
        assert (await client.get(url)).content == b"image"


async def test_malformed_paths_and_queries_keep_openais_shape(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = await client.get("/console/state?seq=x", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "seq"
    answer = await client.get("/v1/images/generations", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_a_flood_of_one_tenant_leaves_the_other_its_share(pool: ScriptedPool) -> None:
    made = router(pool, Clock(), service(max_queue=8))
    held = asyncio.Event()

    async def slow(request: Any) -> int:
        await held.wait()
        return 0

    pool.scripts = {"slow": [slow] * 40}

    async def ask(owner: str) -> str:
        from dataclasses import replace

        asked = replace(job(made.service, "slow", slo_seconds=1000.0), owner=owner)

        async def emit(event: Any) -> None:
            pass

        try:
            await made.generate(asked, emit)
        except RequestError as error:
            return error.reason
        return "served"

    calm = [asyncio.create_task(ask("calm"))]
    await asyncio.sleep(0.01)
    flood = [asyncio.create_task(ask("flood")) for _ in range(20)]
    await asyncio.sleep(0.01)
    calm += [asyncio.create_task(ask("calm")) for _ in range(2)]
    await asyncio.sleep(0.01)
    held.set()
    told = await asyncio.gather(*flood)
    assert await asyncio.gather(*calm) == ["served"] * 3
    assert set(told) == {"served", "fair-share"}
    assert 4 <= told.count("served") <= 6
    assert made.ledger.open == 0


def test_keys_need_a_port_for_control() -> None:
    flags = ["--grpc", "h:1", "--http", "h:2", "--service", "s", "--state-dir", "d", "--keys", "k"]
    with pytest.raises(StartError, match="--keys: needs --control"):
        parse_flags(flags)
    assert parse_flags([*flags, "--control", "h:3"]).keys == Path("k")


def test_the_operator_has_no_way_to_read_a_secret() -> None:
    documents = yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text())
    roles = [d for d in documents if d and d["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            core = {"", "*"} & set(rule["apiGroups"])
            assert not (core and {"secrets", "*"} & set(rule["resources"])), role["metadata"]
