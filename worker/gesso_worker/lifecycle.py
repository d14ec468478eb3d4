"""A worker from bind to exit: listen, load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time

import grpc
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gesso.api import DiffusionService
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_worker.cache.fingerprint import ModelIdentity, fingerprint
from gesso_worker.cache.peers import MESSAGE_BYTES, Peers
from gesso_worker.cache.shard import Shard
from gesso_worker.engine import (
    Engine,
    EngineSettings,
    Model,
    ModelLoadError,
    ModelSettings,
    WarmUp,
    load_model,
    warm_up,
)
from gesso_worker.engine.live_profile import LiveProfile
from gesso_worker.errors import StartError
from gesso_worker.logs import line
from gesso_worker.requests import Limits
from gesso_worker.servicer import Serving, WorkerServicer, keep_in
from gesso_worker.starts import StartFinder

logger = logging.getLogger(__name__)

SERVICE = worker_pb2.DESCRIPTOR.services_by_name["Worker"].full_name
STOP_S = 0.5
REPORT_S = 10.0
#: A denoising step that takes longer than this, and than twenty measured ones, means a device that hangs.
HUNG_S = 60.0


async def serve(
    name: str,
    listen: str,
    service: DiffusionService,
    threads: int,
    max_accepted: int,
    linger_s: float = 0.0,
    drain_s: float = 8.5,
) -> int:
    """Serves until a signal; gives the exit code. Raises StartError if it cannot start.

    After the signal requests are still taken for `linger_s`, since routers hear of the end a little later;
    what is accepted by then has `drain_s` to finish.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servicer = WorkerServicer(name, service.ladder)
    server, healthy = await _listen(listen, servicer)
    peers = Peers()
    try:
        loading = _load_in_thread(service, threads)
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            loading.cancel()
            return 0
        stopping.cancel()
        try:
            model, warm = loading.result()
        except ModelLoadError as error:
            raise StartError(str(error)) from error
        serving = _serving(name, service, model, warm, peers, threads, max_accepted)
        servicer.serving = serving
        serving.engine.start()
        try:
            await _set(healthy, health_pb2.HealthCheckResponse.SERVING)
            _log_ready(listen, service, serving, model.dtype)
            await _watch(stop, serving.engine, serving, healthy)
            return await _drain(servicer, serving.engine, healthy, linger_s, drain_s)
        finally:
            await asyncio.to_thread(serving.engine.stop, STOP_S)
    finally:
        servicer.close()
        await server.stop(STOP_S)
        await peers.close()


async def _listen(
    listen: str, servicer: WorkerServicer
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(
        options=[
            # Else a second process would share the port, and each get half of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
        ]
    )
    worker_pb2_grpc.add_WorkerServicer_to_server(servicer, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection(
        (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    await _set(healthy, health_pb2.HealthCheckResponse.NOT_SERVING)
    try:
        bound = server.add_insecure_port(listen)
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


def _load_in_thread(
    service: DiffusionService, threads: int
) -> asyncio.Future[tuple[Model, WarmUp]]:
    """Loads and warms up in a daemon thread, which does not hold up the exit as an executor's would."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Model, WarmUp]] = loop.create_future()

    def tell(result: tuple[Model, WarmUp] | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)

    def load() -> None:
        result, failure = None, None
        try:
            torch.set_num_threads(threads)
            spec = service.spec.model
            model = load_model(
                ModelSettings(
                    source=spec.source,
                    steps=spec.steps,
                    width=spec.width,
                    height=spec.height,
                    guidance_scale=spec.guidance_scale,
                    scheduler=spec.scheduler,
                    dtype=spec.dtype,
                )
            )
            result = (model, warm_up(model, service.spec.workers.max_batch))
        except BaseException as error:
            failure = error
        # The loop is gone if the process was stopped meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=load, name="load", daemon=True).start()
    return future


def _serving(
    name: str,
    service: DiffusionService,
    model: Model,
    warm: WarmUp,
    peers: Peers,
    threads: int,
    max_accepted: int,
) -> Serving:
    spec = service.spec.model
    profile = warm.profile
    identity = ModelIdentity(
        weights_digest=model.weights_digest,
        scheduler=spec.scheduler,
        scheduler_config=dict(model.scheduler.config),
        steps=spec.steps,
        width=spec.width,
        height=spec.height,
    )
    cache = service.spec.cache
    shard = Shard(name, cache.capacity_bytes, shared=cache.isolation == "Shared")
    settings = EngineSettings(
        # Larger batches did not fit into memory at warm-up.
        max_batch=min(service.spec.workers.max_batch, profile.max_batch),
        max_accepted=max_accepted,
        threads=threads,
        step_seconds=profile.tick_seconds(profile.max_batch),
        decode_seconds=profile.decode_seconds,
    )
    keep = keep_in(shard, fingerprint(identity, spec.guidance_scale))
    live = LiveProfile(profile)
    return Serving(
        engine=Engine(model, settings, keep, live=live),
        shard=shard,
        starts=StartFinder(name, shard, peers, model.latent_shape),
        identity=identity,
        limits=Limits(spec.width, spec.height, spec.guidance_scale, service.ladder),
        live=live,
    )


def _log_ready(
    listen: str, service: DiffusionService, serving: Serving, dtype: torch.dtype
) -> None:
    profile = serving.profile
    text = line(
        "ready",
        listen=listen,
        service=service.name,
        model=service.spec.model.source,
        device=profile.device,
        dtype=str(dtype).removeprefix("torch."),
        max_batch=profile.max_batch,
        seconds_per_image=profile.work_seconds(0),
        fingerprint=serving.default_fingerprint,
    )
    logger.info(text)


async def _watch(
    stop: asyncio.Event, engine: Engine, serving: Serving, healthy: health.aio.HealthServicer
) -> None:
    """Until told to stop or broken: reports every ten seconds if anything happened, and tells a hung device."""
    told, next_report, hung = 0, time.monotonic() + REPORT_S, False
    patience = max(HUNG_S, 20 * max(serving.profile.step_seconds))
    while not stop.is_set() and not engine.broken:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        if hung != (engine.silent_seconds() > patience):
            hung = not hung
            status = health_pb2.HealthCheckResponse
            await _set(healthy, status.NOT_SERVING if hung else status.SERVING)
            logger.error(line("hung" if hung else "recovered", seconds=engine.silent_seconds()))
        if time.monotonic() < next_report:
            continue
        next_report = time.monotonic() + REPORT_S
        now = engine.snapshot()
        if now.ticks != told:
            cache = serving.shard.stats()
            text = line(
                "served",
                images=now.images_done,
                active=len(now.active),
                queued=len(now.queued),
                ticks=now.ticks,
                out_of_memory=now.out_of_memory,
                cache_entries=cache.entries,
                cache_bytes=cache.used_bytes,
            )
            logger.info(text)
        told = now.ticks


async def _drain(
    servicer: WorkerServicer,
    engine: Engine,
    healthy: health.aio.HealthServicer,
    linger_s: float,
    drain_s: float,
) -> int:
    servicer.draining = True
    await _set(healthy, health_pb2.HealthCheckResponse.NOT_SERVING)
    if engine.broken:
        logger.error(line("broken", reason=engine.broken))
        return 1
    began = time.monotonic()
    await asyncio.sleep(linger_s)
    finished = await asyncio.to_thread(engine.drain, drain_s)
    left = 0 if finished else len(engine.snapshot().active) + len(engine.snapshot().queued)
    logger.info(line("drained", seconds=time.monotonic() - began, unfinished=left))
    return 0
