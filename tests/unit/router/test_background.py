"""What runs beside the requests does not end unnoticed."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from router_kit import PROFILE

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_router.fleet import Endpoint, Fleet
from gesso_router.server import _tell_failure
from gesso_router.settings import RouterSettings
from gesso_router.workers import WorkerPool


class Ready(worker_pb2_grpc.WorkerServicer):
    """Answers polls, and nothing else."""

    async def Stats(  # noqa: N802
        self, request: worker_pb2.StatsRequest, context: object
    ) -> worker_pb2.StatsResponse:
        profile = worker_pb2.DeviceProfile(
            device=PROFILE.device, steps=PROFILE.steps, step_seconds=PROFILE.step_seconds
        )
        return worker_pb2.StatsResponse(ready=True, profile=profile)


async def test_a_worker_is_polled_on_after_an_unforeseen_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(Ready(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    faults = 3

    def changed() -> None:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("unforeseen")

    fleet = Fleet(50, 4, 3)
    pool = WorkerPool(fleet, RouterSettings(stats_interval=0.02), on_change=changed)
    pool.apply([Endpoint("a", f"127.0.0.1:{port}", 0)])
    try:
        async with asyncio.timeout(10):
            while faults or not fleet.usable:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert caplog.messages == ["a poll failed"]  # once, not at each poll
    finally:
        await pool.close()
        await server.stop(None)


async def test_a_task_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise RuntimeError("a secret")

    async def ends() -> None:
        pass

    tasks = [asyncio.create_task(f(), name=f.__name__) for f in (fails, ends)]
    tasks.append(asyncio.create_task(asyncio.sleep(60), name="cancelled"))
    for task in tasks:
        task.add_done_callback(_tell_failure)
    tasks[-1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    (record,) = caplog.records
    assert (vars(record)["task"], vars(record)["cause"]) == ("fails", "RuntimeError")
