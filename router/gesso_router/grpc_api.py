"""The gRPC front door: ImageService for clients, RouterControl for the operator and judges of quality."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from gesso import logs
from gesso.rpc.v1 import image_pb2, image_pb2_grpc, router_pb2, router_pb2_grpc
from gesso.tracing import OFF, Tracing, carrier_of, failed, rpc, trace_id
from gesso_router import messages
from gesso_router.access.callers import Callers
from gesso_router.control import Control, StaleRevisionError
from gesso_router.core import Router
from gesso_router.errors import Ending, RequestError
from gesso_router.feedback import UnknownRequestError
from gesso_router.idempotency import HEADER, Idempotent
from gesso_router.image_answer import Made
from gesso_router.outgoing import Outbox, Unread
from gesso_router.plan_store import PlanError
from gesso_router.settings import RouterSettings
from gesso_router.validation import (
    GRPC_NAMES,
    MAX_SLO_SECONDS,
    Job,
    Raw,
    request_id_of,
    validate,
)

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

_STATUS = {
    Ending.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Ending.UNKNOWN_CALLER: grpc.StatusCode.UNAUTHENTICATED,
    Ending.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Ending.CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    Ending.SHED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Ending.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
}
RETRY_AFTER = "retry-after-ms"
REQUEST_ID = "x-request-id"
GENERATE = "gesso.v1.ImageService/Generate"
#: Of the room for images that are not read: with more taken, none is begun, so that few are made in vain.
BEGUN_SHARE = 0.5
_End = tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]


class ImageService(image_pb2_grpc.ImageServiceServicer):
    """Serves clients."""

    def __init__(
        self,
        router: Router,
        callers: Callers | None = None,
        results: Idempotent[tuple[Made, ...]] | None = None,
        tracing: Tracing = OFF,
    ) -> None:
        """`callers` may use it, everybody if absent; `results` are kept by idempotency key, none if absent."""
        self._router = router
        self._callers = callers or Callers(None)
        self._results = results
        self._tracing = tracing
        self._unread = Unread(router.settings.unread_bytes)

    async def Generate(  # type: ignore[override]  # noqa: N802
        self, request: image_pb2.GenerateRequest, context: Context
    ) -> None:
        """Streams the events of one image; see image.proto."""
        metadata = dict(context.invocation_metadata() or ())
        request_id = request.request_id or request_id_of(_text(metadata.get(REQUEST_ID)))
        carrier = carrier_of(metadata.items()) if self._tracing.on else {}
        outbox = None if request.image_only else Outbox(context.write)
        end: _End | None = None
        with self._tracing.serve(GENERATE, carrier, rpc(GENERATE)) as span:
            # Whatever a client calls its request, malformed ids stay out of the log.
            logs.begin(logs.Subject(request_id_of(request_id), trace_id(span)))
            try:
                await self._generate(request, request_id, metadata, context, outbox)
            except RequestError as error:
                failed(span, _STATUS[error.ending].name)
                end = _refusal(error)
            except Exception as error:
                failed(span, type(error).__name__)
                # Its text may quote the prompt: the client is not told, and the log has the hash.
                texts = tuple(text for text in (request.prompt, request.negative_prompt) if text)
                about = logs.subject()
                logs.begin(logs.Subject(about.request, about.trace, texts))
                log.exception("the request failed")
                end = grpc.StatusCode.INTERNAL, "the router failed; its log says why", ()
            finally:
                if outbox is not None and end is None:
                    outbox.close()
        if end is not None:
            if outbox is not None:
                try:
                    await outbox.flush()  # gRPC takes no status while it writes an event
                finally:
                    outbox.close()
            status, message, trailing = end
            await context.abort(status, message, (*trailing, (REQUEST_ID, logs.subject().request)))

    async def _generate(
        self,
        request: image_pb2.GenerateRequest,
        request_id: str,
        metadata: Mapping[str, str | bytes],
        context: Context,
        outbox: Outbox | None,
    ) -> None:
        caller = self._callers.of(_text(metadata.get("authorization")))
        client = caller.name or _host(context)
        self._unread.check(client, BEGUN_SHARE)
        raw = raw_of(request, request_id)
        job = caller.owns(validate(raw, self._router.service, GRPC_NAMES))
        context.set_trailing_metadata(((REQUEST_ID, request_id),))

        key = _text(metadata.get(HEADER.lower())) if self._results is not None else None

        async def emit(event: image_pb2.GenerateEvent) -> None:
            if outbox is not None and not outbox.put(event) and key is None:
                raise asyncio.CancelledError  # the client is gone, and nobody else wants the image

        remaining = context.time_remaining()

        async def make() -> image_pb2.Image:
            with self._callers.charged(caller, 1):
                return await self._router.generate(job, emit, remaining)

        if key is None:
            image = await make()
            await self._ready(outbox, client)
            event = messages.Encoded.image(request_id, image)
            del image  # from here on it is held once, as it goes out
        else:
            made = await self._once(caller.name, key, request, job, make)
            await self._ready(outbox, client)
            event = messages.Encoded.image(made.request_id, made.head(), made.data)
            del made
        size = len(event)
        self._unread.add(client, size)
        try:
            await context.write(event)
        except grpc.aio.BaseError:
            raise asyncio.CancelledError from None
        finally:
            self._unread.remove(client, size)

    async def _ready(self, outbox: Outbox | None, client: str) -> None:
        """Waits until a client has read its events. Raises RequestError (DEADLINE, SHED): it gets no image."""
        seconds = self._router.settings.unread_seconds
        if outbox is not None and not await outbox.flush(seconds):
            message = f"given up: the client did not read its events for {seconds:g} s"
            raise RequestError(Ending.DEADLINE, "unread-events", message)
        self._unread.check(client)

    async def _once(
        self,
        owner: str,
        key: str,
        request: image_pb2.GenerateRequest,
        job: Job,
        make: Callable[[], Awaitable[image_pb2.Image]],
    ) -> Made:
        """The image of the first call with a key; it is made though that call ends."""
        assert self._results is not None

        async def made() -> tuple[Made, ...]:
            return (Made.of(job, await make()),)

        asked = image_pb2.GenerateRequest()
        asked.CopyFrom(request)
        asked.ClearField("image_only")  # how it is told makes it no other image
        fingerprint = hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()
        (image,) = await self._results.once(owner, key, fingerprint, made)
        return image


def server_options(settings: RouterSettings) -> tuple[tuple[str, int], ...]:
    """Of a server that clients connect to."""
    longest = settings.late_factor * MAX_SLO_SECONDS + settings.unread_seconds
    seconds = {
        "keepalive_time": settings.connection_keepalive,
        "keepalive_timeout": settings.connection_keepalive_timeout,
        "max_connection_age": settings.connection_age,
        # No request is cut off.
        "max_connection_age_grace": longest,
    }
    return (
        # Without this option, two servers may share a port on Linux, each with half the requests.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", settings.connection_streams),
        *((f"grpc.{name}_ms", round(s * 1000)) for name, s in seconds.items()),
    )


def add_image_service(service: ImageService, server: grpc.aio.Server) -> None:
    """Has a server serve it, as the generated function does, with events that may be encoded already."""
    generate = grpc.unary_stream_rpc_method_handler(
        service.Generate,
        request_deserializer=image_pb2.GenerateRequest.FromString,
        response_serializer=messages.encoded,
    )
    handler = grpc.method_handlers_generic_handler("gesso.v1.ImageService", {"Generate": generate})
    server.add_generic_rpc_handlers((handler,))


def _refusal(error: RequestError) -> _End:
    """Without the error itself, whose traceback would hold what was under way."""
    trailing = [("reason", error.reason)]
    if error.retry_after_seconds is not None:
        millis = max(1, math.ceil(error.retry_after_seconds * 1000))
        trailing.append((RETRY_AFTER, str(millis)))
    return _STATUS[error.ending], error.message, tuple(trailing)


def _host(context: Context) -> str:
    """Where a call comes from: its connections count together."""
    peer: str = context.peer()
    return peer.rpartition(":")[0]


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def raw_of(request: image_pb2.GenerateRequest, request_id: str = "") -> Raw:
    """A request of the wire, absent fields as None, under the id that it goes by if it names none."""

    def given(name: str) -> Any:
        return getattr(request, name) if request.HasField(name) else None

    return Raw(
        prompt=request.prompt,
        request_id=request.request_id or request_id,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        seed=given("seed"),
        guidance_scale=given("guidance_scale"),
        slo_seconds=given("slo_seconds"),
        min_quality=given("min_quality"),
        format=request.format,
        tenant=request.tenant,
        image_only=request.image_only,
    )


class RouterControl(router_pb2_grpc.RouterControlServicer):
    """Serves the operator, and judges of quality."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def ApplyPlan(  # noqa: N802
        self, request: router_pb2.ApplyPlanRequest, context: Context
    ) -> router_pb2.ApplyPlanResponse:
        """Puts a plan in force; see router.proto."""
        try:
            return router_pb2.ApplyPlanResponse(revision=await self._control.apply(request))
        except PlanError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except StaleRevisionError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except OSError as error:
            await context.abort(grpc.StatusCode.INTERNAL, f"the plan cannot be saved: {error}")

    async def Report(  # noqa: N802
        self, request: router_pb2.ReportRequest, context: Context
    ) -> router_pb2.ReportResponse:
        """The counters since the start; see router.proto."""
        return self._control.report()

    async def Withdraw(  # noqa: N802
        self, request: router_pb2.WithdrawImagesRequest, context: Context
    ) -> router_pb2.WithdrawImagesResponse:
        """Has workers forget what requests left; see router.proto."""
        try:
            return await self._control.withdraw(request)
        except RequestError as error:
            await context.abort(_STATUS[error.ending], error.message)

    async def ReportQuality(  # noqa: N802
        self, request: router_pb2.ReportQualityRequest, context: Context
    ) -> router_pb2.ReportQualityResponse:
        """Learns what an image was worth; see router.proto."""
        try:
            return self._control.report_quality(request)
        except RequestError as error:
            await context.abort(_STATUS[error.ending], error.message)
        except UnknownRequestError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
