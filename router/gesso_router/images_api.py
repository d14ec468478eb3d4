"""OpenAI's images API: `/v1/images/generations`, the images it names by URL, `/v1/models`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from gesso.rpc.v1 import image_pb2
from gesso_router import image_answer
from gesso_router.access.http import caller_of, charged
from gesso_router.body import bounded_body
from gesso_router.core import Router
from gesso_router.errors import Ending, RequestError
from gesso_router.http_errors import event_of, unforeseen_event
from gesso_router.idempotency import HEADER, Idempotent
from gesso_router.image_answer import KEEP_ALIVE, Made
from gesso_router.image_request import ImageRequest, parse
from gesso_router.image_store import ImageStore, StoredImage
from gesso_router.request_ids import hide, request_id
from gesso_router.run import Emit, unheard
from gesso_router.validation import Job

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
#: Previews that wait for a slow reader; beyond it they are left out, never the image.
MOST_WAITING = 8
#: Seconds without an event after which a comment keeps the connection.
KEEP_ALIVE_S = 15.0


def kept_bytes(images: Sequence[Made]) -> int:
    """What a result takes while it is kept for its idempotency key."""
    return sum(len(i.data) + 1024 for i in images)


class ImagesApi:
    """Of one router. What it keeps, results by key and images by URL, is bounded, and gone with the process."""

    def __init__(self, router: Router, results: Idempotent[tuple[Made, ...]]) -> None:
        """`results` are shared with the gRPC front door."""
        self._router = router
        self._results = results
        self.store = ImageStore()
        self._created = int(time.time())

    def guarded(self) -> APIRouter:
        """The routes that need an API key where there are any."""
        routes = APIRouter()
        routes.add_api_route("/v1/images/generations", self._generate, methods=["POST"])
        routes.add_api_route("/v1/models", self._models, methods=["GET"])
        routes.add_api_route("/v1/models/{name:path}", self._model, methods=["GET"])
        return routes

    def public(self) -> APIRouter:
        """The images by URL: to know the URL is to be allowed."""
        routes = APIRouter()
        routes.add_api_route("/v1/images/files/{name}", self._file, methods=["GET"])
        return routes

    async def _models(self) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, name: str) -> Response:
        if name not in (self._router.service.name, self._router.service.spec.model.source):
            allowed = self._router.service.name
            raise HTTPException(404, f"model: {name[:64]!r} does not exist: {allowed} does")
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "id": self._router.service.name,
            "object": "model",
            "created": self._created,
            "owned_by": "gesso",
        }

    async def _file(self, name: str) -> Response:
        image = self.store.get(name)
        if image is None:
            seconds = self.store.seconds
            raise HTTPException(404, f"this image is not here, or no more after {seconds:g} s")
        headers = {"Cache-Control": "private, max-age=600", "X-Content-Type-Options": "nosniff"}
        return Response(image.data, media_type=image.media_type, headers=headers)

    async def _generate(self, request: Request) -> Response:
        body = await bounded_body(request, MAX_BODY_BYTES, "; prompt: 1 to 4096 bytes of UTF-8")
        asked, caller = parse(body, self._router, request_id(request)), caller_of(request)
        hide(asked.jobs[0])
        asked = replace(asked, jobs=tuple(caller.owns(j) for j in asked.jobs))
        key = request.headers.get(HEADER)
        fingerprint = hashlib.sha256(body).digest()

        async def made(emit: Emit) -> tuple[Made, ...]:
            async def make() -> tuple[Made, ...]:
                # Who repeats a request with its key pays once.
                with charged(request, len(asked.jobs)):
                    return await self._make(asked.jobs, emit)

            if key is None:
                return await make()
            return await self._results.once(caller.name, key, fingerprint, make)

        if asked.stream:
            return await self._streamed(request, asked, made)
        images = await _unless_gone(request, made(unheard))
        if asked.by_url:
            urls = [self._url(request, i) for i in images]
            body_of = image_answer.by_url(images, urls)
            return JSONResponse(body_of, headers=image_answer.headers(images))
        pieces, length = image_answer.in_pieces(images)
        headers = {**image_answer.headers(images), "Content-Length": str(length)}
        return StreamingResponse(_each(pieces), media_type="application/json", headers=headers)

    async def _make(self, jobs: Sequence[Job], emit: Emit) -> tuple[Made, ...]:
        """The images of all jobs; one that fails cancels the rest."""
        router = self._router
        if len(jobs) == 1:
            return (Made.of(jobs[0], await router.generate(jobs[0], emit)),)
        tasks = [asyncio.create_task(router.generate(job, emit)) for job in jobs]
        try:
            images = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return tuple(Made.of(job, image) for job, image in zip(jobs, images, strict=True))

    async def _streamed(
        self,
        request: Request,
        asked: ImageRequest,
        made: Callable[[Emit], Awaitable[tuple[Made, ...]]],
    ) -> Response:
        """Events, once a worker has begun; what is refused before then has a status of its own."""
        waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        begun = asyncio.Event()
        sent = 0

        async def emit(event: image_pb2.GenerateEvent) -> None:
            nonlocal sent
            if event.WhichOneof("event") == "started":
                begun.set()
            preview = event.progress.preview
            if preview and sent < asked.partial_images and not waiting.full():
                waiting.put_nowait(image_answer.partial(asked, sent, preview))
                sent += 1

        async def run() -> tuple[Made, ...]:
            return await made(emit)

        task = asyncio.create_task(run(), name=f"stream {asked.jobs[0].request_id}")
        task.add_done_callback(_heard)
        starting = asyncio.create_task(begun.wait())
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait((task, starting, gone), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()  # raises what it was refused for
            elif gone.done():
                raise _client_gone()
        except BaseException:
            task.cancel()
            raise
        finally:
            starting.cancel()
            gone.cancel()
            await asyncio.gather(starting, gone, return_exceptions=True)
        headers = {
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "X-Gesso-Request-Id": asked.jobs[0].request_id,
        }
        stream = _events(task, waiting)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    def _url(self, request: Request, image: Made) -> str:
        try:
            self.store.put(image.stored_as, StoredImage(image.data, f"image/{image.format}"))
        except ValueError as error:
            message = f"response_format: 'url' is not possible for {error}: use b64_json"
            raise RequestError(
                Ending.INVALID, "too_large", message, param="response_format"
            ) from None
        return str(request.base_url.replace(path=f"/v1/images/files/{quote(image.stored_as)}"))


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _events(
    task: asyncio.Task[tuple[Made, ...]], waiting: asyncio.Queue[bytes]
) -> AsyncIterator[bytes]:
    """Previews as they come, then the image or an error. Who stops reading cancels the work."""
    getting: asyncio.Task[bytes] | None = None
    try:
        while not task.done():
            getting = getting or asyncio.create_task(waiting.get())
            done, _ = await asyncio.wait(
                (task, getting), timeout=KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED
            )
            if getting in done:
                yield getting.result()
                getting = None
            elif not done:
                yield KEEP_ALIVE
        if getting is not None and getting.done():
            yield getting.result()
            getting = None
        while not waiting.empty():
            yield waiting.get_nowait()
        try:
            (image,) = task.result()
        except RequestError as error:
            yield event_of(error)
            return
        except Exception:  # the answer has begun: a status cannot tell it any more
            log.exception("the request failed")
            yield unforeseen_event()
            return
        for piece in image_answer.completed(image):
            yield piece
    finally:
        for left in (task, getting):
            if left is not None:
                left.cancel()


def _heard(task: asyncio.Task[tuple[Made, ...]]) -> None:
    """Where nobody is left to hear an error, asyncio itself would log it, with whatever it quotes."""
    if not task.cancelled():
        task.exception()


async def _unless_gone(request: Request, work: Awaitable[tuple[Made, ...]]) -> tuple[Made, ...]:
    """What the work gives; a client that goes away cancels it."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        done, _ = await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task not in done:
            raise _client_gone()
        return task.result()
    finally:
        for left in (task, gone):
            left.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _client_gone() -> RequestError:
    return RequestError(Ending.DEADLINE, "client-gone", "the client went away")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
