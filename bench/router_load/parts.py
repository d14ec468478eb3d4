"""Workers of fixed service time, a bare forwarder, and the router, over real gRPC on loopback.

Each runs as a process: prints its ports as a line of JSON, and serves until its stdin ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from gesso.rpc.v1 import image_pb2, image_pb2_grpc, worker_pb2, worker_pb2_grpc

STEPS = 50
#: Progress events of an image: a real worker tells a few, not every step.
TOLD = 4
SIZE_LIMIT = (("grpc.max_receive_message_length", 64 * 2**20), ("grpc.so_reuseport", 0))
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


class Worker(worker_pb2_grpc.WorkerServicer):
    """Takes `seconds` for each image, so many at once as it has slots, and says how long it really took."""

    def __init__(self, name: str, seconds: float, image_bytes: int, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.name, self.seconds = name, seconds
        self.padding = os.urandom(max(0, image_bytes - 8))
        self.active: dict[str, None] = {}

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See worker.proto."""
        began = time.perf_counter()
        self.active[request.request_id] = None
        try:
            async with self.slots:
                yield worker_pb2.WorkerEvent(started=image_pb2.Started(worker=self.name))
                for told in range(1, TOLD + 1):
                    await asyncio.sleep(self.seconds / TOLD)
                    progress = image_pb2.Progress(step=told * STEPS // TOLD, steps=STEPS)
                    yield worker_pb2.WorkerEvent(progress=progress)
            took = time.perf_counter() - began
            yield worker_pb2.WorkerEvent(
                image=worker_pb2.WorkerImage(
                    data=struct.pack("d", took) + self.padding,
                    format=image_pb2.IMAGE_FORMAT_PNG,
                    width=1024,
                    height=1024,
                )
            )
        finally:
            self.active.pop(request.request_id, None)

    async def Lookup(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One entry that is not near enough to be of use."""
        near = worker_pb2.Match(
            entry_id=f"{self.name}-0",
            similarity=0.4,
            held_levels=[5, 10],
            embedding=request.embedding,
        )
        return worker_pb2.LookupResponse(matches=[near])

    async def Stats(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See worker.proto."""
        return worker_pb2.StatsResponse(
            worker=self.name,
            ready=True,
            profile=worker_pb2.DeviceProfile(
                device="fixed", steps=STEPS, step_seconds=[self.seconds / STEPS] * 64
            ),
            active=[
                worker_pb2.RequestProgress(request_id=i, remaining_steps=STEPS // 2)
                for i in self.active
            ],
            fingerprint="bench",
        )


class Forwarder(image_pb2_grpc.ImageServiceServicer):
    """What one would write without Gesso: each request to the next worker, each event back."""

    def __init__(self, addresses: list[str]) -> None:
        channels = [grpc.aio.insecure_channel(a, options=SIZE_LIMIT) for a in addresses]
        self.stubs = itertools.cycle([worker_pb2_grpc.WorkerStub(c) for c in channels])
        self.numbers = itertools.count()

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See image.proto."""
        asked = worker_pb2.WorkerGenerateRequest(
            request_id=str(next(self.numbers)), prompt=request.prompt, seed=request.seed
        )
        stub: Any = next(self.stubs)
        async for event in stub.Generate(asked, timeout=30):
            kind = event.WhichOneof("event")
            if kind == "image":
                image = image_pb2.Image(data=event.image.data, format=event.image.format)
                yield image_pb2.GenerateEvent(image=image)
            elif kind == "started":
                yield image_pb2.GenerateEvent(started=event.started)
            else:
                yield image_pb2.GenerateEvent(progress=event.progress)


class HashEmbedder:
    """A unit vector by the prompt's hash: embedding is not what is measured."""

    async def embed(self, prompt: str) -> Any:
        """Float32, shape (512,), length 1."""
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "little")
        vector = np.random.default_rng(seed).standard_normal(512, np.float32)
        return vector / np.linalg.norm(vector)


async def workers(count: int, seconds: float, image_bytes: int, slots: int) -> None:
    servers, addresses = [], []
    for i in range(count):
        server = grpc.aio.server(options=SIZE_LIMIT)
        made = Worker(f"worker-{i}", seconds, image_bytes, slots)
        worker_pb2_grpc.add_WorkerServicer_to_server(made, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    await _until_told({"addresses": addresses})


async def forwarder(addresses: list[str]) -> None:
    server = grpc.aio.server(options=SIZE_LIMIT)
    image_pb2_grpc.add_ImageServiceServicer_to_server(Forwarder(addresses), server)
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


async def router(policy: str, addresses: list[str], trace: tuple[str, float] | None = None) -> None:
    """`trace` is a collector, and the share of requests traced."""
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
        case ["workers", count, seconds, image_bytes, slots]:
            asyncio.run(workers(int(count), float(seconds), int(image_bytes), int(slots)))
        case ["forwarder", *addresses]:
            asyncio.run(forwarder(addresses))
        case ["collector"]:
            asyncio.run(collector())
        case ["router", policy, "--trace", endpoint, ratio, *addresses]:
            asyncio.run(router(policy, addresses, (endpoint, float(ratio))))
        case ["router", policy, *addresses]:
            asyncio.run(router(policy, addresses))


if __name__ == "__main__":
    main(sys.argv[1:])
