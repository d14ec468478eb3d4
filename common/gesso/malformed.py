"""Messages that are no protobuf are the caller's fault, and told so: gRPC itself calls them INTERNAL."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError


class RefuseMalformed(grpc.aio.ServerInterceptor):
    """Ends calls whose request cannot be parsed with INVALID_ARGUMENT; the handler never sees them."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """See grpc.aio.ServerInterceptor. Streams of requests are left alone: none of the services has any."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        name = handler_call_details.method
        parse = handler.request_deserializer

        def deserialize(data: bytes) -> object:
            try:
                return parse(data)
            except DecodeError as error:
                return error

        if handler.response_streaming:

            async def stream(request: object, context: Any) -> Any:
                await _refuse(name, request, context)
                made = handler.unary_stream(request, context)
                if inspect.isawaitable(made):  # it writes to the context itself
                    await made
                    return
                async for response in made:
                    yield response

            return grpc.unary_stream_rpc_method_handler(
                stream, deserialize, handler.response_serializer
            )

        async def one(request: object, context: Any) -> Any:
            await _refuse(name, request, context)
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(one, deserialize, handler.response_serializer)


async def _refuse(name: str, request: object, context: Any) -> None:
    if isinstance(request, DecodeError):
        message = f"request of {name}: what came is not allowed: a message of its type"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
