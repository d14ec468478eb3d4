"""Two routers share nothing: each sees the other's requests in what the workers tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from fake_worker import FakeWorker
from router_kit import PREDICTOR, Events, FixedEmbedder, job, service

from gesso_router.core import Router
from gesso_router.fleet import Endpoint, Fleet
from gesso_router.settings import RouterSettings
from gesso_router.workers import WorkerPool

SETTINGS = RouterSettings(stats_interval=0.02)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def workers() -> AsyncIterator[list[FakeWorker]]:
    ladder = (0, 5, 10, 15, 20, 25)
    made = [
        await FakeWorker(f"w{i}", steps=50, step_seconds=0.001, max_batch=1, ladder=ladder).start()
        for i in range(2)
    ]
    yield made
    for worker in made:
        await worker.stop()


@pytest.fixture
async def routers(workers: list[FakeWorker]) -> AsyncIterator[list[Router]]:
    pools, made = [], []
    for _ in range(2):
        fleet = Fleet(50, 4, 3)
        pool = WorkerPool(fleet, SETTINGS)
        router = Router(service(), PREDICTOR, fleet, pool, settings=SETTINGS, clock=time.monotonic)
        router.embedder = FixedEmbedder()
        pool.apply([Endpoint(w.name, w.address, 0) for w in workers])
        pools.append(pool)
        made.append(router)
    await until(lambda: all(len(r.fleet.usable) == 2 for r in made))
    yield made
    for pool in pools:
        await pool.close()


def load(router: Router) -> dict[str, int]:
    return {v.name: v.outstanding for v in router.fleet.views(time.monotonic())}


async def test_each_sees_the_others_requests_and_goes_where_there_is_room(
    routers: list[Router], workers: list[FakeWorker]
) -> None:
    first, second = routers
    for worker in workers:
        worker.may_start.clear()
    mine = asyncio.create_task(first.generate(job(first.service, slo_seconds=20), Events()))
    await until(lambda: sum(load(second).values()) == 1)
    assert load(first) == load(second)
    theirs = asyncio.create_task(second.generate(job(second.service, slo_seconds=20), Events()))
    await until(lambda: sum(load(first).values()) == 2)
    assert load(first) == load(second) == {"w0": 1, "w1": 1}
    for worker in workers:
        worker.may_start.set()
    assert {(await mine).worker, (await theirs).worker} == {"w0", "w1"}
    await until(lambda: load(first) == load(second) == {"w0": 0, "w1": 0})


async def test_a_worker_that_goes_loses_neither_routers_requests(
    routers: list[Router], workers: list[FakeWorker]
) -> None:
    done = asyncio.Event()

    async def send(router: Router) -> list[int]:
        attempts = []
        while not done.is_set():
            image = await router.generate(job(router.service, slo_seconds=20), Events())
            attempts.append(image.attempts)
        return attempts

    senders = [asyncio.create_task(send(r)) for r in routers for _ in range(2)]
    await until(lambda: len(workers[0].requests) > 4)
    # Requests that are on their way by now are sent on at once.
    workers[0].draining = True
    await until(lambda: all(r.fleet.usable == ["w1"] for r in routers))
    seen = len(workers[0].requests)
    await until(lambda: len(workers[1].requests) > 20)
    assert len(workers[0].requests) == seen
    done.set()
    attempts = [n for told in await asyncio.gather(*senders) for n in told]
    assert set(attempts) == {1}
    assert [r.ledger.retried for r in routers] == [0, 0]
