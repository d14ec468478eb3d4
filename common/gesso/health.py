"""A port for grpc.health alone: kubelets probe without TLS, and need to see no more."""

from __future__ import annotations

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc


class HealthPort:
    """Serves a health servicer in clear beside the server whose health it tells."""

    def __init__(self, healthy: health.aio.HealthServicer) -> None:
        self._healthy = healthy
        self._server: grpc.aio.Server | None = None

    async def listen(self, address: str) -> int:
        """Serves at HOST:PORT; gives the port. Raises OSError if it cannot be bound."""
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        health_pb2_grpc.add_HealthServicer_to_server(self._healthy, server)
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await server.start()
        self._server = server
        return port

    async def close(self) -> None:
        """Ends it."""
        if self._server is not None:
            await self._server.stop(None)
