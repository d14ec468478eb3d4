"""The client for plain code."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import grpc

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


class Client:
    """A connection to a service's router; safe for threads. Close it when done, or use `with`."""

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        tls: bool = False,
        authority: bytes | None = None,
    ) -> None:
        """`target` is host:port; `authority` in PEM is trusted besides none other, and means TLS.

        Raises ValueError on a key that cannot be sent.
        """
        self._api_key = key_of(api_key, "api_key")
        if tls or authority is not None:
            credentials = credentials_of(authority)
            self._channel = grpc.secure_channel(target, credentials, options=OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._stub: Any = image_pb2_grpc.ImageServiceStub(self._channel)

    def generate(
        self,
        wish: Wish | str,
        *,
        timeout_seconds: float = 120.0,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
        **fields: Any,
    ) -> Image:
        """One image. `wish` is a prompt with further `fields` of Wish, or the whole.

        Raises GenerateError; ValueError on what cannot be sent.
        """
        asked = Wish(wish, **fields) if isinstance(wish, str) else wish
        reader = Reader(on_progress)
        metadata = metadata_of(self._api_key, idempotency_key)
        try:
            events = self._stub.Generate(
                asked.as_message(image_only=on_progress is None),
                timeout=timeout_seconds,
                metadata=metadata,
            )
            for event in events:
                reader.take(event)
        except grpc.RpcError as error:
            raise error_of(error) from error
        if reader.image is None:
            raise GenerateError("the call ended without an image", grpc.StatusCode.INTERNAL)
        return reader.image

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
