"""Calls fail as answers, also where their channel is closed under them; who is cancelled is cancelled."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc

from gesso_operator.clients import Clients


class Hanging(health_pb2_grpc.HealthServicer):
    """Never answers."""

    def __init__(self):
        self.asked = asyncio.Event()

    async def Check(self, request, context):  # noqa: N802
        self.asked.set()
        await asyncio.Event().wait()


@pytest.fixture
async def hanging():
    server, servicer = grpc.aio.server(options=(("grpc.so_reuseport", 0),)), Hanging()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer, address
    await server.stop(None)


async def test_a_channel_that_is_closed_under_a_call_fails_it_and_nothing_else(hanging):
    servicer, address = hanging
    clients = Clients(read_seconds=30.0)
    asking = asyncio.create_task(clients.healthy(address))
    await asyncio.wait_for(servicer.asked.wait(), 10)
    await clients.keep_only(())
    assert await asyncio.wait_for(asking, 10) is False
    assert not asking.cancelled()


async def test_who_is_cancelled_is_cancelled(hanging):
    servicer, address = hanging
    clients = Clients(read_seconds=30.0)
    asking = asyncio.create_task(clients.healthy(address))
    await asyncio.wait_for(servicer.asked.wait(), 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await clients.close()
