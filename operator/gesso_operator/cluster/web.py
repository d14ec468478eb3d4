"""Liveness, readiness and metrics of the operator, over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class Web:
    """A small server; `alive` and `ready` give what is wrong, or nothing."""

    def __init__(
        self,
        alive: Callable[[], str],
        ready: Callable[[], str],
        metrics: CollectorRegistry,
    ) -> None:
        """Binds nothing yet."""
        self._alive, self._ready, self._metrics = alive, ready, metrics
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Serves; gives the port. Raises OSError where it cannot be bound."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        found: int = self._runner.addresses[0][1]
        return found

    async def stop(self) -> None:
        """Ends it."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return _told(self._alive(), "alive")

    async def _readyz(self, request: web.Request) -> web.Response:
        return _told(self._ready(), "ready")

    async def _scrape(self, request: web.Request) -> web.Response:
        body = generate_latest(self._metrics)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _told(trouble: str, fine: str) -> web.Response:
    if trouble:
        return web.Response(text=f"not {fine}: {trouble}\n", status=503)
    return web.Response(text=f"{fine}\n")
