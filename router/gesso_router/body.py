"""Reads the body of an HTTP request, up to a bound."""

from __future__ import annotations

from fastapi import Request

from gesso_router.errors import Ending, RequestError


async def bounded_body(request: Request, most_bytes: int, more: str = "") -> bytes:
    """The whole body. Raises RequestError above the bound; `more` is told beside it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise RequestError(
                Ending.INVALID,
                "too_large",
                f"body: more than {most_bytes} bytes is not allowed{more}",
            )
    return bytes(body)
