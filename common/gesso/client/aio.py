"""The client for asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from gesso.api_key import key_of
from gesso.client.errors import GenerateError, error_of
from gesso.client.request import (
    OPTIONS,
    Image,
    OnProgress,
    Reader,
    Wish,
    credentials_of,
    metadata_of,
)
from gesso.rpc.v1 import image_pb2_grpc


class AsyncClient:
    """A connection to a service's router, on one event loop. Close it when done, or use `async with`."""

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        tls: bool = False,
        authority: bytes | None = None,
    ) -> None:
        """See Client."""
        self._api_key = key_of(api_key, "api_key")
        if tls or authority is not None:
            credentials = credentials_of(authority)
            self._channel = grpc.aio.secure_channel(target, credentials, options=OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        self._stub: Any = image_pb2_grpc.ImageServiceStub(self._channel)

    async def generate(
        self,
        wish: Wish | str,
        *,
        timeout_seconds: float = 120.0,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
        **fields: Any,
    ) -> Image:
        """See Client; cancelling it frees the worker."""
        asked = Wish(wish, **fields) if isinstance(wish, str) else wish
        reader = Reader(on_progress)
        metadata = metadata_of(self._api_key, idempotency_key)
        message = asked.as_message(image_only=on_progress is None)
        call = self._stub.Generate(message, timeout=timeout_seconds, metadata=metadata)
        try:
            async for event in call:
                reader.take(event)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
        finally:
            call.cancel()
        if reader.image is None:
            raise GenerateError("the call ended without an image", grpc.StatusCode.INTERNAL)
        return reader.image

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
