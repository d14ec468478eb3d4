"""Whatever ends an HTTP request without what was asked for, in the shape of OpenAI's errors."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gesso_router.errors import Ending, RequestError

log = logging.getLogger(__name__)

STATUS = {
    Ending.INVALID: 400,
    Ending.UNKNOWN_CALLER: 401,
    Ending.FORBIDDEN: 403,
    Ending.CONFLICT: 409,
    Ending.SHED: 429,
    Ending.UNAVAILABLE: 503,
    Ending.DEADLINE: 504,
}
_TYPE = {
    Ending.INVALID: "invalid_request_error",
    Ending.UNKNOWN_CALLER: "authentication_error",
    Ending.FORBIDDEN: "permission_error",
    Ending.CONFLICT: "idempotency_error",
    Ending.SHED: "rate_limit_error",
    Ending.UNAVAILABLE: "server_error",
    Ending.DEADLINE: "timeout_error",
}


def install(app: FastAPI) -> None:
    """Has every error of an application answered in this shape."""

    @app.exception_handler(HTTPException)
    async def _http_error(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code == 404 and message == "Not Found":
            message = f"{request.method} {request.url.path[:200]}: there is no such path"
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        body = _body(message, "invalid_request_error", None, code)
        return JSONResponse(body, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _malformed(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        field = str(fault["loc"][-1]) if fault["loc"] else "body"
        message = f"{field}: {str(fault.get('input'))[:64]!r} is not allowed: {fault['msg']}"
        return JSONResponse(_body(message, "invalid_request_error", field, "invalid_value"), 422)

    @app.exception_handler(RequestError)
    async def _refused(request: Request, error: RequestError) -> Response:
        return response(error)


def unforeseen() -> Response:
    """The answer where the router failed: what went wrong is in the log, and may hold what nobody must see."""
    return JSONResponse(_UNFORESEEN, 500)


def unforeseen_event() -> bytes:
    """The same as a server-sent event, for an answer that has begun."""
    return _event(_UNFORESEEN)


def response(error: RequestError) -> Response:
    """The answer to a request that was refused or failed."""
    return JSONResponse(body_of(error), STATUS[error.ending], headers=_headers(error))


def body_of(error: RequestError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    return _body(error.message, _TYPE[error.ending], error.param, error.reason)


def event_of(error: RequestError) -> bytes:
    """The same as a server-sent event, for an answer that has begun."""
    return _event(body_of(error))


def _headers(error: RequestError) -> Mapping[str, str]:
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if error.ending is Ending.UNKNOWN_CALLER:
        # A browser asks for a user and a password, and sends the password as the key.
        headers["WWW-Authenticate"] = 'Basic realm="gesso", charset="UTF-8"'
    return headers


def _event(body: Mapping[str, Any]) -> bytes:
    return b"event: error\ndata: " + json.dumps(body).encode() + b"\n\n"


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_UNFORESEEN = _body("the router failed; its log says why", "server_error", None, "internal")
