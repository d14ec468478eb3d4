"""Prometheus metrics `gesso_worker_*` of gesso.metrics.catalogue, made of what `Stats` tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gesso.metrics.families import counter, gauge
from gesso.rpc.v1 import worker_pb2
from gesso_worker.errors import StartError

#: A scrape waits so long for the event loop.
ANSWER_S = 5.0


class WorkerCollector(Collector):
    """Asks for the statistics on the worker's event loop; scrapes come on threads of their own."""

    def __init__(
        self,
        stats: Callable[[], Awaitable[worker_pb2.StatsResponse]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._stats = stats
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client.registry.Collector. Raises TimeoutError where the loop does not answer."""

        async def ask() -> worker_pb2.StatsResponse:
            return await self._stats()

        asked = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        try:
            return families_of(asked.result(ANSWER_S))
        finally:
            asked.cancel()

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it must not ask."""
        return ()


def families_of(stats: worker_pb2.StatsResponse) -> list[Metric]:
    """The metrics of an answer to `Stats`."""
    profile, switch = stats.profile, stats.last_switch
    steps = {(str(i + 1),): seconds for i, seconds in enumerate(profile.step_seconds)}
    tiers = {("memory",): float(stats.cache_bytes), ("disk",): float(stats.cache_disk_bytes)}
    capacity = {
        ("memory",): float(stats.cache_capacity_bytes),
        ("disk",): float(stats.cache_disk_capacity_bytes),
    }
    phases = {
        ("drain",): switch.drain_seconds,
        ("load",): switch.load_seconds,
        ("warmup",): switch.warmup_seconds,
    }
    requests = {("active",): float(len(stats.active)), ("queued",): float(len(stats.queued))}
    return [
        gauge("gesso_worker_ready", float(stats.ready)),
        gauge("gesso_worker_draining", float(stats.draining)),
        gauge("gesso_worker_assigned_skipped_steps", stats.assigned_skipped_steps),
        counter("gesso_worker_images", stats.images_done),
        gauge("gesso_worker_requests", requests),
        gauge("gesso_worker_step_seconds", steps),
        gauge("gesso_worker_encode_seconds", profile.encode_seconds),
        gauge("gesso_worker_decode_seconds", profile.decode_seconds),
        gauge("gesso_worker_batch_limit", stats.batch_limit),
        counter("gesso_worker_out_of_memory", stats.out_of_memory),
        counter("gesso_worker_swaps", stats.swaps),
        gauge("gesso_worker_switch_seconds", phases if stats.HasField("last_switch") else {}),
        gauge("gesso_worker_switch_failed", float(bool(stats.switch_error))),
        gauge("gesso_worker_cache_entries", stats.cache_entries),
        gauge("gesso_worker_cache_bytes", tiers),
        gauge("gesso_worker_cache_capacity_bytes", capacity),
        counter("gesso_worker_cache_corrupt", stats.cache_disk_corrupt),
        counter("gesso_worker_cache_unwritten", stats.cache_disk_unwritten),
        counter("gesso_worker_cache_failed_writes", stats.cache_disk_failed),
        gauge("gesso_worker_cache_unannounced", stats.unannounced),
    ]


def serve_metrics(
    address: str, stats: Callable[[], Awaitable[worker_pb2.StatsResponse]]
) -> WSGIServer:
    """Serves `/metrics` at HOST:PORT from the running event loop's statistics, until it is shut down.

    Raises StartError where the address cannot be bound.
    """
    registry = CollectorRegistry()
    registry.register(WorkerCollector(stats, asyncio.get_running_loop()))
    host, _, port = address.rpartition(":")
    try:
        server, _ = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise StartError(
            f"--metrics: {address} cannot be bound: {error.strerror or error}"
        ) from None
    return server
