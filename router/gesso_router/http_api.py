"""The HTTP front door: the images API, health, readiness, metrics, and what else it is given to serve."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gesso.tracing import OFF, Tracing
from gesso_router import http_errors
from gesso_router.access.callers import Callers
from gesso_router.access.http import Authorize
from gesso_router.core import Router
from gesso_router.idempotency import Idempotent
from gesso_router.image_answer import Made
from gesso_router.images_api import ImagesApi, kept_bytes
from gesso_router.metrics import registry_of
from gesso_router.request_ids import RequestIds


def create_app(
    router: Router,
    *pages: APIRouter,
    callers: Callers | None = None,
    results: Idempotent[tuple[Made, ...]] | None = None,
    tracing: Tracing = OFF,
) -> FastAPI:
    """The application of a router; `pages` are what it serves besides.

    `callers` may use it, everybody if absent; `results` are those by idempotency key.
    """
    app = FastAPI(
        title="Gesso router",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # Its own spans hold paths and queries as they came.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    http_errors.install(app)
    app.add_middleware(RequestIds, tracing=tracing)
    registry = registry_of(router)
    known = [Depends(Authorize(callers or Callers(None)))]
    images = ImagesApi(router, results or Idempotent(kept_bytes))
    app.include_router(images.public())
    for guarded in (images.guarded(), *pages):
        app.include_router(guarded, dependencies=known)

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
