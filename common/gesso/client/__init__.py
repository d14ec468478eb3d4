"""A client of a Gesso service over gRPC: `Client`, and `AsyncClient` for asyncio."""

from gesso.client.aio import AsyncClient
from gesso.client.errors import (
    GenerateError,
    InvalidRequestError,
    LateError,
    RefusedError,
    UnauthenticatedError,
    UnavailableError,
)
from gesso.client.request import Image, Progress, Wish
from gesso.client.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "GenerateError",
    "Image",
    "InvalidRequestError",
    "LateError",
    "Progress",
    "RefusedError",
    "UnauthenticatedError",
    "UnavailableError",
    "Wish",
]
