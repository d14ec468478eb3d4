"""Entries go from shard to shard: the best first, as far as there is room, under their own fingerprint."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.vectors import packed
from gesso_worker.cache.handover import BATCH_ENTRIES, deal, hand_over
from gesso_worker.cache.peers import Peers
from gesso_worker.cache.shard import Portable, Shard
from gesso_worker.serving import Store
from gesso_worker.shard_service import ShardServicer

PRINT = "weights-1"
SHAPE = (1, 4, 2, 2)
LADDER = (0, 5, 10)


def embedding(i: int) -> np.ndarray:
    return np.eye(1, 32, i, dtype=np.float32)[0]


def latents(value: float, levels: Sequence[int] = (5, 10)) -> dict[int, np.ndarray]:
    return {level: np.full(SHAPE, value + level, np.float32) for level in levels}


def filled(entries: int, capacity: int = 1 << 20) -> tuple[Shard, list[str]]:
    shard = Shard("leaving", capacity)
    ids = [shard.insert("t", PRINT, embedding(i), latents(i)) for i in range(entries)]
    return shard, [i for i in ids if i is not None]


def portable(i: int, hits: int = 0) -> Portable:
    return Portable("t", embedding(i), latents(i), {5: hits})


def test_what_saved_most_steps_comes_first_and_of_equals_the_newest() -> None:
    shard, ids = filled(4)
    for _ in range(3):
        shard.fetch("t", ids[1], 5)
    for _ in range(2):
        shard.fetch("t", ids[2], 10)
    shard.insert("t", "other weights", embedding(9), latents(9))
    assert shard.ranked(PRINT) == (ids[2], ids[1], ids[3], ids[0])


def test_an_entry_travels_with_its_uses_and_keeps_its_place() -> None:
    shard, ids = filled(2)
    shard.fetch("t", ids[0], 10)
    entry = shard.portable(ids[0])
    assert entry is not None
    assert (entry.tenant, dict(entry.hits)) == ("t", {5: 0, 10: 1})
    other = Shard("other", 1 << 20)
    assert other.store(PRINT, entry)
    mine = other.insert("t", PRINT, embedding(7), latents(7))
    assert other.ranked(PRINT)[1] == mine
    (match,) = other.lookup("t", PRINT, embedding(0))
    held = other.fetch("t", match.entry_id, 10)
    assert held is not None
    assert np.array_equal(held.latents, latents(0)[10])
    # Another tenant, or another model, has no part in it.
    assert other.lookup("u", PRINT, embedding(0)) == ()
    assert other.lookup("t", "other weights", embedding(0)) == ()
    assert other.stats().used_bytes == 2 * entry.size
    assert shard.portable("gone") is None


def test_nothing_is_evicted_for_what_comes() -> None:
    size = portable(0).size
    shard = Shard("full", size + 10)
    mine = shard.insert("t", PRINT, embedding(1), latents(1))
    assert not shard.store(PRINT, portable(0, hits=1000))
    assert shard.ranked(PRINT) == (mine,)


def test_of_a_prompt_that_is_there_only_missing_levels_are_taken() -> None:
    shard = Shard("other", 1 << 20)
    mine = shard.insert("t", PRINT, embedding(0), latents(100, (5,)))
    assert shard.store(PRINT, portable(0))
    assert mine is not None
    held = [shard.fetch("t", mine, level) for level in (5, 10)]
    assert [h.latents.flat[0] for h in held if h is not None] == [105, 10]
    assert shard.store(PRINT, portable(0))
    assert shard.stats().entries == 1


def test_targets_take_turns_as_far_as_they_have_room() -> None:
    size = portable(0).size
    entries = deque(portable(i) for i in range(6))
    free = {"a": 10 * size, "b": 2 * size, "c": 0}
    messages, skipped = deal(entries, free)
    assert {n: len(m) for n, m in messages.items()} == {"a": 4, "b": 2}
    assert (len(entries), skipped, free) == (0, 0, {"a": 6 * size, "b": 0, "c": 0})


def test_a_message_is_bounded_and_what_fits_nowhere_is_skipped() -> None:
    size = portable(0).size
    entries = deque(portable(i % 8) for i in range(BATCH_ENTRIES + 3))
    messages, skipped = deal(entries, {"a": 1 << 30})
    assert (len(messages["a"]), len(entries), skipped) == (BATCH_ENTRIES, 3, 0)
    messages, skipped = deal(entries, {"a": size - 1})
    assert (messages, len(entries), skipped) == ({}, 0, 3)
    assert deal(deque([portable(0)]), {}) == ({}, 1)


@dataclass
class Workers:
    """Shards of workers that serve in this process, by address."""

    peers: Peers
    shards: dict[str, Shard] = field(default_factory=dict)
    servers: list[Any] = field(default_factory=list)

    async def add(self, capacity: int, fingerprint: str = PRINT) -> str:
        servicer = Serves(f"worker-{len(self.servers)}")
        shard = Shard(servicer.name, capacity)
        servicer.store = Store(servicer.name, shard, self.peers, fingerprint, LADDER, SHAPE)
        server = grpc.aio.server()
        worker_pb2_grpc.add_WorkerServicer_to_server(servicer, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        self.servers.append(server)
        self.shards[address] = shard
        return address


class Serves(ShardServicer):
    """A worker without an engine."""

    async def Stats(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert self.store is not None
        stats = self.store.shard.stats()
        return worker_pb2.StatsResponse(
            fingerprint=self.store.fingerprint,
            cache_bytes=stats.used_bytes,
            cache_capacity_bytes=stats.capacity_bytes,
        )


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(Peers())
    yield made
    await made.peers.close()
    for server in made.servers:
        await server.stop(None)


async def test_the_best_entries_find_room_and_the_rest_is_told(workers: Workers) -> None:
    shard, ids = filled(8)
    for i in (2, 5):
        shard.fetch("t", ids[i], 10)
    size = portable(0).size
    roomy, small = await workers.add(3 * size + 1), await workers.add(size + 1)
    foreign = await workers.add(1 << 20, "other weights")
    gone = "127.0.0.1:1"
    targets = [foreign, small, gone, roomy]
    done = await hand_over(shard, PRINT, workers.peers, targets, timeout_s=10)
    assert (done.entries, done.skipped) == (4, 4)
    assert done.size == 4 * 2 * latents(0)[5].nbytes
    assert [workers.shards[a].stats().entries for a in (roomy, small, foreign)] == [3, 1, 0]
    for i in (2, 5):
        found = [workers.shards[a].lookup("t", PRINT, embedding(i)) for a in (roomy, small)]
        assert max(m.similarity for matches in found for m in matches) == pytest.approx(1)


async def test_a_hand_over_keeps_its_time(workers: Workers) -> None:
    shard, _ = filled(3)
    address = await workers.add(1 << 20)
    ticks = iter([0.0, 0.0, *[2.0] * 50])
    done = await hand_over(shard, PRINT, workers.peers, [address], 1.0, clock=lambda: next(ticks))
    assert (done.entries, done.skipped) == (0, 3)


def entry(**changes: Any) -> worker_pb2.CacheEntry:
    level = {"skipped_steps": 5, "shape": SHAPE, "dtype": "float32", "data": bytes(64)}
    level.update({k: v for k, v in changes.items() if k in level})
    fields = {"embedding": packed(embedding(0)), "levels": [worker_pb2.HeldLevel(**level)]}
    fields.update({k: v for k, v in changes.items() if k not in level})
    return worker_pb2.CacheEntry(**fields)


@pytest.mark.parametrize(
    ("fingerprint", "bad", "code", "message"),
    [
        ("other", entry(), "FAILED_PRECONDITION", "fingerprint: 'other' is not allowed: 'weights"),
        (PRINT, entry(levels=[]), "INVALID_ARGUMENT", "entries[1].levels: none is not allowed"),
        (PRINT, entry(skipped_steps=7), "INVALID_ARGUMENT", "skipped_steps: 7 is not allowed"),
        (PRINT, entry(skipped_steps=0), "INVALID_ARGUMENT", "levels above 0"),
        (PRINT, entry(shape=(1, 4, 2, 3)), "INVALID_ARGUMENT", "64 bytes do not make"),
        (PRINT, entry(shape=(1, 16, 1, 1)), "INVALID_ARGUMENT", "latents of shape (1, 4, 2, 2)"),
        (PRINT, entry(data=b"\xff" * 64), "INVALID_ARGUMENT", "or not finite"),
        (PRINT, entry(embedding=packed([0.5])), "INVALID_ARGUMENT", "embedding: length 0.5"),
    ],
)
async def test_what_cannot_be_used_is_refused(
    workers: Workers, fingerprint: str, bad: worker_pb2.CacheEntry, code: str, message: str
) -> None:
    address = await workers.add(1 << 20)
    request = worker_pb2.StoreEntriesRequest(fingerprint=fingerprint, entries=[entry(), bad])
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = worker_pb2_grpc.WorkerStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.StoreEntries(request, timeout=5)
    assert caught.value.code().name == code
    assert message in (caught.value.details() or "")
    assert workers.shards[address].stats().entries == 0
