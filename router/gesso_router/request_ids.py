"""Gives each HTTP request an id and a span: ASGI middleware around the whole application.

The id is the client's own, by `x-request-id`, if it can be one; every answer has it, refusals too.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from fastapi import Request
from opentelemetry.trace import INVALID_SPAN, Span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gesso import logs
from gesso.tracing import Tracing, failed, trace_id
from gesso_router import http_errors
from gesso_router.run import texts_of
from gesso_router.validation import Job, request_id_of

log = logging.getLogger(__name__)

HEADER = "x-request-id"
#: The paths whose requests are traced: nobody would look at the others.
TRACED = ("/v1/images/generations", "/console/generate")


class RequestIds:
    """See above. A span tells path and status, never content."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        request_id = request_id_of(headers.get(HEADER))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (HEADER.encode(), request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        with self._span(scope, headers) as span:
            logs.begin(logs.Subject(request_id, trace_id(span)))
            try:
                await self._app(scope, receive, send_on)
            except Exception as error:
                if status:  # the server ends the connection
                    raise
                _tell(error, scope)
                await http_errors.unforeseen()(scope, receive, send_on)
            finally:
                if span.is_recording():
                    _told(span, status)

    def _span(self, scope: Scope, headers: Mapping[str, str]) -> AbstractContextManager[Span]:
        path = scope["path"]
        if not self._tracing.on or path not in TRACED:
            return nullcontext(INVALID_SPAN)
        method = scope["method"] if scope["method"] == "POST" else "_OTHER"
        told = {
            "http.request.method": method,
            "http.route": path,
            "url.path": path,
            "url.scheme": scope.get("scheme", "http"),
        }
        return self._tracing.serve(f"{method} {path}", headers, told)


def request_id(request: Request) -> str:
    """Of a request that came through the middleware; a new one otherwise."""
    found: str | None = getattr(request.state, "request_id", None)
    return request_id_of(found)


def hide(job: Job) -> None:
    """Keeps a request's texts out of whatever is logged of it from here on, the server's own lines too."""
    logs.begin(replace(logs.subject(), hidden=texts_of(job)))


def _tell(error: Exception, scope: Scope) -> None:
    if logs.subject().hidden or scope["method"] in ("GET", "HEAD"):
        log.error("the request failed", exc_info=error)
        return
    # Its text may quote what came in a body that was not read to its end.
    at = "".join(traceback.format_tb(error.__traceback__))
    log.error("the request failed", extra={"cause": type(error).__name__, "at": at})


def _told(span: Span, status: int) -> None:
    if status:
        span.set_attribute("http.response.status_code", status)
    if not status or status >= 500:
        failed(span, str(status) if status else "client-gone")
