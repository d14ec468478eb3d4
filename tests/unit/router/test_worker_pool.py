"""The pool against workers that do not do their part: silent shards, devices that hang, workers that moved."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from fake_worker import Failure, FakeWorker
from router_kit import PROFILE

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_router.fleet import Endpoint, Fleet
from gesso_router.pool import WorkerFailedError
from gesso_router.routing.door import AT_ONCE_SECONDS
from gesso_router.settings import RouterSettings
from gesso_router.workers import WorkerPool


@pytest.mark.parametrize(("seconds", "counted"), [(AT_ONCE_SECONDS, 0), (2 * AT_ONCE_SECONDS, 1)])
async def test_a_look_up_that_was_cut_short_is_not_the_shards_fault(
    seconds: float, counted: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        pool = WorkerPool(Fleet(50, 8, 3), RouterSettings())
        worker = Endpoint("a", f"{host}:{port}", 0)
        pool.apply([worker])
        try:
            assert await pool.lookup("", np.zeros(4, np.float32), [worker], seconds) == []
            assert (pool.probed, pool.unanswered_lookups) == (1, counted)
        finally:
            await pool.close()


class Hanging(worker_pb2_grpc.WorkerServicer):
    """Takes requests and never comes to an end; whether it says so is the test's to tell."""

    def __init__(self) -> None:
        self.stalled = False
        self.began, self.cancelled = asyncio.Event(), asyncio.Event()

    async def Stats(self, request: Any, context: Any) -> worker_pb2.StatsResponse:  # noqa: N802
        profile = worker_pb2.DeviceProfile(
            device=PROFILE.device, steps=PROFILE.steps, step_seconds=PROFILE.step_seconds
        )
        return worker_pb2.StatsResponse(ready=True, profile=profile, stalled=self.stalled)

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.began.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.cancelled.set()
        yield worker_pb2.WorkerEvent()


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_requests_leave_a_worker_whose_device_hangs() -> None:
    server, worker = grpc.aio.server(), Hanging()
    worker_pb2_grpc.add_WorkerServicer_to_server(worker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    fleet = Fleet(50, 4, 3)
    pool = WorkerPool(fleet, RouterSettings(stats_interval=0.05))
    pool.apply([Endpoint("a", f"127.0.0.1:{port}", 0)])

    async def heard(event: worker_pb2.WorkerEvent) -> None:
        raise AssertionError(event)

    try:
        await until(lambda: fleet.usable)
        request = worker_pb2.WorkerGenerateRequest(request_id="r", prompt="p")
        asked = asyncio.create_task(pool.generate("a", request, 60.0, heard))
        await asyncio.wait_for(worker.began.wait(), 10)
        worker.stalled = True
        with pytest.raises(WorkerFailedError, match="stopped answering") as failure:
            await asyncio.wait_for(asked, 10)
        assert failure.value.retryable
        assert not fleet.usable
        await asyncio.wait_for(worker.cancelled.wait(), 10)
        worker.stalled = False
        await until(lambda: fleet.usable)
    finally:
        await pool.close()
        await server.stop(None)


async def test_what_ends_where_a_worker_was_says_nothing_of_where_it_is() -> None:
    old = await FakeWorker(failures=[Failure(grpc.StatusCode.UNAVAILABLE, 1)]).start()
    new = await FakeWorker().start()
    old.may_start.clear()
    fleet = Fleet(10, 2, 3)
    # Polled once only: who is lost stays so.
    pool = WorkerPool(fleet, RouterSettings(stats_interval=60.0))

    async def heard(event: worker_pb2.WorkerEvent) -> None:
        pass

    try:
        pool.apply([Endpoint("a", old.address, 0)])
        await until(lambda: fleet.usable)
        request = worker_pb2.WorkerGenerateRequest(request_id="r", prompt="p")
        asked = asyncio.create_task(pool.generate("a", request, 60.0, heard))
        await until(lambda: old.requests)
        pool.apply([Endpoint("a", new.address, 0)])
        await until(lambda: fleet.usable)
        old.may_start.set()
        with pytest.raises(WorkerFailedError, match="UNAVAILABLE") as failure:
            await asyncio.wait_for(asked, 10)
        assert failure.value.retryable
        assert fleet.usable == ["a"]
    finally:
        await pool.close()
        await old.stop()
        await new.stop()
