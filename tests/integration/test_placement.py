"""A router's look-ups on real shards over gRPC: one is asked where all know, else two."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from shard_fleet import PRINT, FleetOfShards, fleet_of, latents, unit, until

from gesso.placement import ALL_KNOW, PROBES
from gesso.rpc.v1 import router_pb2
from gesso_router import probes
from gesso_router.control import Control
from gesso_router.errors import RequestError
from gesso_router.fleet import Endpoint, Fleet
from gesso_router.plan_store import PlanStore
from gesso_router.settings import RouterSettings
from gesso_router.workers import WorkerPool
from gesso_worker.cache import announcer

NAMES = tuple(f"worker-{i}" for i in range(ALL_KNOW + 2))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "PAUSE_S", 0.01)
    monkeypatch.setattr(announcer, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(announcer, "RETRY_S", 0.05)
    # Who has anything left to tell is asked, so that nothing is missed at any time.
    monkeypatch.setattr(probes, "MOST_UNANNOUNCED", 0)


@pytest.fixture
async def fleet() -> AsyncIterator[FleetOfShards]:
    async with fleet_of(*NAMES) as made:
        yield made


@pytest.fixture
async def pool(fleet: FleetOfShards) -> AsyncIterator[WorkerPool]:
    settings = RouterSettings(stats_interval=0.05, place_timeout=0.5)
    made = WorkerPool(Fleet(50, 4, 3), settings)
    made.probes.learn(fleet.codebook)
    yield made
    await made.close()


def apply(pool: WorkerPool, fleet: FleetOfShards, revision: int) -> list[Endpoint]:
    endpoints = [Endpoint(m.name, m.address, 0) for m in fleet.members.values()]
    pool.apply(endpoints, revision)
    return endpoints


async def settled(pool: WorkerPool, fleet: FleetOfShards, endpoints: list[Endpoint]) -> None:
    """Waits until the router has told everybody, and heard that they have told each other."""
    row = unit(1)[0]
    members = fleet.members.values()
    await until(lambda: all(m.servicer.announcer is not None for m in members))
    await until(lambda: not any(m.servicer.announcer.unannounced for m in members))
    few = 1 if len(endpoints) <= ALL_KNOW else PROBES
    await until(lambda: len(pool.probes.asked(row, endpoints)) <= few)


async def found(
    pool: WorkerPool, rows: np.ndarray, made: dict[str, int], endpoints: list[Endpoint]
) -> tuple[float, float]:
    """Share of the rows that are found first, and the shards asked for each."""
    before = pool.probed
    hits = 0
    for i, row in enumerate(rows):
        matches = await pool.lookup("t", row, endpoints, 5.0)
        assert len({(m.worker, m.entry_id) for m in matches}) == len(matches)
        hits += bool(matches) and made.get(matches[0].entry_id) == i
    return hits / len(rows), (pool.probed - before) / len(rows)


async def test_two_of_ten_shards_are_asked_and_find_what_any_of_them_holds(
    fleet: FleetOfShards, pool: WorkerPool
) -> None:
    rows = unit(160)
    made = {}
    for i, row in enumerate(rows):
        member = fleet.members[NAMES[i % len(NAMES)]]
        made[str(member.shard.insert("t", PRINT, row, latents(i)))] = i
    endpoints = apply(pool, fleet, 1)
    await until(lambda: len(pool._fleet.reachable) == len(NAMES))
    # Nobody has been told yet: all are asked, and nothing is missed.
    assert await found(pool, rows[:8], made, endpoints) == (1.0, pytest.approx(9, abs=7))
    await settled(pool, fleet, endpoints)
    assert await found(pool, rows, made, endpoints) == (1.0, 2.0)
    near = rows + 0.1 * unit(160, seed=5)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    recall, asked = await found(pool, near.astype(np.float32), made, endpoints)
    assert (recall, asked) >= (0.95, 2.0)
    assert (await pool.lookup("other", rows[0], endpoints, 5.0)) == []

    # One leaves: its entries go with it, those of the others are found as before.
    await fleet.remove(NAMES[5])
    endpoints = apply(pool, fleet, 2)
    stayed = [i for i in range(160) if i % len(NAMES) != 5]
    numbers = {entry: stayed.index(i) for entry, i in made.items() if i in stayed}
    await until(lambda: len(pool._fleet.reachable) == len(NAMES) - 1)
    assert (await found(pool, rows[stayed], numbers, endpoints))[0] == 1.0
    await settled(pool, fleet, endpoints)
    assert await found(pool, rows[stayed], numbers, endpoints) == (1.0, 2.0)

    # One joins, and takes entries in.
    await fleet.add("worker-10")
    endpoints = apply(pool, fleet, 3)
    await settled(pool, fleet, endpoints)
    new = unit(1, seed=77)[0]
    entry = fleet.members["worker-10"].shard.insert("t", PRINT, new, latents(0))
    await settled(pool, fleet, endpoints)
    (match, *_) = await pool.lookup("t", new, endpoints, 5.0)
    assert (match.entry_id, match.worker) == (entry, "worker-10")
    assert await found(pool, rows[stayed], numbers, endpoints) == (1.0, 2.0)


async def test_one_is_asked_while_all_know_and_two_when_the_fleet_has_grown(
    pool: WorkerPool,
) -> None:
    async with fleet_of(*NAMES[:ALL_KNOW]) as fleet:
        pool.probes.learn(fleet.codebook)
        rows = unit(80)
        made = {}
        for i, row in enumerate(rows):
            member = fleet.members[NAMES[i % ALL_KNOW]]
            made[str(member.shard.insert("t", PRINT, row, latents(i)))] = i
        near = rows + 0.1 * unit(80, seed=5)
        near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
        endpoints = apply(pool, fleet, 1)
        await until(lambda: len(pool._fleet.reachable) == ALL_KNOW)
        await settled(pool, fleet, endpoints)
        assert await found(pool, near, made, endpoints) == (1.0, 1.0)
        for count, name in enumerate(NAMES[ALL_KNOW:], start=ALL_KNOW + 1):
            await fleet.add(name)
            endpoints = apply(pool, fleet, count)
            # Whoever has yet to learn is asked, too: nothing is missed meanwhile.
            assert (await found(pool, rows, made, endpoints))[0] == 1.0
            await settled(pool, fleet, endpoints)
            assert await found(pool, rows, made, endpoints) == (1.0, 2.0)
        for left, name in enumerate(NAMES[ALL_KNOW:], start=1):
            await fleet.remove(name)
            endpoints = apply(pool, fleet, ALL_KNOW + 2 + left)
        await settled(pool, fleet, endpoints)
        assert await found(pool, near, made, endpoints) == (1.0, 1.0)


async def test_what_a_flagged_image_left_is_gone_everywhere(
    fleet: FleetOfShards, pool: WorkerPool, tmp_path: Path
) -> None:
    rows = unit(3)
    for i, (row, origin) in enumerate(zip(rows, ("bad.1a", "bad.2b", "good.3c"), strict=True)):
        fleet.members[NAMES[i]].shard.insert("t", PRINT, row, latents(i), origin)
    endpoints = apply(pool, fleet, 1)
    await settled(pool, fleet, endpoints)
    router: Any = None
    control = Control(router, pool, PlanStore(tmp_path))
    for ids, message in (([], "request_ids: 0"), (["a", "b c"], r"request_ids\[1\]: 'b c'")):
        with pytest.raises(RequestError, match=message):
            await control.withdraw(router_pb2.WithdrawImagesRequest(request_ids=ids))
    await fleet.members[NAMES[7]].server.stop(None)
    told = await control.withdraw(router_pb2.WithdrawImagesRequest(request_ids=["bad"]))
    assert (told.latents, list(told.unreached)) == (4, [NAMES[7]])
    for row, left in zip(rows, (0, 0, 1), strict=True):
        found = [m for m in await pool.lookup("t", row, endpoints, 5.0) if m.similarity > 0.99]
        held = [m.shard.fetch("t", f.entry_id, 10) for f in found for m in fleet.members.values()]
        assert sum(h is not None for h in held) == left


async def test_a_shard_that_dies_hides_only_what_it_held(
    fleet: FleetOfShards, pool: WorkerPool
) -> None:
    rows = unit(80)
    made = {}
    for i, row in enumerate(rows):
        member = fleet.members[NAMES[i % len(NAMES)]]
        made[str(member.shard.insert("t", PRINT, row, latents(i)))] = i
    endpoints = apply(pool, fleet, 1)
    await settled(pool, fleet, endpoints)
    await fleet.members[NAMES[2]].server.stop(None)
    await until(lambda: len(pool._fleet.reachable) == len(NAMES) - 1)
    stayed = [i for i in range(80) if i % len(NAMES) != 2]
    numbers = {entry: stayed.index(i) for entry, i in made.items() if i in stayed}
    reachable = pool._fleet.reachable
    recall, asked = await found(pool, rows[stayed], numbers, reachable)
    assert recall == 1.0
    assert asked == 2.0
