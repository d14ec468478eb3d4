"""The console without a browser: gallery, state, and its stream of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from router_kit import PROFILE, Clock, Events, ScriptedPool, failing, job, router, service

from gesso.plan import LevelPlan, Plan
from gesso.rpc.v1 import image_pb2
from gesso_router.console.pages import _told, pages
from gesso_router.console.watch import Watch
from gesso_router.core import Router
from gesso_router.fleet import WorkerReport
from gesso_router.http_api import create_app
from gesso_router.routing.quality import Match

MATCH = Match("entry", "b", 0.95, (5, 10), np.array([1.0, 0.0], dtype=np.float32))


@pytest.fixture
def pool() -> ScriptedPool:
    return ScriptedPool(matches=[MATCH])


@pytest.fixture
def made(pool: ScriptedPool) -> Router:
    return router(pool, Clock(), service())


@pytest.fixture
def watch(made: Router) -> Watch:
    return Watch(made, "Full", clock=Clock(), wall_clock=lambda: 1000.0)


@pytest.fixture
async def client(made: Router, watch: Watch) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(made, pages(watch)))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        yield client


def events_of(body: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in body.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def ask(client: httpx.AsyncClient, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    answer = await client.post("/console/generate", json=body)
    assert answer.status_code == 200, answer.text
    return events_of(answer.text)


async def test_a_prompt_streams_its_events_and_hangs_in_the_gallery(
    client: httpx.AsyncClient,
) -> None:
    told = await ask(client, prompt="a red star", seed=7, skipped_steps=10)
    assert [name for name, _ in told] == ["queued", "started", "progress", "image"]
    image = told[-1][1]
    assert (image["b64"], image["skipped_steps"], image["seed"]) == ("aW1hZ2U=", 10, "7")
    state = (await client.get("/console/state")).json()
    (label,) = state["pictures"]
    assert (label["prompt"], label["skipped_steps"]) == ("a red star", 10)
    assert label["source"]["worker"] == "b"
    shown = await client.get(f"/console/images/{state['instance']}/{label['number']}")
    assert (shown.content, shown.headers["content-type"]) == (b"image", "image/png")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert (await client.get(f"/console/images/{state['instance']}/99")).status_code == 404


async def test_an_image_of_another_instance_is_none_of_this_ones(
    client: httpx.AsyncClient, made: Router, watch: Watch
) -> None:
    watch.read()
    await ask(client, prompt="a red star")
    before = f"/console/images/{watch.instance}/1"
    shown = await client.get(before)
    assert shown.status_code == 200
    # A browser keeps it for whoever asked, and its name is never that of another image.
    assert "immutable" in shown.headers["cache-control"]
    assert shown.headers["vary"] == "Authorization"
    after = Watch(made, "Full", clock=Clock(), wall_clock=lambda: 1000.0)
    assert after.instance != watch.instance
    transport = httpx.ASGITransport(create_app(made, pages(after)))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as again:
        after.read()
        await ask(again, prompt="a blue ring")
        assert (await again.get(before)).status_code == 404
        query = f"/console/state?seq=1&picture=1&instance={watch.instance}"
        state = (await again.get(query)).json()
        assert [p["seq"] for p in state["points"]] == [1]
        assert [p["prompt"] for p in state["pictures"]] == ["a blue ring"]
        query = f"/console/state?seq=1&picture=1&instance={state['instance']}"
        state = (await again.get(query)).json()
        assert (state["points"], state["pictures"]) == ([], [])


@pytest.mark.parametrize("seed", [2**63 - 1, str(2**63 - 1), "007", 0])
async def test_a_seed_comes_back_as_it_was_sent(client: httpx.AsyncClient, seed: int | str) -> None:
    told = await ask(client, prompt="a red star", seed=seed)
    assert told[-1][1]["seed"] == str(int(seed))


async def test_previews_are_asked_for_and_passed_on(
    client: httpx.AsyncClient, pool: ScriptedPool, made: Router
) -> None:
    told = await ask(client, prompt="a red star")
    assert [r.preview_steps for _, r in pool.sent] == [5]
    assert "preview" not in told[-2][1]
    await made.generate(job(made.service), Events())
    assert pool.sent[-1][1].preview_steps == 0, "nobody else has to pay for them"
    seen = image_pb2.GenerateEvent(
        progress=image_pb2.Progress(step=5, steps=50, preview=b"small jpeg")
    )
    ((name, data),) = events_of(_told(seen) or "")
    assert (name, data["step"], data["preview"]) == ("progress", 5, "c21hbGwganBlZw==")


@pytest.mark.parametrize("k", [0, 5, 10])
async def test_a_pinned_request_is_served_at_its_k_and_leaves_nothing(
    client: httpx.AsyncClient, pool: ScriptedPool, k: int
) -> None:
    answer = await client.post("/v1/images/generations", json={"prompt": "a", "skipped_steps": k})
    assert answer.headers["X-Gesso-Skipped-Steps"] == str(k)
    assert [r.keep_latents for _, r in pool.sent] == [False]


async def test_a_k_without_a_latent_is_refused_and_is_neither_a_miss_nor_load(
    client: httpx.AsyncClient, made: Router
) -> None:
    told = await ask(client, prompt="a red star", skipped_steps=25)
    assert told[-1][0] == "error"
    assert told[-1][1]["code"] == "no-latent"
    assert {o.value: n for o, n in made.ledger.ended.items() if n} == {"invalid": 1}
    assert sum(tally.arrivals for tally in made.ledger.classes.values()) == 0
    assert sum(made.ledger.optimal_by_level.values()) == 0
    answer = await client.post("/v1/images/generations", json={"prompt": "a", "skipped_steps": 25})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "skipped_steps")


async def test_without_a_console_no_k_can_be_asked_for(pool: ScriptedPool) -> None:
    transport = httpx.ASGITransport(create_app(router(pool, Clock(), service())))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        body = {"prompt": "a", "skipped_steps": 5}
        answer = await client.post("/v1/images/generations", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "skipped_steps")
        assert (await client.get("/")).status_code == 404
        assert (await client.get("/console/state")).status_code == 404


async def test_private_keeps_no_image(pool: ScriptedPool) -> None:
    made = router(pool, Clock(), service())
    watch = Watch(made, "Private")
    transport = httpx.ASGITransport(create_app(made, pages(watch)))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        assert (await ask(client, prompt="a red star"))[-1][0] == "image"
        state = await client.get("/console/state")
        assert (state.json()["gallery"], state.json()["pictures"]) == (False, [])
        assert "a red star" not in state.text
        assert (await client.get(f"/console/images/{watch.instance}/1")).status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": ""}, "prompt: empty is not allowed"),
        ({"prompt": "a", "skipped_steps": 7}, "skipped_steps: 7 is not allowed: one of 0, 5, 10"),
        ({"prompt": "a", "skipped_steps": "5"}, "skipped_steps: '5' is not allowed"),
        ({"prompt": "a", "n": 2}, "n: 2 is not allowed: Extra inputs are not permitted"),
        ({}, "prompt: '' is not allowed: Field required"),
        ({"prompt": "a", "slo_ms": -1}, "slo_ms: '-1' is not allowed"),
        *(
            ({"prompt": "a", "seed": seed}, f"seed: {seed!r} is not allowed: 0 to {2**63 - 1}")
            for seed in ("-1", "1e3", "\u0661", "9" * 20, " 1", "", True, 1.0, 2**63, -1)
        ),
        ({"prompt": "a", "seed": str(2**63)}, f"seed: {2**63} is not allowed: 0 to {2**63 - 1}"),
        ({"prompt": "a" * 40000}, "body: more than 32768 bytes is not allowed"),
    ],
)
async def test_bad_wishes_name_field_value_and_what_is_allowed(
    client: httpx.AsyncClient, body: dict[str, Any], message: str
) -> None:
    answer = await client.post("/console/generate", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


async def test_a_failed_request_ends_its_stream_with_an_error(
    client: httpx.AsyncClient, pool: ScriptedPool
) -> None:
    pool.scripts["a star"] = [failing(), failing()]
    told = await ask(client, prompt="a star")
    assert told[-1][0] == "error"
    assert told[-1][1]["code"] == "worker-failed"


async def test_who_stops_reading_cancels_the_work(made: Router, pool: ScriptedPool) -> None:
    from gesso_router.console.pages import events, wished

    async def endless(request: Any) -> int:
        await asyncio.Event().wait()
        return 0

    pool.scripts["a star"] = [endless]
    watching = events(made, wished(b'{"prompt": "a star"}', made))
    assert "queued" in await anext(watching)
    await watching.aclose()
    assert {o.value: n for o, n in made.ledger.ended.items() if n} == {"cancelled": 1}


@pytest.mark.parametrize("told", [("a", "near"), ("b", "entry"), ("b", "unknown"), None, ()])
async def test_a_label_names_the_latents_that_the_worker_used(
    client: httpx.AsyncClient, pool: ScriptedPool, told: tuple[str, str] | tuple[()] | None
) -> None:
    """`None`: an older worker, which does not tell; `()`: at K = 0 there are none."""
    near = np.array([0.8, 0.6], dtype=np.float32)
    pool.matches = [MATCH, Match("near", "a", 0.94, (5, 10), near)]
    pool.used = told or None
    if told == ():

        async def gone(request: Any) -> int:
            return 0

        pool.scripts["a red star"] = [gone]
    await ask(client, prompt="a red star", skipped_steps=10)
    (label,) = (await client.get("/console/state")).json()["pictures"]
    source = label["source"]
    if told == ():
        assert source is None
    else:
        assert (source["worker"], source["entry"]) == (told or ("b", "entry"))
        similarity = {"near": 0.94, "entry": 0.95, "unknown": None}
        assert source["similarity"] == similarity[source["entry"]]


async def test_those_that_are_denoised_do_not_wait(made: Router, watch: Watch) -> None:
    """Four are open: one is denoised, one queued at its worker, two have none yet; another router's waits."""
    for i in range(4):
        made.ledger.arrive(100.0, 2.0)
        if i < 2:
            flight = made.fleet.sent("a", f"r{i}", 50, 100.0)
            if not i:
                made.fleet.started("a", flight, 50, 100.0)
    report = WorkerReport(
        ready=True, draining=False, profile=PROFILE, active=(("r0", 50),), queued=(("else", 50),)
    )
    made.fleet.reported("a", report, 100.0)
    watch.read()
    (told,) = watch.history.since(0)
    assert (told["open"], told["waiting"]) == (4, 4)


