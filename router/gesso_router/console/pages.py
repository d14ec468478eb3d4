"""The console's pages and endpoints, for the router's HTTP server.

Everything comes from the package; the Content-Security-Policy lets the page speak to this router only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from gesso.rpc.v1 import image_pb2
from gesso_router.access.http import caller_of, refund, spend
from gesso_router.body import bounded_body
from gesso_router.console.watch import Watch
from gesso_router.core import Router
from gesso_router.errors import RequestError
from gesso_router.request_ids import hide, request_id
from gesso_router.validation import FORMATS, HTTP_NAMES, MAX_SEED, Job, Raw, invalid, validate

MAX_BODY_BYTES = 32 * 1024
#: Events of one image that wait for a slow reader; beyond it progress is left out, never the image.
MOST_WAITING = 64
#: Denoising steps between two previews.
PREVIEW_STEPS = 5

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Wish(BaseModel):
    """What the page may ask for."""

    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    guidance_scale: float | None = None
    slo_ms: float | None = None
    min_quality: float | None = None
    skipped_steps: int | None = None
    user: str = ""

    @field_validator("seed", mode="before")
    @classmethod
    def _digits(cls, value: object) -> object:
        """A page sends a seed as text: JavaScript's numbers end at 2^53."""
        if value is None or type(value) is int:
            return value
        if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value):
            return int(value)
        raise PydanticCustomError("seed", f"0 to {MAX_SEED}, as a number or its digits")


def pages(watch: Watch) -> APIRouter:
    """The routes: `/`, its assets, `/console/state`, `/console/generate`, `/console/images/INSTANCE/NUMBER`."""
    routes = APIRouter()
    folder = resources.files("gesso_router.console") / "static"
    held = {name: (folder / name).read_bytes() for name in ASSETS}

    def asset(name: str) -> Response:
        headers = {**HEADERS, "Cache-Control": "no-cache"}
        return Response(held[name], media_type=ASSETS[name], headers=headers)

    @routes.get("/")
    async def _page() -> Response:
        return asset("index.html")

    @routes.get("/console/assets/{name}")
    async def _asset(name: str) -> Response:
        if name not in held:
            raise HTTPException(404, f"{name[:64]}: there is no such asset")
        return asset(name)

    @routes.get("/console/state")
    async def _state(
        request: Request,
        seq: Annotated[int, Query(ge=0)] = 0,
        picture: Annotated[int, Query(ge=0)] = 0,
        instance: Annotated[str, Query(max_length=64)] = "",
    ) -> Response:
        state = watch.state(seq, picture, caller_of(request).tenant, instance)
        body = json.dumps(state, separators=(",", ":"))
        headers = {**HEADERS, "Cache-Control": "no-store"}
        return Response(body, media_type="application/json", headers=headers)

    @routes.get("/console/images/{instance}/{number}")
    async def _image(request: Request, instance: str, number: int) -> Response:
        gallery, owner = watch.gallery, caller_of(request).tenant
        own = gallery if instance == watch.instance else None
        picture = own.picture(number, owner) if own is not None else None
        if picture is None:
            raise HTTPException(404, f"image {number}: it does not hang in the gallery")
        headers = {
            **HEADERS,
            "Cache-Control": "private, max-age=3600, immutable",
            "Vary": "Authorization",
        }
        return Response(picture.data, media_type=picture.media_type, headers=headers)

    @routes.post("/console/generate")
    async def _generate(request: Request) -> Response:
        # A page of another origin cannot send this type without asking first, and is not answered.
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise HTTPException(415, "content-type: application/json is needed")
        wish = wished(
            await bounded_body(request, MAX_BODY_BYTES), watch.router, request_id(request)
        )
        hide(wish)
        job = caller_of(request).owns(wish)
        spend(request, 1)
        headers = {**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        told = events(watch.router, job, lambda error: refund(request, 1, error))
        return StreamingResponse(told, media_type="text/event-stream", headers=headers)

    return routes


def wished(body: bytes, router: Router, request_id: str = "") -> Job:
    """The job of a request of the page, under an id. Raises RequestError (INVALID)."""
    try:
        wish = Wish.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"]) or "body"
        value = "" if fault["type"] == "missing" else fault["input"]
        raise invalid(field, value, fault["msg"]) from None
    raw = Raw(
        prompt=wish.prompt,
        request_id=request_id,
        negative_prompt=wish.negative_prompt,
        seed=wish.seed,
        guidance_scale=wish.guidance_scale,
        slo_seconds=None if wish.slo_ms is None else wish.slo_ms / 1000,
        min_quality=wish.min_quality,
        tenant=wish.user,
        skipped_steps=wish.skipped_steps,
    )
    job = validate(raw, router.service, HTTP_NAMES)
    # Of images side by side only the end counts.
    return job if job.skipped_steps is not None else replace(job, preview_steps=PREVIEW_STEPS)


async def events(
    router: Router, job: Job, not_made: Callable[[Exception], None] = lambda _: None
) -> AsyncIterator[str]:
    """Server-sent events of one image: queued, started, progress..., then image or error.

    Who stops reading cancels the work. `not_made` hears why there is no image.
    """
    waiting: asyncio.Queue[str | None] = asyncio.Queue(MOST_WAITING)

    async def emit(event: image_pb2.GenerateEvent) -> None:
        told = _told(event)
        if told is not None and not waiting.full():
            waiting.put_nowait(told)

    async def work() -> None:
        try:
            last = _event("image", _shown(await router.generate(job, emit)))
        except RequestError as error:
            not_made(error)
            last = _event(
                "error",
                {
                    "message": error.message,
                    "code": error.reason,
                    "retry_after": error.retry_after_seconds,
                },
            )
        except Exception as error:
            not_made(error)
            last = _event("error", {"message": "the router failed", "code": "internal"})
            await waiting.put(last)
            await waiting.put(None)
            raise
        await waiting.put(last)
        await waiting.put(None)

    task = asyncio.create_task(work(), name=f"console {job.request_id}")
    try:
        while (told := await waiting.get()) is not None:
            yield told
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _told(event: image_pb2.GenerateEvent) -> str | None:
    match event.WhichOneof("event"):
        case "queued":
            seconds = event.queued.predicted_wait_seconds
            return _event("queued", {"wait": round(seconds, 3)})
        case "started":
            started = event.started
            return _event(
                "started", {"worker": started.worker, "skipped_steps": started.skipped_steps}
            )
        case "progress":
            progress = event.progress
            done: dict[str, Any] = {"step": progress.step, "steps": progress.steps}
            if progress.preview:
                done["preview"] = base64.b64encode(progress.preview).decode()
            return _event("progress", done)
    return None


def _shown(image: image_pb2.Image) -> dict[str, Any]:
    return {
        "media_type": f"image/{FORMATS[image.format]}",
        "b64": base64.b64encode(image.data).decode(),
        "skipped_steps": image.skipped_steps,
        "similarity": round(image.similarity, 4),
        "quality": round(image.predicted_quality, 4),
        "worker": image.worker,
        "model": image.model,
        "seed": str(image.seed),
        "queue_seconds": round(image.queue_seconds, 3),
        "generate_seconds": round(image.generate_seconds, 3),
        "attempts": image.attempts,
    }


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
