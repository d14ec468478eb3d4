"""The console without a browser: history, gallery, state, and its stream of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_kit import Clock, Events, ScriptedPool, failing, job, router, service

from gesso.plan import LevelPlan, Plan
from gesso.rpc.v1 import image_pb2
from gesso_router.console.gallery import Gallery, Picture, Source
from gesso_router.console.history import History, PlanNote, Reading, point
from gesso_router.console.pages import _told, pages
from gesso_router.console.watch import Watch
from gesso_router.core import Router
from gesso_router.http_api import create_app
from gesso_router.routing.quality import Match


def reading(at: float, **fields: Any) -> Reading:
    values: dict[str, Any] = {
        **dict.fromkeys(("offered", "in_slo", "late", "shed", "failed", "cache_hits", "open"), 0),
        **dict.fromkeys(("quality_sum", "backlog_seconds", "price", "latency_p50"), 0.0),
        "latency_p95": 0.0,
        "served_by_level": (0, 0),
        "workers_ready": 2,
        "mix": {"0": 2},
    }
    return Reading(at_s=at, **(values | fields))


def test_figures_are_those_between_two_readings() -> None:
    before = reading(10.0, offered=5, in_slo=3, quality_sum=3.0, served_by_level=(3, 0))
    now = reading(
        20.0,
        offered=25,
        in_slo=11,
        late=2,
        shed=6,
        failed=1,
        cache_hits=4,
        quality_sum=12.0,
        served_by_level=(9, 4),
        open=4,
    )
    told = point(before, now)
    assert told["rate"] == 2.0
    assert (told["attainment"], told["refused"]) == (0.4706, 0.3529)
    assert told["quality"] == 0.9
    assert told["hit_rate"] == 0.4
    assert told["levels"] == [6, 4]
    assert (told["open"], told["mix"]) == (4, {"0": 2})
    idle = point(now, now)
    assert [idle[n] for n in ("rate", "attainment", "quality", "hit_rate")] == [None] * 4


@given(st.integers(0, 60), st.integers(2, 12), st.integers(0, 70))
def test_a_reader_sees_each_reading_once_while_it_is_held(n: int, held: int, seen: int) -> None:
    history = History(seconds=held, window=1)
    for i in range(n):
        history.add(reading(float(i)))
    numbers = [p["seq"] for p in history.since(seen)]
    kept = list(range(max(1, n - held + 1), n + 1))
    # A reader that has seen more than there was knew an earlier process: it is told everything.
    assert numbers == [k for k in kept if k > seen or seen > n]
    assert history.taken == n


def test_a_window_that_is_not_shorter_than_the_history_is_refused() -> None:
    with pytest.raises(ValueError, match="window: 10 is not allowed: 1 to 9"):
        History(seconds=10, window=10)


def test_plans_are_noted_once_the_newest_first_and_few() -> None:
    history = History(plans=2)
    told = ((1, "0:2"), (1, "0:2"), (2, "0:1,5:1"), (3, "5:2"), (3, "5:2"), (4, "5:2"))
    for revision, mix in told:
        history.note(PlanNote(revision, 0.0, mix, 0.0, "Load", "more comes"))
    assert [(p.revision, p.times) for p in history.plans] == [(4, 2), (2, 1)]


def picture(data: bytes = b"image", source: Source | None = None, angle: float = 0.0) -> Picture:
    vector = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    return Picture(
        "r", 1.0, "a star", data, "image/png", 10, 50, 0.9, 0.8, "a", "", 2**60, 0.1, 0.2, source, vector
    )  # fmt: skip


def test_the_gallery_is_bounded_by_count_and_bytes() -> None:
    gallery = Gallery(most=3, most_bytes=10)
    for _ in range(5):
        gallery.hang(picture(b"1234"))
    assert (len(gallery), gallery.hung) == (2, 5)
    assert [label["number"] for label in gallery.since(0)] == [5, 4]
    assert [label["number"] for label in gallery.since(4)] == [5]
    assert [label["number"] for label in gallery.since(99)] == [5, 4]
    assert gallery.picture(3) is None
    gallery.hang(picture(b"12345678901"))
    assert len(gallery) == 0


def test_a_label_names_the_picture_whose_latents_it_began_with() -> None:
    gallery = Gallery()
    gallery.hang(picture(angle=0.0))
    gallery.hang(picture(angle=1.0))
    origin = np.array([1.0, 0.0], dtype=np.float32)
    gallery.hang(picture(source=Source("b", "e", 0.8, origin), angle=0.6))
    label = gallery.label(3)
    assert label["source"] == {"worker": "b", "entry": "e", "similarity": 0.8, "picture": 1}
    assert label["seed"] == str(2**60)
    gallery.hang(replace(picture(source=Source("b", "e", 0.8, origin)), owner="another"))
    assert gallery.label(4)["source"]["picture"] is None
    assert [label["number"] for label in gallery.since(0, "another")] == [4]
    nowhere = np.array([0.0, -1.0], dtype=np.float32)
    gallery.hang(picture(source=Source("b", "e", 0.8, nowhere)))
    assert gallery.label(5)["source"]["picture"] is None


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
    shown = await client.get(f"/console/images/{label['number']}")
    assert (shown.content, shown.headers["content-type"]) == (b"image", "image/png")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert (await client.get("/console/images/99")).status_code == 404


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


async def test_a_k_without_a_latent_is_refused_and_counts_as_shed(
    client: httpx.AsyncClient, made: Router
) -> None:
    told = await ask(client, prompt="a red star", skipped_steps=25)
    assert told[-1][0] == "error"
    assert told[-1][1]["code"] == "no-latent"
    assert {o.value: n for o, n in made.ledger.ended.items() if n} == {"shed": 1}
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
        assert (await client.get("/console/images/1")).status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": ""}, "prompt: empty is not allowed"),
        ({"prompt": "a", "skipped_steps": 7}, "skipped_steps: 7 is not allowed: one of 0, 5, 10"),
        ({"prompt": "a", "skipped_steps": "5"}, "skipped_steps: '5' is not allowed"),
        ({"prompt": "a", "n": 2}, "n: 2 is not allowed: Extra inputs are not permitted"),
        ({}, "prompt: '' is not allowed: Field required"),
        ({"prompt": "a", "slo_ms": -1}, "slo_ms: '-1' is not allowed"),
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