async def test_state_tells_counters_workers_and_the_plan_in_words(
    client: httpx.AsyncClient, made: Router, watch: Watch
) -> None:
    made.plan = Plan(3, 99.0, (LevelPlan(0, 1, 0.5), LevelPlan(10, 1, 0.5)), 0.1, "Load", "why")
    watch.read()
    await ask(client, prompt="a red star")
    watch.read()
    state = (await client.get("/console/state?seq=1")).json()
    assert [p["seq"] for p in state["points"]] == [2]
    assert sum(state["points"][0]["levels"]) == 1
    assert state["plans"] == [
        {"revision": 3, "at": 99.0, "mix": "0:1,10:1", "price": 0.1,
         "reason": "Load", "message": "why", "times": 1}
    ]  # fmt: skip
    assert [w["name"] for w in state["workers"]] == ["a", "b"]
    assert (state["service"]["ladder"], state["ready"]) == ([0, 5, 10, 15, 20, 25], True)
    assert (state["service"]["models"], state["service"]["routers"]) == ([], 1)


async def test_pages_come_with_a_strict_policy_and_name_no_other_host(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("console.css", "console.js", "charts.js", "icon.svg"):
        asset = await client.get(f"/console/assets/{name}")
        assert asset.status_code == 200
        assert f"/console/assets/{name}" in page.text
        outside = asset.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in outside
        assert "https://" not in outside
    assert " style=" not in page.text
    assert (await client.get("/console/assets/../pages.py")).status_code == 404
    assert (await client.get("/console/assets/pages.py")).status_code == 404
    wrong = await client.post(
        "/console/generate", content=b"{}", headers={"content-type": "text/plain"}
    )
    assert wrong.status_code == 415
