"""A worker from bind to exit: listen, load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from pathlib import Path

import grpc
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gesso.api import DiffusionService
from gesso.health import HealthPort
from gesso.malformed import RefuseMalformed
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.tls import Tls, add_port
from gesso.tracing import OFF, Tracing
from gesso_worker.cache.folder import FolderError
from gesso_worker.cache.peers import MESSAGE_BYTES, Peers
from gesso_worker.defaults import FETCH_DEADLINE_S
from gesso_worker.engine import ModelLoadError
from gesso_worker.errors import StartError
from gesso_worker.footprint import default_bound
from gesso_worker.holder import ModelHolder
from gesso_worker.loading import OWN, Loaded, Loader
from gesso_worker.metrics import serve_metrics
from gesso_worker.servicer import WorkerServicer
from gesso_worker.serving import Serving, Store, make_serving, make_store

logger = logging.getLogger(__name__)

SERVICE = worker_pb2.DESCRIPTOR.services_by_name["Worker"].full_name
STOP_S = 0.5
#: For what is not on disk yet, when all else has ended.
FLUSH_S = 0.5
REPORT_S = 10.0
#: A device that has not come round for so long hangs for good: whoever looks after the worker may end it.
HUNG_S = 60.0


async def serve(
    name: str,
    listen: str,
    service: DiffusionService,
    threads: int,
    max_accepted: int,
    linger_s: float = 0.0,
    drain_s: float = 8.5,
    disk: tuple[Path, int] | None = None,
    fetch_deadline_s: float = FETCH_DEADLINE_S,
    metrics: str | None = None,
    tls: Tls | None = None,
    health_at: str | None = None,
    tracing: Tracing = OFF,
) -> int:
    """Serves until a signal; gives the exit code. Raises StartError if it cannot start.

    After the signal requests are still taken for `linger_s`, since routers hear of the end a little later;
    what is accepted by then has `drain_s` to finish. `disk` is the folder of the cache's tier on disk, and its
    bound in bytes; `fetch_deadline_s` is what a latent at another worker is waited for, `metrics` the HOST:PORT
    that Prometheus scrapes. `health_at` is a HOST:PORT for grpc.health alone, without TLS.
    `tracing` is where spans go; it is closed at the end.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loader, peers = Loader(service, threads), Peers(tls, tracing)

    def make(model: str, loaded: Loaded) -> Serving:
        assert servicer.store is not None
        most = service.spec.workers.max_batch
        fixed = loader.fixes_guidance(model)
        return make_serving(model, loaded, servicer.store, most, max_accepted, threads, fixed)

    bound = service.spec.workers.model_memory_bytes
    holder = ModelHolder(loader, make, bound_bytes=default_bound() if bound is None else bound)
    servicer = WorkerServicer(name, service.ladder, holder, tracing)
    server, healthy = await _listen(listen, servicer, tls)
    port = HealthPort(healthy)
    scraped = None
    try:
        if health_at is not None:
            try:
                await port.listen(health_at)
            except OSError as error:
                raise StartError(f"--health: {health_at} cannot be bound: {error}") from None
        if metrics is not None:
            scraped = serve_metrics(metrics, servicer.stats)
        loading = asyncio.ensure_future(loader.load(OWN))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            loading.cancel()
            return 0
        stopping.cancel()
        try:
            loaded = loading.result()
        except ModelLoadError as error:
            raise StartError(str(error)) from error
        dtype = loaded.model.dtype
        try:
            # In a thread: a large folder takes seconds to read.
            servicer.store = await asyncio.to_thread(
                make_store, name, service, loaded.model, peers, disk, fetch_deadline_s
            )
        except FolderError as error:
            raise StartError(f"--cache-dir: {error}") from error
        holder.begin(loaded)
        # What is held from here on is the holder's to let go.
        del loaded, loading
        try:
            await _set(healthy, health_pb2.HealthCheckResponse.SERVING)
            _log_ready(listen, service, holder, dtype)
            await _watch(stop, holder, servicer.store, healthy)
            return await _drain(servicer, holder, healthy, linger_s, drain_s)
        finally:
            await holder.close()
            for serving in holder.at_work:
                await asyncio.to_thread(serving.engine.stop, STOP_S)
    finally:
        if scraped is not None:
            await asyncio.to_thread(scraped.shutdown)
            scraped.server_close()
        await servicer.end()
        servicer.close()
        await server.stop(STOP_S)
        await port.close()
        ending = [asyncio.to_thread(tracing.close)]
        if servicer.store is not None:
            ending.append(asyncio.to_thread(servicer.store.shard.close, FLUSH_S))
        await asyncio.gather(*ending)
        await peers.close()


