"""A worker that serves the contract without a model: `python -m stand_in_worker`, flags as the real one's.

STAND_IN=no-model: ends as a worker does whose model cannot be loaded. STAND_IN=mute: never healthy.
"""

import argparse
import asyncio
import os
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc


class Worker(worker_pb2_grpc.WorkerServicer):
    def __init__(self, name):
        self.name, self.level, self.revision = name, 0, 0

    async def Assign(self, request, context):  # noqa: N802
        if request.revision < self.revision:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "lower revision")
        self.level, self.revision = request.skipped_steps, request.revision
        return worker_pb2.AssignResponse(skipped_steps=self.level)

    async def Stats(self, request, context):  # noqa: N802
        profile = worker_pb2.DeviceProfile(
            device="none", steps=50, encode_seconds=0.001, decode_seconds=0.001, step_seconds=[0.01]
        )
        return worker_pb2.StatsResponse(
            worker=self.name,
            ready=True,
            assigned_skipped_steps=self.level,
            assigned_revision=self.revision,
            profile=profile,
        )


async def serve(flags):
    if os.environ.get("STAND_IN") == "no-model":
        print("loading", file=sys.stderr)
        print(f"{flags.name}: model source 'nowhere' is not there", file=sys.stderr)
        return 2
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(Worker(flags.name), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if os.environ.get("STAND_IN") == "mute":
        await checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server.add_insecure_port(flags.listen)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    await stop.wait()
    await server.stop(1)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in ("--name", "--listen", "--service", "--threads", "--fetch-deadline-ms"):
        parser.add_argument(flag)
    sys.exit(asyncio.run(serve(parser.parse_args())))
