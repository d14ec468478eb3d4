"""`python -m gesso_router.server`: one process, one event loop, gRPC and HTTP.

Ports are bound before the embedding model loads, so that a port in use is told within a second.
Health is SERVING once the model is loaded; without a worker, requests are refused as UNAVAILABLE.
SIGTERM refuses new requests and lets the accepted ones finish. Exit codes: 0 after SIGTERM or
SIGINT, 2 with one line on bad flags, files, ports or models.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence

import grpc.aio
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gesso import logs, tracing
from gesso.api import DiffusionService, load_service
from gesso.codebook import CodebookError
from gesso.health import HealthPort
from gesso.rpc.v1 import image_pb2, router_pb2, router_pb2_grpc
from gesso.tls import Tls, TlsError, add_port
from gesso_router.access.callers import Callers
from gesso_router.access.key_file import KeyFileError
from gesso_router.console.pages import pages
from gesso_router.console.watch import Watch
from gesso_router.control import Control
from gesso_router.core import Router
from gesso_router.embedding import TextEmbedder
from gesso_router.flags import Address, Flags, StartError, parse_flags
from gesso_router.fleet import Fleet
from gesso_router.grpc_api import (
    ImageService,
    RouterControl,
    add_image_service,
    server_options,
)
from gesso_router.http_api import create_app
from gesso_router.idempotency import Idempotent
from gesso_router.image_answer import Made
from gesso_router.images_api import kept_bytes
from gesso_router.models import Models
from gesso_router.plan_store import PlanStore
from gesso_router.predictor import load_predictor
from gesso_router.probes import find_codebook
from gesso_router.routing.quality import QualityPredictor
from gesso_router.settings import RouterSettings
from gesso_router.text_tower import EmbeddingLoadError, load_encoder
from gesso_router.workers import WorkerPool

log = logging.getLogger("gesso_router.server")  # __name__ is __main__ here

IMAGE_SERVICE = image_pb2.DESCRIPTOR.services_by_name["ImageService"].full_name
ROUTER_CONTROL = router_pb2.DESCRIPTOR.services_by_name["RouterControl"].full_name
HEALTH_NAMES = ("", IMAGE_SERVICE, ROUTER_CONTROL)


class _HttpServer(uvicorn.Server):
    """uvicorn inside our event loop, which handles the signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


