"""The HTTP front door: OpenAI's images API, health, readiness, metrics.

What is not supported is refused by name, never ignored.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from gesso.rpc.v1 import image_pb2
from gesso_router.core import Router
from gesso_router.errors import Ending, RequestError
from gesso_router.metrics import registry_of
from gesso_router.validation import FORMATS, HTTP_NAMES, MAX_SEED, Job, Raw, invalid, validate

MAX_BODY_BYTES = 64 * 1024
MAX_IMAGES = 4

_STATUS = {Ending.INVALID: 400, Ending.SHED: 429, Ending.UNAVAILABLE: 503, Ending.DEADLINE: 504}
_TYPE = {
    Ending.INVALID: "invalid_request_error",
    Ending.SHED: "rate_limit_error",
    Ending.UNAVAILABLE: "server_error",
    Ending.DEADLINE: "timeout_error",
}
_FIELDS = (
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "output_format",
    "user",
    "seed",
    "slo_ms",
    "min_quality",
    "negative_prompt",
    "guidance_scale",
)


def create_app(router: Router, *pages: APIRouter) -> FastAPI:
    """The application of a router; `pages` are what it serves besides."""
    app = FastAPI(title="Gesso router", docs_url=None, redoc_url=None, openapi_url=None)
    registry = registry_of(router)
    for more in pages:
        app.include_router(more)
    created = int(time.time())

    @app.exception_handler(HTTPException)
    async def _http_error(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail), "invalid_request_error", None, None)

    @app.exception_handler(RequestError)
    async def _request_error(request: Request, error: RequestError) -> Response:
        response = _error(
            _STATUS[error.ending], error.message, _TYPE[error.ending], error.param, error.reason
        )
        if error.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        return response

    @app.post("/v1/images/generations")
    async def _generations(request: Request) -> Response:
        jobs = parse(await _body(request), router)
        images = await _unless_gone(request, jobs, router)
        return JSONResponse(
            {
                "created": int(time.time()),
                "data": [{"b64_json": base64.b64encode(i.data).decode()} for i in images],
                "output_format": FORMATS[jobs[0].format],
                "size": f"{jobs[0].width}x{jobs[0].height}",
            },
            headers=_headers(jobs, images),
        )

    @app.get("/v1/models")
    async def _models() -> Response:
        model = {
            "id": router.service.name,
            "object": "model",
            "created": created,
            "owned_by": "gesso",
        }
        return JSONResponse({"object": "list", "data": [model]})

    @app.get("/healthz")
    async def _healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def _readyz() -> Response:
        if router.ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"not ready: {router.unready_reason}\n", status_code=503)

    @app.get("/metrics")
    async def _metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def parse(body: bytes, router: Router) -> list[Job]:
    """The jobs, 1 to 4, of a request to the images API. Raises RequestError (INVALID)."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(Ending.INVALID, "invalid_json", "body: not JSON") from None
    if not isinstance(fields, dict):
        raise RequestError(Ending.INVALID, "invalid_json", "body: a JSON object is needed")
    known = (*_FIELDS, "skipped_steps") if router.may_pin else _FIELDS
    for name in fields:
        if name not in known:
            raise RequestError(
                Ending.INVALID,
                "unsupported_parameter",
                f"{name[:64]}: not supported: the parameters are {', '.join(known)}",
                param=name[:64],
            )
    given = {name: value for name, value in fields.items() if value is not None}
    names = (router.service.name, router.service.spec.model.source)
    model = _typed(given, "model", str, "a string")
    if model is not None and model not in names:
        raise invalid("model", model, names[0])
    wanted = _typed(given, "response_format", str, "b64_json")
    if wanted not in (None, "b64_json"):
        raise invalid("response_format", wanted, "b64_json")
    n = _typed(given, "n", int, f"1 to {MAX_IMAGES}")
    n = 1 if n is None else n
    if not 1 <= n <= MAX_IMAGES:
        raise invalid("n", n, f"1 to {MAX_IMAGES}")
    if "prompt" not in given:
        raise RequestError(Ending.INVALID, "missing", "prompt: missing: required", param="prompt")
    width, height = _size(_typed(given, "size", str, "WIDTHxHEIGHT"))
    slo_ms = _typed(given, "slo_ms", float, "a number of milliseconds")
    raw = Raw(
        prompt=_typed(given, "prompt", str, "a string") or "",
        negative_prompt=_typed(given, "negative_prompt", str, "a string") or "",
        width=width,
        height=height,
        seed=_typed(given, "seed", int, f"0 to {MAX_SEED}"),
        guidance_scale=_typed(given, "guidance_scale", float, "a number"),
        slo_seconds=None if slo_ms is None else slo_ms / 1000,
        min_quality=_typed(given, "min_quality", float, "a number from 0 to 1"),
        format=_format(_typed(given, "output_format", str, "png, jpeg or webp")),
        tenant=_typed(given, "user", str, "a string") or "",
        skipped_steps=_typed(given, "skipped_steps", int, "a level of the ladder"),
    )
    first = validate(raw, router.service, HTTP_NAMES)
    # Images of one request differ by their seeds; the last of them must be one, too.
    if first.seed > MAX_SEED - (n - 1) and raw.seed is not None:
        raise invalid("seed", raw.seed, f"0 to {MAX_SEED - (n - 1)} with n = {n}")
    return [
        replace(
            first,
            request_id=first.request_id if n == 1 else f"{first.request_id}-{i}",
            seed=(first.seed + i) & MAX_SEED,
        )
        for i in range(n)
    ]


