"""Times fetching latents from a peer's shard by gRPC, on loopback."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import numpy as np

from gesso.profile_file import MeasuredFetch
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_worker.cache.fetching import fetch
from gesso_worker.cache.peers import Peers, pack
from gesso_worker.cache.shard import Shard
from gesso_worker.engine import Model

_ROUNDS, _WARM_ROUNDS = 300, 20
_FINGERPRINT, _LEVEL = "profile", 5


class _Peer(worker_pb2_grpc.WorkerServicer):
    """A worker, as far as others fetch from it."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    async def FetchLatents(  # noqa: N802
        self,
        request: worker_pb2.FetchLatentsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> worker_pb2.FetchLatentsResponse:
        held = await fetch(self._shard, request.tenant, request.entry_id, request.skipped_steps)
        assert held is not None
        return pack(held)


async def measure_fetch(model: Model) -> MeasuredFetch:
    """Fetches latents of this model's shape some hundred times, one after another."""
    shape = model.latent_shape
    dtype = np.float32 if model.dtype.itemsize == 4 else np.float16
    latents = np.ones(shape, dtype=dtype)
    shard = Shard("peer", 4 * latents.nbytes + (1 << 20))
    embedding = np.ones(1, dtype=np.float32)
    entry_id = shard.insert("", _FINGERPRINT, embedding, {_LEVEL: latents})
    assert entry_id is not None
    server = grpc.aio.server()
    # The generated registration wants every method; the others answer UNIMPLEMENTED.
    worker_pb2_grpc.add_WorkerServicer_to_server(_Peer(shard), server)  # type: ignore[abstract]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    peers, took = Peers(), []
    try:
        for _ in range(_ROUNDS + _WARM_ROUNDS):
            began = time.perf_counter()
            await peers.fetch(address, "", entry_id, _LEVEL, shape, _FINGERPRINT, deadline_s=5.0)
            took.append(time.perf_counter() - began)
    finally:
        await asyncio.gather(peers.close(), server.stop(None))
    p50, p95, p99 = (float(np.quantile(took[_WARM_ROUNDS:], q)) for q in (0.5, 0.95, 0.99))
    return MeasuredFetch(bytes=latents.nbytes, p50=p50, p95=p95, p99=p99)
