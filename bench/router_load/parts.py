"""Bare forwarders, a collector of traces, and the router, over real gRPC on loopback.

Each runs as a process: prints its ports as a line of JSON, and serves until its stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from gesso.placement import Codebook, Placement
from gesso.rpc.v1 import image_pb2_grpc

sys.path.insert(0, str(Path(__file__).parents[1]))

from router_load.forwarders import DIMENSIONS, KINDS, SIZE_LIMIT, STEPS

CENTROIDS, CELLS = 512, 128
SERVICE = f"""
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {{name: bench}}
spec:
  model: {{source: some/model, steps: {STEPS}, width: 1024, height: 1024}}
  slo: {{latencySeconds: 10.0, minRelativeQuality: 0.5}}
  workers: {{min: 1, max: 64, maxBatch: 64}}
  router: {{maxQueue: 4096, console: "Off"}}
  scheduling: {{policy: POLICY}}
"""


class HashEmbedder:
    """One of many unit vectors, by the prompt's hash: embedding is not what is measured."""

    def __init__(self) -> None:
        rows = np.random.default_rng(1).standard_normal((4096, DIMENSIONS), np.float32)
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    async def embed(self, prompt: str) -> Any:
        """Float32, shape (512,), length 1."""
        return self._rows[zlib.crc32(prompt.encode()) % len(self._rows)]


def placement(workers: int) -> Placement:
    """Who of them answers for which embeddings: cells of random ones, as HashEmbedder makes them."""
    centroids = np.random.default_rng(0).standard_normal((CENTROIDS, DIMENSIONS), np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    centroids = centroids.astype(np.float16).astype(np.float32)
    cell_of = np.arange(CENTROIDS, dtype=np.int32) % CELLS
    codebook = Codebook(centroids, cell_of, np.ones(CELLS))
    return Placement.of(codebook, [f"worker-{i}" for i in range(workers)])


async def forwarder(kind: str, addresses: list[str]) -> None:
    """One of `forwarders.KINDS`."""
    server = grpc.aio.server(options=SIZE_LIMIT)
    image_pb2_grpc.add_ImageServiceServicer_to_server(KINDS[kind](addresses), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await _until_told({"grpc": port})


async def collector() -> None:
    """Takes traces, and lets go of them."""
    server = grpc.aio.server(options=SIZE_LIMIT)

    async def export(request: bytes, context: Any) -> bytes:
        return b""

    handler = grpc.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await _until_told({"endpoint": f"http://127.0.0.1:{port}"})


async def router(
    policy: str, addresses: list[str], cells: bool, trace: tuple[str, float] | None = None
) -> None:
    """With `cells` it knows which shards to ask; `trace` is a collector, and the share of requests traced."""
    import gc

    from gesso import logs
    from gesso.api import parse_service
    from gesso.rpc.v1 import router_pb2
    from gesso_router.flags import Address, Flags
    from gesso_router.predictor import load_predictor
    from gesso_router.server import RouterServer

    folder = Path(tempfile.mkdtemp())
    here = Address("127.0.0.1", 0)
    service = parse_service(SERVICE.replace("POLICY", policy))
    endpoint, ratio = trace or (None, 1.0)
    flags = Flags(here, here, folder, folder, otlp_endpoint=endpoint, trace_ratio=ratio)
    logs.set_up("router", own=("gesso_router",))
    server = RouterServer(flags, service, load_predictor(service))
    server.router.embedder = HashEmbedder()
    if cells:
        server.pool.probes.learn(placement(len(addresses)).codebook)
    await server.listen()
    plan = router_pb2.ApplyPlanRequest(
        plan=router_pb2.Plan(revision=1),
        workers=[
            router_pb2.WorkerEndpoint(name=f"worker-{i}", address=a)
            for i, a in enumerate(addresses)
        ],
    )
    await server.control.apply(plan)
    while len(server.router.fleet.usable) < len(addresses):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    gc.freeze()
    await _until_told({"grpc": server.grpc_port, "http": server.http_port})


async def _until_told(ports: dict[str, Any]) -> None:
    print(json.dumps(ports), flush=True)
    profile = os.environ.get("GESSO_BENCH_PROFILE")
    profiler = None
    if profile:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
    await asyncio.to_thread(sys.stdin.read)
    if profiler is not None and profile:
        profiler.disable()
        profiler.dump_stats(profile)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["forwarder", kind, *addresses]:
            asyncio.run(forwarder(kind, addresses))
        case ["collector"]:
            asyncio.run(collector())
        case ["router", policy, "--trace", endpoint, ratio, *addresses]:
            asyncio.run(router(policy, addresses, True, (endpoint, float(ratio))))
        case ["router", policy, "--all-shards", *addresses]:
            asyncio.run(router(policy, addresses, False))
        case ["router", policy, *addresses]:
            asyncio.run(router(policy, addresses, True))


if __name__ == "__main__":
    main(sys.argv[1:])
