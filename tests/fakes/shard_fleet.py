"""Shards that serve over real gRPC on loopback, without a model. Put `tests/fakes` on sys.path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from gesso.codebook import from_bytes, to_bytes
from gesso.placement import Codebook
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_worker.cache.peers import Peers
from gesso_worker.cache.shard import Shard
from gesso_worker.cache.signposts import Signposts
from gesso_worker.serving import Store
from gesso_worker.shard_service import ShardServicer

PRINT = "weights-1"
SHAPE = (1, 4, 2, 2)
LADDER = (0, 5, 10)
SIZE = 16


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, SIZE)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def latents(value: float, levels: tuple[int, ...] = (5, 10)) -> dict[int, np.ndarray]:
    return {level: np.full(SHAPE, value + level, np.float32) for level in levels}


def codebook(centroids: int = 64, cells: int = 32) -> Codebook:
    cell_of = (np.arange(centroids) % cells).astype(np.int32)
    return from_bytes(to_bytes(Codebook(unit(centroids, 99), cell_of, np.ones(cells))))


class Serves(ShardServicer):
    """What a worker serves of its shard, and Stats as far as it tells of it."""

    async def Stats(self, request: Any, context: Any) -> worker_pb2.StatsResponse:  # noqa: N802
        assert self.store is not None
        stats, announcer = self.store.shard.stats(), self.announcer
        response = worker_pb2.StatsResponse(
            worker=self.name,
            ready=True,
            fingerprint=self.store.fingerprint,
            cache_entries=stats.entries,
            cache_bytes=stats.used_bytes,
            cache_capacity_bytes=stats.capacity_bytes,
        )
        if announcer is not None and announcer.placement is not None:
            response.placement = announcer.placement.version
            response.unannounced = announcer.unannounced
        return response

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def Assign(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


@dataclass
class Member:
    """One shard that serves."""

    name: str
    shard: Shard
    signposts: Signposts
    servicer: Serves
    server: grpc.aio.Server
    address: str
    channel: grpc.aio.Channel
    peers: Peers

    @property
    def stub(self) -> Any:
        return worker_pb2_grpc.WorkerStub(self.channel)

    async def stop(self) -> None:
        await self.servicer.end()
        await self.channel.close()
        await self.server.stop(None)
        await self.peers.close()
        self.servicer.close()


@dataclass
class FleetOfShards:
    """By name; `place` tells them who there is."""

    codebook: Codebook
    members: dict[str, Member] = field(default_factory=dict)
    revision: int = 0

    async def add(self, name: str, port: int = 0, shared: bool = False) -> Member:
        peers = Peers()
        shard = Shard(name, 1 << 22, shared)
        signposts = Signposts(1 << 20, shared, shard.reserve)
        servicer = Serves(name)
        servicer.store = Store(name, shard, peers, PRINT, LADDER, SHAPE, signposts)
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        worker_pb2_grpc.add_WorkerServicer_to_server(servicer, server)
        address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
        await server.start()
        channel = grpc.aio.insecure_channel(address)
        made = Member(name, shard, signposts, servicer, server, address, channel, peers)
        self.members[name] = made
        return made

    async def remove(self, name: str) -> None:
        await self.members.pop(name).stop()

    async def place(self) -> str:
        """Tells everybody; gives the placement's version."""
        self.revision += 1
        request = worker_pb2.PlaceRequest(
            workers=[
                worker_pb2.Peer(name=m.name, address=m.address) for m in self.members.values()
            ],
            codebook=to_bytes(self.codebook),
            revision=self.revision,
        )
        answers = [await m.stub.Place(request, timeout=10) for m in self.members.values()]
        (version,) = {a.placement for a in answers}
        return str(version)

    async def settled(self) -> None:
        """Waits until everybody has told all that it holds."""
        members = self.members.values()
        await until(lambda: not any(m.servicer.announcer.unannounced for m in members))


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what others do in their own time."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def fleet_of(*names: str, shared: bool = False) -> AsyncIterator[FleetOfShards]:
    """A fleet that is stopped in the end."""
    fleet = FleetOfShards(codebook())
    try:
        for name in names:
            await fleet.add(name, shared=shared)
        yield fleet
    finally:
        for name in list(fleet.members):
            await fleet.remove(name)
