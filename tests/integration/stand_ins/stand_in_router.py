"""A router that serves the contract without routing: keeps each ApplyPlan in STATE_DIR/logs/plans.log."""

import argparse
import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from gesso.rpc.v1 import image_pb2, image_pb2_grpc, router_pb2, router_pb2_grpc


class Control(router_pb2_grpc.RouterControlServicer):
    def __init__(self, state_dir):
        self.file = Path(state_dir) / "logs" / "plans.log"
        self.file.parent.mkdir(exist_ok=True)
        self.began, self.revision = time.time(), 0

    async def ApplyPlan(self, request, context):  # noqa: N802
        if request.plan.revision < self.revision:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "lower revision")
        self.revision = request.plan.revision
        workers = {w.name: [w.address, w.assigned_skipped_steps] for w in request.workers}
        with self.file.open("a") as stream:
            line = {"revision": self.revision, "price": request.plan.price, "workers": workers}
            stream.write(json.dumps(line) + "\n")
        return router_pb2.ApplyPlanResponse(revision=self.revision)

    async def Report(self, request, context):  # noqa: N802
        now = time.time()
        return router_pb2.ReportResponse(
            at=now,
            uptime_seconds=now - self.began,
            skipped_steps=[0, 5, 10, 15, 20, 25],
            plan_revision=self.revision,
        )


class Images(image_pb2_grpc.ImageServiceServicer):
    async def Generate(self, request, context):  # noqa: N802
        if not request.prompt:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "prompt: '' is not allowed: 1 to 4,096 bytes"
            )
        if request.prompt == "too much":
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "cannot make the deadline",
                trailing_metadata=(("retry-after-ms", "250"),),
            )
        yield image_pb2.GenerateEvent(
            started=image_pb2.Started(worker="worker-0", skipped_steps=10)
        )
        yield image_pb2.GenerateEvent(
            image=image_pb2.Image(
                data=request.prompt.encode(),
                format=request.format,
                width=64,
                height=64,
                seed=request.seed,
                skipped_steps=10,
                similarity=0.875,
                worker="worker-0",
                attempts=1,
            )
        )


async def serve(flags):
    server = grpc.aio.server()
    router_pb2_grpc.add_RouterControlServicer_to_server(Control(flags.state_dir), server)
    image_pb2_grpc.add_ImageServiceServicer_to_server(Images(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    server.add_insecure_port(flags.grpc)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    await stop.wait()
    await server.stop(1)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("--grpc", "--http", "--service", "--state-dir"):
        parser.add_argument(flag)
    sys.exit(asyncio.run(serve(parser.parse_args())))