def _typed(fields: Mapping[str, Any], name: str, kind: type, allowed: str) -> Any:
    value = fields.get(name)
    if value is None:
        return None
    right = isinstance(value, (int, float) if kind is float else kind)
    if isinstance(value, bool) or not right:
        raise invalid(name, json.dumps(value), allowed)
    return value


def _size(size: str | None) -> tuple[int, int]:
    if size is None or size == "auto":
        return 0, 0
    width, _, height = size.partition("x")
    # More digits than any image has would only slow the conversion down.
    if not (width.isdecimal() and height.isdecimal() and len(size) <= 11):
        raise invalid("size", size, "WIDTHxHEIGHT in pixels, or auto")
    if not (int(width) and int(height)):
        raise invalid("size", size, "WIDTHxHEIGHT in pixels, each above 0, or auto")
    return int(width), int(height)


def _format(name: str | None) -> int:
    if name is None:
        return 0
    for number, known in FORMATS.items():
        if name == known:
            return number
    raise invalid("output_format", name, "png, jpeg or webp")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestError(
                Ending.INVALID,
                "too_large",
                f"body: more than {MAX_BODY_BYTES} bytes is not allowed; prompt: 1 to 4096 bytes of UTF-8",
            )
    return bytes(body)


async def _unless_gone(
    request: Request, jobs: Sequence[Job], router: Router
) -> list[image_pb2.Image]:
    """The images of all jobs; a client that goes away, or one job that fails, cancels the rest."""

    async def silent(event: image_pb2.GenerateEvent) -> None:
        """HTTP answers once, with the image."""

    tasks = [asyncio.create_task(router.generate(job, silent)) for job in jobs]
    gone = asyncio.create_task(_disconnected(request))
    try:
        pending: set[asyncio.Task[Any]] = {*tasks, gone}
        while not all(t.done() for t in tasks):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if gone in done:
                raise RequestError(Ending.DEADLINE, "client-gone", "the client went away")
            for task in done:
                task.result()
        return [t.result() for t in tasks]
    finally:
        for task in (*tasks, gone):
            task.cancel()
        await asyncio.gather(*tasks, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _headers(jobs: Sequence[Job], images: Sequence[image_pb2.Image]) -> dict[str, str]:
    """One value for each image, in order, separated by commas."""
    return {
        "X-Gesso-Request-Id": ", ".join(j.request_id for j in jobs),
        "X-Gesso-Skipped-Steps": ", ".join(str(i.skipped_steps) for i in images),
        "X-Gesso-Similarity": ", ".join(f"{i.similarity:.4f}" for i in images),
        "X-Gesso-Predicted-Quality": ", ".join(f"{i.predicted_quality:.4f}" for i in images),
        "X-Gesso-Worker": ", ".join(i.worker for i in images),
        "X-Gesso-Queue-Seconds": ", ".join(f"{i.queue_seconds:.3f}" for i in images),
        "X-Gesso-Seed": ", ".join(str(i.seed) for i in images),
    }


def _error(
    status: int, message: str, kind: str, param: str | None, code: str | None
) -> JSONResponse:
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": param, "code": code}},
        status_code=status,
    )