async def _listen(
    listen: str, servicer: WorkerServicer, tls: Tls | None
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(
        interceptors=[RefuseMalformed()],
        options=[
            # Else a second process would share the port, and each get half of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
        ],
    )
    worker_pb2_grpc.add_WorkerServicer_to_server(servicer, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection(
        (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    await _set(healthy, health_pb2.HealthCheckResponse.NOT_SERVING)
    try:
        bound = add_port(server, listen, tls, mutual=tls is not None and tls.mutual)
    except RuntimeError:
        bound = 0
    if not bound:
        raise StartError(
            f"--listen: {listen} cannot be bound: the port is in use, or the host is not ours"
        )
    await server.start()
    return server, healthy


async def _set(healthy: health.aio.HealthServicer, status: int) -> None:
    for service in ("", SERVICE):
        await healthy.set(service, status)


def _log_ready(
    listen: str, service: DiffusionService, holder: ModelHolder, dtype: torch.dtype
) -> None:
    serving = holder.serving
    assert serving is not None
    profile = serving.profile
    told = {
        "listen": listen,
        "service": service.name,
        "model": service.spec.model.source,
        "device": profile.device,
        "dtype": str(dtype).removeprefix("torch."),
        "max_batch": profile.max_batch,
        "seconds_per_image": profile.work_seconds(0),
        "fingerprint": serving.default_fingerprint,
    }
    logger.info("ready", extra=told)


async def _watch(
    stop: asyncio.Event,
    holder: ModelHolder,
    store: Store | None,
    healthy: health.aio.HealthServicer,
) -> None:
    """Until told to stop or broken: reports every ten seconds if anything happened, and tells a hung device."""
    told, next_report, hung = 0, time.monotonic() + REPORT_S, False
    while not stop.is_set() and not holder.broken:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        silent = holder.hung_seconds(HUNG_S)
        if hung != (silent > 0):
            hung = not hung
            status = health_pb2.HealthCheckResponse
            await _set(healthy, status.NOT_SERVING if hung else status.SERVING)
            logger.error("hung" if hung else "recovered", extra={"seconds": silent})
        if time.monotonic() >= next_report:
            next_report = time.monotonic() + REPORT_S
            told = _report(holder, store, told)


def _report(holder: ModelHolder, store: Store | None, told: int) -> int:
    """Logs what was served unless that is as it was told; gives the ticks so far."""
    if holder.serving is None or store is None:
        return told
    now = holder.serving.engine.snapshot()
    if now.ticks != told:
        cache = store.shard.stats()
        counts = {
            "images": holder.images_done,
            "active": len(now.active),
            "queued": len(now.queued),
            "ticks": now.ticks,
            "out_of_memory": now.out_of_memory,
            "cache_entries": cache.entries,
            "cache_bytes": cache.used_bytes,
            "cache_disk_bytes": cache.disk_used_bytes,
            "cache_disk_corrupt": cache.disk_corrupt,
        }
        logger.info("served", extra=counts)
    return now.ticks


async def _drain(
    servicer: WorkerServicer,
    holder: ModelHolder,
    healthy: health.aio.HealthServicer,
    linger_s: float,
    drain_s: float,
) -> int:
    servicer.draining = True
    await _set(healthy, health_pb2.HealthCheckResponse.NOT_SERVING)
    if holder.broken:
        logger.error("broken", extra={"reason": holder.broken})
        return 1
    began = time.monotonic()
    await asyncio.sleep(linger_s)
    await holder.close()
    left, until = 0, time.monotonic() + drain_s
    for serving in holder.at_work:
        engine = serving.engine
        if not await asyncio.to_thread(engine.drain, max(0.0, until - time.monotonic())):
            left += len(engine.snapshot().active) + len(engine.snapshot().queued)
    told = {"seconds": time.monotonic() - began, "unfinished": left}
    logger.info("drained", extra=told)
    return 0
