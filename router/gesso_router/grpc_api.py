"""The gRPC front door: ImageService for clients, RouterControl for the operator and judges of quality."""

from __future__ import annotations

import asyncio
import hashlib
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
from gesso_router.plan_store import PlanError
from gesso_router.validation import GRPC_NAMES, Job, Raw, request_id_of, validate

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

    async def Generate(  # type: ignore[override]  # noqa: N802
        self, request: image_pb2.GenerateRequest, context: Context
    ) -> None:
        """Streams the events of one image; see image.proto."""
        metadata = dict(context.invocation_metadata() or ())
        request_id = request.request_id or request_id_of(_text(metadata.get(REQUEST_ID)))
        carrier = carrier_of(metadata.items()) if self._tracing.on else {}
        refusal = None
        with self._tracing.serve(GENERATE, carrier, rpc(GENERATE)) as span:
            # Whatever a client calls its request, malformed ids stay out of the log.
            logs.begin(logs.Subject(request_id_of(request_id), trace_id(span)))
            try:
                await self._generate(request, request_id, metadata, context)
            except RequestError as error:
                failed(span, _STATUS[error.ending].name)
                refusal = error
        if refusal is not None:
            trailing = [("reason", refusal.reason), (REQUEST_ID, logs.subject().request)]
            if refusal.retry_after_seconds is not None:
                millis = max(1, math.ceil(refusal.retry_after_seconds * 1000))
                trailing.append((RETRY_AFTER, str(millis)))
            await context.abort(_STATUS[refusal.ending], refusal.message, tuple(trailing))

    async def _generate(
        self,
        request: image_pb2.GenerateRequest,
        request_id: str,
        metadata: Mapping[str, str | bytes],
        context: Context,
    ) -> None:
        caller = self._callers.of(_text(metadata.get("authorization")))
        raw = raw_of(request, request_id)
        job = caller.owns(validate(raw, self._router.service, GRPC_NAMES))
        context.set_trailing_metadata(((REQUEST_ID, request_id),))

        async def emit(event: image_pb2.GenerateEvent) -> None:
            try:
                await context.write(event)
            except grpc.aio.BaseError:  # the client is gone
                raise asyncio.CancelledError from None

        remaining = context.time_remaining()

        async def make() -> image_pb2.Image:
            self._callers.spend(caller, 1)
            return await self._router.generate(job, emit, remaining)

        key = _text(metadata.get(HEADER.lower()))
        if key is None or self._results is None:
            image = await make()
        else:
            request_id, image = await self._once(caller.name, key, request, job, make)
        event = messages.Encoded.image(request_id, image)
        del image  # from here on it is held once, as it goes out
        try:
            await context.write(event)
        except grpc.aio.BaseError:
            raise asyncio.CancelledError from None

    async def _once(
        self,
        owner: str,
        key: str,
        request: image_pb2.GenerateRequest,
        job: Job,
        make: Callable[[], Awaitable[image_pb2.Image]],
    ) -> tuple[str, image_pb2.Image]:
        """Id and image of the first call with a key; it is made though that call ends."""
        assert self._results is not None

        async def made() -> tuple[Made, ...]:
            return (Made.of(job, await make()),)

        asked = image_pb2.GenerateRequest()
        asked.CopyFrom(request)
        asked.ClearField("image_only")  # how it is told makes it no other image
        fingerprint = hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()
        (image,) = await self._results.once(owner, key, fingerprint, made)
        return image.request_id, image.as_message()


def add_image_service(service: ImageService, server: grpc.aio.Server) -> None:
    """Has a server serve it, as the generated function does, with events that may be encoded already."""
    generate = grpc.unary_stream_rpc_method_handler(
        service.Generate,
        request_deserializer=image_pb2.GenerateRequest.FromString,
        response_serializer=messages.encoded,
    )
    handler = grpc.method_handlers_generic_handler("gesso.v1.ImageService", {"Generate": generate})
    server.add_generic_rpc_handlers((handler,))


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
