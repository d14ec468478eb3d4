"""Where a run starts when its latent is here, at a peer, or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.vectors import packed
from gesso_worker.cache.peers import PeerError, Peers, pack, unpack
from gesso_worker.cache.shard import HeldLatents, Shard
from gesso_worker.requests import Limits, Source, check_generate
from gesso_worker.starts import StartFinder

PRINT = "weights-1"
SHAPE = (1, 4, 4, 4)
EMBEDDING = np.array([0.6, 0.8], np.float32)
LIMITS = Limits(64, 64, 2.0, (0, 5, 10, 15))


def latents(level: int) -> np.ndarray:
    return np.full(SHAPE, float(level), np.float32)


class Owner(worker_pb2_grpc.WorkerServicer):
    """A peer whose answer the test chooses."""

    def __init__(self) -> None:
        self.answer: Any = pack(HeldLatents(10, latents(10), PRINT))
        self.asked: list[worker_pb2.FetchLatentsRequest] = []
        self.delay_s = 0.0

    async def FetchLatents(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        await asyncio.sleep(self.delay_s)
        if isinstance(self.answer, grpc.StatusCode):
            await context.abort(self.answer, "no")
        return self.answer


@pytest.fixture
async def owner() -> AsyncIterator[tuple[Owner, str]]:
    server = grpc.aio.server()
    servicer = Owner()
    worker_pb2_grpc.add_WorkerServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    made = Peers()
    yield made
    await made.close()


@pytest.fixture
def shard() -> Shard:
    return Shard("worker-0", 1 << 20)


def spec(source: Source | None, skipped: int = 10) -> Any:
    message = (
        worker_pb2.LatentSource(
            entry_id=source.entry_id, worker=source.worker, address=source.address
        )
        if source
        else None
    )
    request = worker_pb2.WorkerGenerateRequest(
        prompt="p", skipped_steps=skipped, source=message, tenant="t", embedding=packed(EMBEDDING)
    )
    return check_generate(request, LIMITS)


def finder(shard: Shard, peers: Peers) -> StartFinder:
    # A busy machine answers late: what a deadline does has a test of its own.
    return StartFinder("worker-0", shard, peers, SHAPE, deadline_s=5.0)


async def test_k_0_starts_at_the_beginning(shard: Shard, peers: Peers) -> None:
    start = await finder(shard, peers).find(spec(None, 0), PRINT, 10)
    assert (start.skipped_steps, start.latents) == (0, None)


@pytest.mark.parametrize("address", ["", "10.0.0.1:7101"], ids=["no address", "own address"])
async def test_an_own_latent_is_taken_from_the_shard(
    shard: Shard, peers: Peers, address: str
) -> None:
    entry = str(shard.insert("t", PRINT, EMBEDDING, {5: latents(5), 10: latents(10)}))
    start = await finder(shard, peers).find(spec(Source(entry, "worker-0", address)), PRINT, 10)
    assert (start.skipped_steps, start.worker, start.entry_id) == (10, "worker-0", entry)
    assert start.latents is not None
    assert np.array_equal(start.latents.numpy(), latents(10))


async def test_an_evicted_level_gives_the_next_below(shard: Shard, peers: Peers) -> None:
    entry = str(shard.insert("t", PRINT, EMBEDDING, {5: latents(5)}))
    start = await finder(shard, peers).find(spec(Source(entry, "worker-0", "")), PRINT, 10)
    assert start.skipped_steps == 5


async def test_a_peers_latent_is_fetched(
    shard: Shard, peers: Peers, owner: tuple[Owner, str]
) -> None:
    servicer, address = owner
    start = await finder(shard, peers).find(spec(Source("e", "worker-1", address)), PRINT, 10)
    assert start.skipped_steps == 10
    assert start.latents is not None
    assert np.array_equal(start.latents.numpy(), latents(10))
    assert start.fetch_seconds > 0
    asked = servicer.asked[0]
    assert (asked.tenant, asked.entry_id, asked.skipped_steps) == ("t", "e", 10)


def _broken(**changes: Any) -> Any:
    answer = pack(HeldLatents(10, latents(10), PRINT))
    for field, value in changes.items():
        if field == "shape":
            del answer.shape[:]
            answer.shape.extend(value)
        else:
            setattr(answer, field, value)
    return answer


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(grpc.StatusCode.NOT_FOUND, id="evicted"),
        pytest.param(grpc.StatusCode.INTERNAL, id="failing"),
        pytest.param(_broken(fingerprint="weights-2"), id="another fingerprint"),
        pytest.param(_broken(dtype="float64"), id="unknown type"),
        pytest.param(_broken(data=b"123"), id="torn"),
        pytest.param(_broken(shape=(4, 1, 4, 4)), id="another shape"),
        pytest.param(_broken(skipped_steps=15), id="a level above the wanted"),
        pytest.param(
            pack(HeldLatents(10, latents(10) * np.float32("nan"), PRINT)), id="not finite"
        ),
    ],
)
async def test_an_unusable_answer_means_k_0(
    shard: Shard, peers: Peers, owner: tuple[Owner, str], answer: Any
) -> None:
    servicer, address = owner
    servicer.answer = answer
    start = await finder(shard, peers).find(spec(Source("e", "worker-1", address)), PRINT, 10)
    assert (start.skipped_steps, start.latents) == (0, None)
    assert servicer.asked


async def test_a_peer_that_is_away_costs_no_more_than_the_time_left(
    shard: Shard, peers: Peers
) -> None:
    source = Source("e", "worker-1", "127.0.0.1:1")
    start = await finder(shard, peers).find(spec(source), PRINT, 0.2)
    assert start.skipped_steps == 0
    assert start.fetch_seconds < 1.0


async def test_a_near_entry_of_its_own_stands_in_for_a_lost_one(
    shard: Shard, peers: Peers, owner: tuple[Owner, str]
) -> None:
    servicer, address = owner
    servicer.answer = grpc.StatusCode.NOT_FOUND
    entry = shard.insert("t", PRINT, EMBEDDING, {5: latents(5), 15: latents(15)})
    start = await finder(shard, peers).find(spec(Source("e", "worker-1", address)), PRINT, 10)
    assert (start.skipped_steps, start.worker, start.entry_id) == (5, "worker-0", entry)


async def test_a_far_entry_does_not_stand_in(shard: Shard, peers: Peers) -> None:
    shard.insert("t", PRINT, np.array([1.0, 0.0], np.float32), {5: latents(5)})
    start = await finder(shard, peers).find(spec(Source("gone", "worker-0", "")), PRINT, 10)
    assert start.skipped_steps == 0


async def test_nothing_is_used_under_another_fingerprint(shard: Shard, peers: Peers) -> None:
    entry = str(shard.insert("t", PRINT, EMBEDDING, {10: latents(10)}))
    source = Source(entry, "worker-0", "")
    start = await finder(shard, peers).find(spec(source), "weights-2", 10)
    assert start.skipped_steps == 0


async def test_a_slow_peer_costs_its_deadline_and_the_next_candidate_is_taken(
    shard: Shard, peers: Peers, owner: tuple[Owner, str]
) -> None:
    servicer, address = owner
    entry = str(shard.insert("t", PRINT, np.array([1.0, 0.0], np.float32), {10: latents(10)}))
    servicer.delay_s = 5.0
    slow, own = Source("e", "worker-1", address), Source(entry, "worker-0", "")
    deadline_s = 0.1
    made = StartFinder("worker-0", shard, peers, SHAPE, deadline_s)
    for fallbacks, level in (((own,), 10), ((slow, own), 10), ((slow,), 0), ((), 0)):
        start = await made.find(replace(spec(slow), fallbacks=fallbacks), PRINT, 10)
        assert start.skipped_steps == level
        tries = 1 + fallbacks.count(slow)
        assert tries * deadline_s * 0.9 <= start.fetch_seconds <= tries * deadline_s + 1.0
    start = await made.find(replace(spec(slow), fallbacks=(slow, slow)), PRINT, 0.15)
    assert start.fetch_seconds < 1.2


async def test_a_fallback_at_a_peer_stands_in_for_what_is_gone_here(
    shard: Shard, peers: Peers, owner: tuple[Owner, str]
) -> None:
    gone, there = Source("gone", "worker-0", ""), Source("e", "worker-1", owner[1])
    start = await finder(shard, peers).find(replace(spec(gone), fallbacks=(there,)), PRINT, 10)
    assert (start.skipped_steps, start.worker, start.entry_id) == (10, "worker-1", "e")
    assert owner[0].asked[0].entry_id == "e"


def test_fallbacks_are_read_and_bounded() -> None:
    request = worker_pb2.WorkerGenerateRequest(prompt="p", skipped_steps=10)
    request.source.entry_id = "a"
    for i in range(4):
        request.fallbacks.add(entry_id=f"b{i}", worker="worker-1", address="h:1")
    checked = check_generate(request, LIMITS)
    assert checked.fallbacks[3] == Source("b3", "worker-1", "h:1")
    request.fallbacks.add(entry_id="one too many")
    with pytest.raises(ValueError, match="fallbacks: 5 is not allowed: at most 4"):
        check_generate(request, LIMITS)
    del request.fallbacks[1:]
    request.fallbacks[0].address = "x" * 300
    with pytest.raises(ValueError, match=r"fallbacks\[0\].address"):
        check_generate(request, LIMITS)


async def test_channels_are_bounded(peers: Peers) -> None:
    for port in range(1, 100):
        peers._channel(f"127.0.0.1:{port}")
    assert len(peers._channels) == 64
    assert "127.0.0.1:99" in peers._channels


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_latents_survive_the_wire(dtype: Any) -> None:
    array = np.random.default_rng(0).standard_normal(SHAPE).astype(dtype)
    again = unpack(pack(HeldLatents(5, array, PRINT)))
    assert again.dtype == dtype
    assert np.array_equal(again, array)


def test_a_shape_of_more_than_the_bytes_is_refused() -> None:
    answer = _broken(shape=(4_000_000_000, 4_000_000_000, 4))
    with pytest.raises(PeerError, match="do not make"):
        unpack(answer)
