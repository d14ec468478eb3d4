"""`python servers.py FOLDER SERVICES WORKERS`: routers and workers that answer, on loopback addresses.

Service s has its router at 127.1.s.200 and its workers from 127.1.s.1 on; all workers of one service are one
server and hold one level. FOLDER/rate-S has the images/s that come to service S; FOLDER/assigned-S is written
when its level changes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gesso.rpc.v1 import router_pb2, router_pb2_grpc, worker_pb2, worker_pb2_grpc

LADDER = (0, 5, 10, 15, 20, 25)
CURVE = (1.0, 0.99, 0.98, 0.96, 0.94, 0.9)


class Router(router_pb2_grpc.RouterControlServicer):
    """Counts what would have come at the rate that is written down."""

    def __init__(self, rate_file: Path) -> None:
        self._file, self._began = rate_file, time.time()
        self._offered, self._at, self._revision = 0.0, time.time(), 0

    async def Report(self, request: Any, context: Any) -> router_pb2.ReportResponse:  # noqa: N802
        """Counters, as of the rate so far."""
        now = time.time()
        rate = float(self._file.read_text()) if self._file.exists() else 0.0
        self._offered += rate * (now - self._at)
        self._at = now
        count = int(self._offered)
        return router_pb2.ReportResponse(
            at=now,
            uptime_seconds=now - self._began,
            offered=count,
            served_in_slo=count,
            predicted_quality_sum=0.97 * count,
            skipped_steps=LADDER,
            served_by_level=[count, 0, 0, 0, 0, 0],
            optimal_by_level=[0, 0, count, 0, 0, 0],
            classes=[router_pb2.PromptClass(name="all", arrivals=count, quality=CURVE)],
            plan_revision=self._revision,
        )

    async def ApplyPlan(self, request: Any, context: Any) -> router_pb2.ApplyPlanResponse:  # noqa: N802
        """Takes any plan."""
        self._revision = request.plan.revision
        return router_pb2.ApplyPlanResponse(revision=self._revision)


class Workers(worker_pb2_grpc.WorkerServicer):
    """All workers of a service, at one level."""

    def __init__(self, told: Path) -> None:
        self._told, self._level, self._revision = told, 0, 0

    async def Assign(self, request: Any, context: Any) -> worker_pb2.AssignResponse:  # noqa: N802
        """Notes the level, and when it changed."""
        if request.skipped_steps != self._level:
            self._told.write_text(f"{time.time()} {request.skipped_steps}")
        self._level, self._revision = request.skipped_steps, request.revision
        return worker_pb2.AssignResponse(skipped_steps=self._level)

    async def Stats(self, request: Any, context: Any) -> worker_pb2.StatsResponse:  # noqa: N802
        """Ready, and as fast as an A100."""
        return worker_pb2.StatsResponse(
            ready=True,
            assigned_skipped_steps=self._level,
            assigned_revision=self._revision,
            profile=worker_pb2.DeviceProfile(
                device="A100",
                steps=50,
                encode_seconds=0.02,
                decode_seconds=0.1,
                step_seconds=[0.08],
            ),
        )


async def main(folder: Path, services: int, workers: int) -> None:
    servers = []
    for s in range(1, services + 1):
        for servicer, add, addresses in (
            (
                Router(folder / f"rate-{s}"),
                router_pb2_grpc.add_RouterControlServicer_to_server,
                [f"127.1.{s}.200:7001"],
            ),
            (
                Workers(folder / f"assigned-{s}"),
                worker_pb2_grpc.add_WorkerServicer_to_server,
                [f"127.1.{s}.{w}:7101" for w in range(1, workers + 1)],
            ),
        ):
            server = grpc.aio.server()
            add(servicer, server)
            healthy = health.aio.HealthServicer()
            await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
            for address in addresses:
                server.add_insecure_port(address)
            await server.start()
            servers.append(server)
    (folder / "up").touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
