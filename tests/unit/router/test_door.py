"""Under overload a request is refused without being embedded or looked up, and those being read are counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from router_kit import Clock, Events, FixedEmbedder, ScriptedPool, job, router, service

from gesso_router.core import Router
from gesso_router.errors import Ending, RequestError
from gesso_router.routing.door import AT_ONCE_SECONDS


class CountingEmbedder(FixedEmbedder):
    """Waits for its turn, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = asyncio.Event()
        self.may.set()

    async def embed(self, prompt: str) -> Any:
        self.asked += 1
        await self.may.wait()
        return await super().embed(prompt)


def busy(made: Router, each: int) -> None:
    """So many requests in full on every worker."""
    for worker in ("a", "b"):
        for i in range(each):
            made.fleet.sent(worker, f"{worker}-{i}", 50, 100.0)


async def test_who_cannot_be_served_at_any_k_is_refused_unread() -> None:
    pool, spec, embedder = ScriptedPool(), service(), CountingEmbedder()
    made = router(pool, Clock(), spec)
    made.embedder = embedder
    busy(made, 60)
    with pytest.raises(RequestError) as refusal:
        await made.generate(job(spec), Events())
    assert refusal.value.ending is Ending.SHED
    assert refusal.value.retry_after_seconds is not None
    assert (embedder.asked, pool.lookups, pool.sent) == (0, [], [])
    assert made.ledger.open == 0
    # It counts as demand, of no class.
    assert made.ledger.offered == 1
    assert sum(c.arrivals for c in made.ledger.classes.values()) == 0


async def test_with_room_everybody_is_read() -> None:
    pool, spec, embedder = ScriptedPool(), service(), CountingEmbedder()
    made = router(pool, Clock(), spec)
    made.embedder = embedder
    await made.generate(job(spec), Events())
    assert (embedder.asked, len(pool.lookups)) == (1, 1)


async def test_those_being_read_take_the_room() -> None:
    pool, spec, embedder = ScriptedPool(), service(), CountingEmbedder()
    made = router(pool, Clock(), spec)
    made.embedder = embedder
    busy(made, 3)
    embedder.may.clear()
    reading = [asyncio.create_task(made.generate(job(spec), Events())) for _ in range(40)]
    await asyncio.sleep(0.05)
    refused = [t for t in reading if t.done() and isinstance(t.exception(), RequestError)]
    assert 0 < embedder.asked < 40
    assert len(refused) == 40 - embedder.asked
    embedder.may.set()
    done = await asyncio.gather(*reading, return_exceptions=True)
    assert sum(not isinstance(d, Exception) for d in done) > 0
    # All are out again: the next one finds the room that there is.
    assert made._placer.reading == 0


async def test_other_policies_have_no_door() -> None:
    pool, spec, embedder = ScriptedPool(), service("Nirvana"), CountingEmbedder()
    made = router(pool, Clock(), spec)
    made.embedder = embedder
    busy(made, 60)
    await asyncio.gather(made.generate(job(spec), Events()), return_exceptions=True)
    assert embedder.asked == 1


async def test_where_most_are_refused_nobody_waits_for_a_late_shard() -> None:
    class Late(ScriptedPool):
        def __init__(self) -> None:
            super().__init__()
            self.allowed: list[float] = []

        async def lookup(
            self, tenant: str, embedding: Any, workers: Any, timeout_seconds: float
        ) -> Any:
            self.allowed.append(timeout_seconds)
            return await super().lookup(tenant, embedding, workers, timeout_seconds)

    pool, spec = Late(), service()
    made = router(pool, Clock(), spec)
    await made.generate(job(spec), Events())
    busy(made, 60)
    for _ in range(30):
        with pytest.raises(RequestError):
            await made.generate(job(spec), Events())
    for name in ("a", "b"):
        for i in range(60):
            made.fleet.done(name, f"{name}-{i}", 100.0)
    await made.generate(job(spec), Events())
    assert pool.allowed[0] > 0.1
    assert pool.allowed[1] <= AT_ONCE_SECONDS
    for _ in range(20):
        await made.generate(job(spec), Events())
    assert pool.allowed[-1] == pool.allowed[0]


async def test_the_strict_margin_holds_while_most_are_refused_and_no_longer() -> None:
    pool, spec, clock = ScriptedPool(), service(), Clock()
    made = router(pool, clock, spec)
    made.embedder = CountingEmbedder()
    usual = made.view().margin
    busy(made, 60)
    for _ in range(20):
        with pytest.raises(RequestError):
            await made.generate(job(spec), Events())
    placer = made._placer
    assert placer.refusals.most
    placer.margins = replace(placer.margins, strict=replace(placer.margins.strict, factor=1.5))
    assert made.view().margin == 1.5
    for worker in ("a", "b"):
        for i in range(60):
            made.fleet.done(worker, f"{worker}-{i}", clock())
    for _ in range(20):
        await made.generate(job(spec), Events())
    assert not placer.refusals.most
    assert made.view().margin <= usual
