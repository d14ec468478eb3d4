"""One request through the router: what is looked up, chosen, sent, kept, told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from router_kit import LADDER, Clock, Events, ScriptedPool, failing, job, router, service

from gesso.plan import Plan
from gesso.rpc.v1 import worker_pb2
from gesso.vectors import unpacked
from gesso_router.core import MOST_FAILURES
from gesso_router.errors import Ending, RequestError

# Of which an idle fleet is charged a tenth.
PRICED = Plan(1, 0.0, (), 20.0, "Test", "")
NEAR = ("e1", "b", 0.97, LADDER[1:])


def match(*fields: Any) -> Any:
    from gesso_router.routing.quality import Match

    return Match(*(fields or NEAR))


async def test_a_hit_resumes_where_the_latents_lie() -> None:
    pool, spec = ScriptedPool(matches=[match()]), service()
    made = router(pool, Clock(), spec)
    made.plan = PRICED
    events = Events()
    image = await made.generate(job(spec, seed=5, tenant="t1"), events)
    worker, request = pool.sent[0]
    assert (worker, request.skipped_steps, request.source.entry_id) == ("b", 25, "e1")
    assert (request.source.worker, request.source.address) == ("b", "")
    assert unpacked(request.embedding).tolist() == [1.0, 0.0]
    assert (request.tenant, pool.lookups) == ("t1", ["t1"])
    assert not request.keep_latents
    assert (image.skipped_steps, image.similarity, image.seed) == (25, 0.97, 5)
    assert image.predicted_quality == pytest.approx(0.96)
    assert (image.worker, image.attempts) == ("b", 1)
    assert events.kinds == ["queued", "started", "progress"]
    assert made.ledger.cache_hits == 1


async def test_latents_of_another_worker_are_fetched_by_address() -> None:
    pool, spec = ScriptedPool(matches=[match()]), service()
    made = router(pool, Clock(), spec)
    made.plan = PRICED
    for i in range(4):
        made.fleet.sent("b", f"other-{i}", 50, 100.0)
    await made.generate(job(spec), Events())
    worker, request = pool.sent[0]
    assert (worker, request.source.worker, request.source.address) == ("a", "b", "b:1")


async def test_a_miss_is_generated_in_full_and_kept() -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec)
    made.plan = PRICED
    image = await made.generate(job(spec), Events())
    _, request = pool.sent[0]
    assert (request.skipped_steps, request.keep_latents) == (0, True)
    assert not request.HasField("source")
    assert (image.similarity, image.predicted_quality) == (0.0, 1.0)
    assert made.ledger.classes["miss"].arrivals == 1


@pytest.mark.parametrize(
    "fields", [{"negative_prompt": "blurry"}, {"guidance_scale": 7.0}], ids=["negative", "guidance"]
)
async def test_runs_unlike_the_services_neither_use_nor_fill_the_cache(fields: Any) -> None:
    pool, spec = ScriptedPool(matches=[match()]), service()
    made = router(pool, Clock(), spec)
    made.plan = PRICED
    await made.generate(job(spec, **fields), Events())
    _, request = pool.sent[0]
    assert (request.skipped_steps, list(request.embedding), request.keep_latents) == (0, [], False)
    assert pool.lookups == []


async def test_a_shared_cache_knows_no_tenants() -> None:
    pool, spec = ScriptedPool(), service(isolation="Shared")
    await router(pool, Clock(), spec).generate(job(spec, tenant="t1"), Events())
    assert (pool.lookups, pool.sent[0][1].tenant) == ([""], "")


async def test_without_an_embedding_the_prompt_is_served_in_full() -> None:
    pool, spec = ScriptedPool(matches=[match()]), service()
    made = router(pool, Clock(), spec)
    made.plan = PRICED
    await made.generate(job(spec, "cannot be embedded"), Events())
    assert (pool.sent[0][1].skipped_steps, pool.sent[0][1].keep_latents) == (0, False)


async def test_the_k_that_was_used_is_what_is_told() -> None:
    pool, spec = ScriptedPool(matches=[match()]), service()
    made = router(pool, Clock(), spec)
    made.plan = PRICED

    async def evicted(request: worker_pb2.WorkerGenerateRequest) -> int:
        return 10

    pool.scripts["a red star"] = [evicted]
    image = await made.generate(job(spec), Events())
    assert image.skipped_steps == 10
    assert image.predicted_quality == pytest.approx(0.99, abs=0.02)
    assert made.ledger.served_by_level[10] == 1


async def test_a_retry_goes_elsewhere_without_the_lost_latents() -> None:
    pool, spec = ScriptedPool(matches=[match()]), service()
    made = router(pool, Clock(), spec)
    made.plan = PRICED
    pool.scripts["a red star"] = [failing()]
    events = Events()
    image = await made.generate(job(spec), events)
    assert [(w, r.skipped_steps) for w, r in pool.sent] == [("b", 25), ("a", 0)]
    assert (image.worker, image.attempts) == ("a", 2)
    assert events.kinds == ["queued", "queued", "started", "progress"]
    first, second = (r.request_id for _, r in pool.sent)
    assert first != second


async def test_what_no_worker_serves_is_unavailable_and_names_them() -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec)
    pool.scripts["a red star"] = [failing(), failing()]
    with pytest.raises(RequestError, match=r"tried a, b|tried b, a") as error:
        await made.generate(job(spec), Events())
    assert error.value.ending is Ending.UNAVAILABLE


async def test_workers_that_do_not_even_begin_are_passed_by() -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec, workers=("a", "b", "c", "d"))
    pool.scripts["a red star"] = [failing(), failing(), failing()]
    image = await made.generate(job(spec), Events())
    assert (len({w for w, _ in pool.sent}), image.attempts) == (4, 4)
    assert made.ledger.retried == 3


async def test_a_request_that_no_worker_can_begin_does_not_go_round_the_whole_fleet() -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec, workers=tuple("abcdefgh"))
    pool.scripts["a red star"] = [failing()] * 8
    with pytest.raises(RequestError) as error:
        await made.generate(job(spec), Events())
    assert (error.value.reason, len(pool.sent)) == ("worker-failed", MOST_FAILURES)


async def test_what_was_begun_twice_is_not_begun_again() -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec, workers=("a", "b", "c", "d"))
    pool.breaks = 2
    with pytest.raises(RequestError) as error:
        await made.generate(job(spec), Events())
    assert (error.value.reason, len(pool.sent)) == ("worker-failed", 2)


@pytest.mark.parametrize(
    ("busy", "fields", "remaining", "told"),
    [
        (0, {}, 0.1, 0),
        (0, {"slo_seconds": 0.1}, None, 0),
        (40, {}, None, 1),
        # A client's timeout of the service's deadline, on arrival.
        (40, {}, 1.95, 1),
    ],
)
async def test_only_a_usual_deadline_that_cannot_be_made_is_an_overload(
    busy: int, fields: dict[str, Any], remaining: float | None, told: int
) -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec)
    seen: list[int] = []
    made.sharing.overloaded = lambda opened, now_s: seen.append(opened)  # type: ignore[method-assign]
    for i in range(busy):
        for worker in ("a", "b"):
            made.fleet.sent(worker, f"{worker}{i}", 50, 100.0)
    with pytest.raises(RequestError, match="deadline"):
        await made.generate(job(spec, **fields), Events(), time_remaining=remaining)
    assert len(seen) == told


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("draining", "shutting down"),
        ("loading", "embedding model is loading"),
        ("no-plan", "no plan"),
        ("no-worker", "none of 2 workers is ready"),
    ],
)
async def test_a_router_that_cannot_serve_says_why(state: str, message: str) -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec, workers=() if state == "no-plan" else ("a", "b"))
    if state == "draining":
        made.draining = True
    elif state == "loading":
        made.embedder = None
    elif state == "no-worker":
        made.fleet.lost("a", 101.0)
        made.fleet.lost("b", 101.0)
    with pytest.raises(RequestError, match=message) as error:
        await made.generate(job(spec), Events())
    assert error.value.ending is Ending.UNAVAILABLE
    assert not made.ready


async def test_the_clients_own_deadline_binds() -> None:
    pool, spec = ScriptedPool(), service()
    with pytest.raises(RequestError) as error:
        await router(pool, Clock(), spec).generate(job(spec), Events(), time_remaining=0.1)
    assert (error.value.ending, error.value.reason) == (Ending.SHED, "deadline")
    assert error.value.retry_after_seconds is not None


async def test_decisions_made_at_once_see_each_other() -> None:
    pool, spec = ScriptedPool(), service()
    made = router(pool, Clock(), spec)
    await asyncio.gather(*(made.generate(job(spec, f"prompt {i}"), Events()) for i in range(8)))
    workers = [w for w, _ in pool.sent]
    assert (workers.count("a"), workers.count("b")) == (4, 4)


async def test_clipper_neither_embeds_nor_skips() -> None:
    pool, spec = ScriptedPool(matches=[match()]), service("ClipperHA")
    made = router(pool, Clock(), spec)
    made.embedder = None
    made.plan = replace(PRICED, price=90.0)
    events = Events()
    image = await made.generate(job(spec), events)
    _, request = pool.sent[0]
    assert (request.skipped_steps, list(request.embedding), pool.lookups) == (0, [], [])
    assert image.skipped_steps == 0
    assert events.kinds == ["queued", "started", "progress"]
