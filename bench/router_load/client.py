"""The closed loop: so many clients, each asks, waits for its image, and asks again; a process of its own."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import Any

import grpc
import grpc.aio

from gesso.rpc.v1 import image_pb2, image_pb2_grpc

OPTIONS = (("grpc.max_receive_message_length", 64 * 2**20), ("grpc.use_local_subchannel_pool", 1))


async def load(port: int, clients: int, rate: float, seconds: float) -> dict[str, Any]:
    """`rate` requests a second in all, 0: as many as there can be. Seconds beyond the worker's own, each."""
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) for _ in range(4)]
    overheads: list[float] = []
    failed = 0
    began = time.perf_counter()
    warm, end = began + 1.0, began + 1.0 + seconds

    async def client(number: int) -> None:
        nonlocal failed
        stub: Any = image_pb2_grpc.ImageServiceStub(channels[number % len(channels)])
        gap = clients / rate if rate else 0.0
        due = began + gap * number / clients
        asked = 0
        while time.perf_counter() < end:
            if rate:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due = max(due + gap, time.perf_counter())
            asked += 1
            request = image_pb2.GenerateRequest(prompt=f"prompt {number} {asked}", seed=1)
            sent = time.perf_counter()
            try:
                async for event in stub.Generate(request, timeout=60):
                    image = event.image if event.WhichOneof("event") == "image" else None
            except grpc.aio.AioRpcError:
                failed += 1
                continue
            took = time.perf_counter() - sent
            if warm <= sent and image is not None:
                overheads.append(took - struct.unpack("d", image.data[:8])[0])

    await asyncio.gather(*(client(i) for i in range(clients)))
    elapsed = time.perf_counter() - warm
    for channel in channels:
        await channel.close()
    overheads.sort()

    def share(part: float) -> float:
        return overheads[min(len(overheads) - 1, int(part * len(overheads)))] * 1000

    return {
        "requests": len(overheads),
        "failed": failed,
        "per_second": len(overheads) / elapsed,
        "p50_ms": share(0.5),
        "p99_ms": share(0.99),
    }


if __name__ == "__main__":
    given = [float(x) for x in sys.argv[1:]]
    print(json.dumps(asyncio.run(load(int(given[0]), int(given[1]), given[2], given[3]))))
