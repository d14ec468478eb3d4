"""The operator's gRPC calls, each with a deadline: a call that fails is an answer of its own, never an
exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gesso.rpc.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc
from gesso.tls import Tls, open_channel

_Reply = TypeVar("_Reply")

READ_SECONDS = 2.0
WRITE_SECONDS = 5.0
MOST_CALLS = 12
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A restarted worker must be found again soon: gRPC's own reconnect backoff grows to two minutes.
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_http_proxy", 0),
    # There is a channel for each worker of each service: what none of them needs is left out.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_channel_trace_event_memory_per_node", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.hpack_table_size.decoder", 0),
    ("grpc.http2.hpack_table_size.encoder", 0),
    ("grpc.experimental.tcp_read_chunk_size", 1024),
    ("grpc.experimental.tcp_max_read_chunk_size", 4096),
)


class Failure(str):
    """Why a call failed: status and details in one line."""

    __slots__ = ()


class Clients:
    """Channels by address, opened on first use. One event loop; close it when done."""

    def __init__(
        self,
        read_seconds: float = READ_SECONDS,
        write_seconds: float = WRITE_SECONDS,
        slots: asyncio.Semaphore | None = None,
        tls: Tls | None = None,
    ) -> None:
        """`read_seconds` bounds Report, Stats and health, `write_seconds` Assign and ApplyPlan. `slots` bounds
        how many calls are under way at once, over all clients that share it: each takes memory. With `tls`,
        channels are opened anew when its files have changed.
        """
        self.tls = tls
        self._slots = slots or asyncio.Semaphore(MOST_CALLS)
        self._read_s = read_seconds
        self._write_s = write_seconds
        self._channels: dict[str, tuple[grpc.aio.Channel, int]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def report(self, address: str) -> router_pb2.ReportResponse | Failure:
        """The router's counters."""
        stub = router_pb2_grpc.RouterControlStub(self._channel(address))
        asked = router_pb2.ReportRequest()
        return await self._ask(lambda: stub.Report(asked, timeout=self._read_s))

    async def stats(self, address: str) -> worker_pb2.StatsResponse | Failure:
        """A worker's state."""
        stub = worker_pb2_grpc.WorkerStub(self._channel(address))
        asked = worker_pb2.StatsRequest()
        return await self._ask(lambda: stub.Stats(asked, timeout=self._read_s))

    async def assign(
        self, address: str, skipped_steps: int, revision: int, model: str = ""
    ) -> worker_pb2.AssignResponse | Failure:
        """Sets a worker's level, and the model that it is to hold: empty for the service's own."""
        stub = worker_pb2_grpc.WorkerStub(self._channel(address))
        request = worker_pb2.AssignRequest(
            skipped_steps=skipped_steps, revision=revision, model=model
        )
        return await self._ask(lambda: stub.Assign(request, timeout=self._write_s))

    async def hand_over(
        self, address: str, targets: Mapping[str, str], seconds: float
    ) -> worker_pb2.HandOverResponse | Failure:
        """Has a worker that is to go give its shard's best entries to others: their host:port by name.

        Takes at most `seconds`, and a little; what is not handed over by then is lost with the worker.
        """
        stub = worker_pb2_grpc.WorkerStub(self._channel(address))
        request = worker_pb2.HandOverRequest(
            targets=[worker_pb2.Peer(name=n, address=a) for n, a in targets.items()],
            timeout_seconds=seconds,
        )
        return await self._ask(lambda: stub.HandOver(request, timeout=seconds + self._write_s))

    async def apply_plan(
        self, address: str, request: router_pb2.ApplyPlanRequest
    ) -> router_pb2.ApplyPlanResponse | Failure:
        """Gives the router its plan and its workers."""
        stub = router_pb2_grpc.RouterControlStub(self._channel(address))
        return await self._ask(lambda: stub.ApplyPlan(request, timeout=self._write_s))

    async def healthy(self, address: str) -> bool:
        """Whether grpc.health says SERVING for the whole server."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel(address))
        asked = health_pb2.HealthCheckRequest()
        reply: Any = await self._ask(lambda: stub.Check(asked, timeout=self._read_s))
        serving: bool = (
            not isinstance(reply, Failure)
            and reply.status == health_pb2.HealthCheckResponse.SERVING
        )
        return serving

    async def keep_only(self, addresses: Iterable[str]) -> None:
        """Closes the channels to any other address."""
        wanted = set(addresses)
        for address in [a for a in self._channels if a not in wanted]:
            await self._channels.pop(address)[0].close()

    async def close(self) -> None:
        """Closes all channels."""
        await self.keep_only(())
        await asyncio.gather(*self._closing)

    def _channel(self, address: str) -> grpc.aio.Channel:
        version = self.tls.refresh() if self.tls is not None else 0
        found, of = self._channels.get(address, (None, version))
        if found is not None and of == version:
            return found
        if found is not None:
            # It keeps the certificates that it was opened with.
            task = asyncio.ensure_future(found.close(self._write_s))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        channel = open_channel(self.tls, address, _OPTIONS)
        self._channels[address] = (channel, version)
        return channel

    async def _ask(self, call: Callable[[], Awaitable[_Reply]]) -> _Reply | Failure:
        try:
            # The deadline counts from the call's start, not from the wait for a slot.
            async with self._slots:
                return await call()
        except asyncio.CancelledError:
            # A call whose channel is closed under it raises the same as one whose caller was cancelled.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return Failure("CANCELLED: the channel was closed")
        except grpc.aio.AioRpcError as error:
            details = " ".join((error.details() or "no details").split())
            return Failure(f"{error.code().name}: {details}")
