"""Fetching one SD-XL latent (131,072 bytes) from a peer on loopback, from its memory and from its disk."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from cache_shard.figures import percentiles
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.vectors import packed
from gesso_worker.cache.disk import DiskTier
from gesso_worker.cache.folder import LatentFolder
from gesso_worker.cache.peers import MESSAGE_BYTES, PeerError, Peers
from gesso_worker.cache.shard import Shard
from gesso_worker.defaults import FETCH_DEADLINE_S
from gesso_worker.serving import Store
from gesso_worker.shard_service import ShardServicer

SHAPE = (1, 4, 128, 128)
PRINT = "bench"
ENTRIES = 64
#: Room for a few latents only, so that most lie on disk.
SMALL_MEMORY = 1 << 20


async def serve(port: int, folder: Path, memory: int) -> None:
    """The peer: a process of its own, until it is killed."""
    tier = DiskTier(LatentFolder(folder), 1 << 30)
    shard = Shard("peer", memory, disk=tier, fingerprint=PRINT)
    rng = np.random.default_rng(0)
    for number in range(ENTRIES):
        latents = {10: rng.standard_normal(SHAPE).astype(np.float16)}
        shard.insert("", PRINT, np.eye(1, 384, number, dtype=np.float32)[0], latents)
        tier.flush(60)
    # The shard's own calls are all that is asked of it.
    servicer = ShardServicer("peer")  # type: ignore[abstract]
    servicer.store = Store("peer", shard, Peers(), PRINT, (0, 10), SHAPE)
    server = grpc.aio.server(options=[("grpc.max_send_message_length", MESSAGE_BYTES)])
    worker_pb2_grpc.add_WorkerServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


@contextlib.asynccontextmanager
async def peer(folder: Path, memory: int) -> AsyncIterator[tuple[str, subprocess.Popen[str]]]:
    """A peer that serves: its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, sys.argv[0], "--serve", str(port), str(folder), str(memory)]
    process = await asyncio.to_thread(_begin, command)
    try:
        assert process.stdout is not None
        if await asyncio.to_thread(process.stdout.readline) != "ready\n":
            raise RuntimeError("the peer did not start")
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def _begin(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def figures(folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds of a fetch from memory, from disk, of a peer that was killed, and of one that hangs."""
    report: dict[str, Any] = {"bytes": int(np.prod(SHAPE)) * 2, "fetches": count}
    for name, memory in (("memory", 1 << 28), ("disk", SMALL_MEMORY)):
        async with peer(folder / name, memory) as (address, process):
            peers = Peers()
            ids = await _ids(address)
            await _fetch(peers, address, ids[0], 5.0)
            seconds = []
            for number in range(count):
                began = time.perf_counter()
                await _fetch(peers, address, ids[number % len(ids)], 5.0)
                seconds.append(time.perf_counter() - began)
            report[name] = percentiles(seconds)
            if name == "memory":
                process.send_signal(19)  # SIGSTOP: it accepts, and does not answer
                report["hanging"] = await _failing(peers, address, ids[0])
                process.kill()
                process.wait()
                report["killed"] = await _failing(peers, address, ids[0])
            await peers.close()
    report["deadline_ms"] = FETCH_DEADLINE_S * 1e3
    return report


async def _fetch(peers: Peers, address: str, entry: str, deadline_s: float) -> None:
    held = await peers.fetch(address, "", entry, 10, SHAPE, PRINT, deadline_s)
    assert held.latents.nbytes == 131_072


async def _failing(peers: Peers, address: str, entry: str) -> dict[str, float]:
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        with contextlib.suppress(PeerError):
            await _fetch(peers, address, entry, FETCH_DEADLINE_S)
            raise AssertionError("a peer that is gone answered")
        seconds.append(time.perf_counter() - began)
    return {**percentiles(seconds), "most_ms": max(seconds) * 1e3}


async def _ids(address: str) -> list[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = worker_pb2_grpc.WorkerStub(channel)
        found = []
        for number in range(ENTRIES):
            embedding = np.eye(1, 384, number, dtype=np.float32)[0]
            query = worker_pb2.LookupQuery(embedding=packed(embedding))
            answer = await stub.Lookup(worker_pb2.LookupRequest(queries=[query]), timeout=10)
            found.append(answer.answers[0].matches[0].entry_id)
        return found