class RouterServer:
    """The servers of one router, from bound ports to drained."""

    def __init__(
        self,
        flags: Flags,
        service: DiffusionService,
        predictor: QualityPredictor,
        settings: RouterSettings | None = None,
    ) -> None:
        """Must be made inside the event loop. Raises OSError if the state directory cannot be written to,
        StartError if keys or certificates cannot be used.
        """
        self.settings = settings or RouterSettings()
        self._flags = flags
        self.service = service
        fleet = Fleet(
            service.spec.model.steps,
            service.spec.workers.max_batch,
            self.settings.stats_misses,
            Models.of(service).steps,
        )
        self._tls = _tls(flags, service)
        self.callers = _callers(flags)
        self.results: Idempotent[tuple[Made, ...]] = Idempotent(kept_bytes)
        self.tracing = _tracing(flags, service)
        self.pool = WorkerPool(
            fleet,
            self.settings,
            on_change=lambda: self.router.gate.pump(),
            tls=self._tls,
            tracing=self.tracing,
        )
        self.router = Router(
            service, predictor, fleet, self.pool, settings=self.settings, tracing=self.tracing
        )
        self.control = Control(self.router, self.pool, PlanStore(flags.state_dir), flags.plan_file)
        mode = flags.console or service.spec.router.console
        self._watch = None if mode == "Off" else Watch(self.router, mode)
        self._watching: list[asyncio.Task[None]] = []
        self.health = health.aio.HealthServicer()
        self.grpc_port = 0
        self.http_port = 0
        self.control_port = 0
        self._health_port = HealthPort(self.health)
        options = server_options(self.settings)
        self._grpc = grpc.aio.server(options=options)
        #: Where it is controlled: apart from the clients' port, or on it.
        self._control = self._grpc if flags.control is None else grpc.aio.server(options=options)
        self._http: _HttpServer | None = None
        self._http_task: asyncio.Task[None] | None = None
        self._embedder: TextEmbedder | None = None

    async def listen(self) -> None:
        """Binds both ports and serves; health is NOT_SERVING. Raises StartError on a port in use."""
        http_socket = _bind("--http", self._flags.http)
        try:
            # gRPC's own complaint about a port in use comes with noise.
            _bind("--grpc", self._flags.grpc).close()
            images = ImageService(self.router, self.callers, self.results, self.tracing)
            add_image_service(images, self._grpc)
            router_pb2_grpc.add_RouterControlServicer_to_server(
                RouterControl(self.control), self._control
            )
            served = {IMAGE_SERVICE: self._grpc, ROUTER_CONTROL: self._control}
            for server in {self._grpc, self._control}:
                health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
                own = (name for name, at in served.items() if at is server)
                reflection.enable_server_reflection(
                    (*own, health.SERVICE_NAME, reflection.SERVICE_NAME), server
                )
            await self._set_health(serving=False)
            await self._listen_grpc()
        except BaseException:
            http_socket.close()
            raise
        self.http_port = http_socket.getsockname()[1]
        app = create_app(
            self.router,
            *([pages(self._watch)] if self._watch else []),
            callers=self.callers,
            results=self.results,
            tracing=self.tracing,
        )
        self._http = _HttpServer(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(self.settings.drain_seconds),
            )
        )
        if self._tls is not None:
            self._http.config.load()
            try:
                self._http.config.ssl = self._tls.http_context()
            except TlsError as error:
                raise StartError(f"--tls-dir: {error}") from None
        self._http_task = asyncio.create_task(self._http.serve([http_socket]), name="http")
        self._watching.append(asyncio.create_task(self.callers.watch(), name="keys"))
        if self._watch is not None:
            self._watching.append(asyncio.create_task(self._watch.run(), name="console"))
        for task in (self._http_task, *self._watching):
            task.add_done_callback(_tell_failure)
        self.control.restore()
        log.info("listening", extra={"grpc_port": self.grpc_port, "http_port": self.http_port})

    async def _listen_grpc(self) -> None:
        flags, tls = self._flags, self._tls
        mutual = tls is not None and tls.mutual
        ports = [("--grpc", self._grpc, flags.grpc, mutual and flags.control is None)]
        if flags.control is not None:
            ports.append(("--control", self._control, flags.control, mutual))
        bound = []
        for flag, server, address, parts_only in ports:
            try:
                bound.append(add_port(server, str(address), tls, mutual=parts_only))
            except RuntimeError as error:
                raise StartError(f"{flag}: {address} cannot be bound: {error}") from None
            await server.start()
        self.grpc_port, self.control_port = bound[0], bound[-1]
        if flags.health is not None:
            try:
                await self._health_port.listen(str(flags.health))
            except OSError as error:
                raise StartError(f"--health: {flags.health} cannot be bound: {error}") from None

    async def load(self) -> None:
        """Loads the embedding model, unless the policy needs none; then health is SERVING."""
        if self.router.needs_embedder:
            embedding = self.service.spec.router.embedding
            encode = await asyncio.to_thread(load_encoder, embedding)
            try:
                codebook = await asyncio.to_thread(find_codebook, embedding)
            except (CodebookError, OSError) as error:
                raise EmbeddingLoadError(
                    f"spec.router.embedding: {embedding!r}: {error}"
                ) from error
            if codebook is not None:
                self.pool.probes.learn(codebook)
            self._embedder = TextEmbedder(
                encode,
                self.settings.embed_batch,
                self.settings.embed_cache,
                self.settings.embed_timeout,
            )
            self.router.embedder = self._embedder
        await self._set_health(serving=True)
        log.info("serving", extra={"service": self.service.name})

    async def close(self) -> None:
        """Says that it goes, lingers, refuses new requests, waits for the accepted ones, then ends everything.

        Who routes to this router hears of its end a little later than it does.
        """
        self.router.leaving = True
        await self._set_health(serving=False)
        await asyncio.sleep(self._flags.linger_s)
        self.router.draining = True
        if self._http is not None:
            self._http.should_exit = True
        await self._grpc.stop(self.settings.drain_seconds)
        if self._control is not self._grpc:
            await self._control.stop(None)
        if self._http_task is not None:
            await asyncio.wait({self._http_task}, timeout=self.settings.drain_seconds)
        for task in self._watching:
            task.cancel()
        await self.results.close()
        await self.pool.close()
        await self._health_port.close()
        if self._embedder is not None:
            await self._embedder.close()
        await asyncio.to_thread(self.tracing.close)

    async def _set_health(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in HEALTH_NAMES:
            await self.health.set(name, status.SERVING if serving else status.NOT_SERVING)


def _tell_failure(task: asyncio.Task[None]) -> None:
    """Nobody waits for these tasks: one that fails must not go unnoticed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task failed", extra={"task": task.get_name(), "cause": type(error).__name__})


def _callers(flags: Flags) -> Callers:
    try:
        return Callers(flags.keys)
    except KeyFileError as error:
        raise StartError(f"--keys: {flags.keys}: {error}") from None


def _tls(flags: Flags, service: DiffusionService) -> Tls | None:
    if flags.tls_dir is None:
        return None
    try:
        return Tls.wanted_by(service.spec.security.tls, flags.tls_dir)
    except TlsError as error:
        raise StartError(f"--tls-dir: {error}") from None


def _tracing(flags: Flags, service: DiffusionService) -> tracing.Tracing:
    if flags.otlp_endpoint is None:
        return tracing.OFF
    endpoint, ratio = flags.otlp_endpoint, flags.trace_ratio
    return tracing.start(endpoint, "router", service.name, socket.gethostname(), ratio)


def _bind(flag: str, address: Address) -> socket.socket:
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address.host, address.port))
            bound.listen(128)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise StartError(f"{flag}: {address} cannot be bound: {error.strerror or error}") from None
    return bound


async def serve(flags: Flags, service: DiffusionService, predictor: QualityPredictor) -> None:
    """Runs until SIGTERM or SIGINT. Raises StartError."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        settings = RouterSettings(drain_seconds=flags.drain_s)
        server = RouterServer(flags, service, predictor, settings)
    except OSError as error:
        raise StartError(f"--state-dir: {flags.state_dir}: {error.strerror or error}") from None
    await server.listen()
    loading = asyncio.create_task(server.load(), name="load")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if loading.done():
            try:
                loading.result()
            except EmbeddingLoadError as error:
                raise StartError(str(error)) from None
            await stop.wait()
    finally:
        log.info("draining", extra={"open": server.router.ledger.open})
        loading.cancel()
        stopping.cancel()
        await server.close()
    log.info("stopped")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the router; returns the exit code."""
    try:
        flags = parse_flags(sys.argv[1:] if arguments is None else arguments)
    except StartError as error:
        return _failed(error)
    logs.set_up("router", flags.log_format, own=("gesso_router",))
    try:
        service = load_service(flags.service)
        predictor = load_predictor(service)
    except ValueError as error:
        return _failed(error)
    # What was imported stays: looking through it for garbage now and then would hold up requests.
    gc.freeze()
    try:
        asyncio.run(serve(flags, service, predictor))
    except StartError as error:
        return _failed(error)
    return 0


def _failed(error: Exception) -> int:
    print(f"gesso_router: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking down torch and gRPC takes the interpreter seconds at best, with nothing left to do.
    os._exit(code)
