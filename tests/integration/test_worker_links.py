"""The router's links to workers, over real gRPC: what is left of a request once its image is there."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from fake_worker import FakeWorker

from gesso.rpc.v1 import worker_pb2
from gesso_router.fleet import Endpoint, Fleet
from gesso_router.settings import RouterSettings
from gesso_router.workers import WorkerPool


async def test_an_image_is_let_go_without_waiting_for_garbage_collection() -> None:
    worker = await FakeWorker("worker-0", step_seconds=0.0).start()
    pool = WorkerPool(Fleet(10, 2, 3), RouterSettings())
    pool.apply([Endpoint("worker-0", worker.address, 0)])

    async def on_event(event: worker_pb2.WorkerEvent) -> None:
        pass

    gc.collect()
    gc.disable()
    try:
        for i in range(3):
            request = worker_pb2.WorkerGenerateRequest(request_id=str(i), prompt="a star")
            await pool.generate("worker-0", request, 5.0, on_event)
        await asyncio.sleep(0)
        # A stream's iterator that is left early holds its last message, in a cycle with the call.
        left = [
            o
            for o in gc.get_objects()
            if type(o) is types.AsyncGeneratorType
            and o.ag_code.co_name == "_fetch_stream_responses"
        ]
        assert left == []
    finally:
        gc.enable()
        await pool.close()
        await worker.stop()
