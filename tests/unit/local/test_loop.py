"""The loop's I/O against servers of the contract, in this process."""

import asyncio
from dataclasses import replace

import grpc
import pytest
from stand_in_worker import Worker

from gesso.rpc.v1 import router_pb2, router_pb2_grpc, worker_pb2_grpc
from gesso_operator.clients import Clients
from gesso_operator.fleet import Member
from gesso_operator.logs import Log
from gesso_operator.loop import ControlLoop
from gesso_operator.planning import Reason

LADDER = [0, 5, 10, 15, 20, 25]


class Router(router_pb2_grpc.RouterControlServicer):
    """Says that `rate` images/s come, all of one class, and keeps the plans."""

    def __init__(self):
        self.now, self.rate, self.offered, self.plans, self.revision = 0.0, 0.0, 0, [], 0

    def advance(self, seconds):
        self.now += seconds
        self.offered += round(self.rate * seconds)

    async def Report(self, request, context):  # noqa: N802
        return router_pb2.ReportResponse(
            at=self.now,
            uptime_seconds=self.now,
            offered=self.offered,
            served_in_slo=self.offered,
            predicted_quality_sum=0.95 * self.offered,
            skipped_steps=LADDER,
            classes=[
                router_pb2.PromptClass(
                    name="all", arrivals=self.offered, quality=[1, 0.99, 0.98, 0.97, 0.95, 0.92]
                )
            ],
            plan_revision=self.revision,
        )

    async def ApplyPlan(self, request, context):  # noqa: N802
        self.plans.append(request)
        self.revision = request.plan.revision
        return router_pb2.ApplyPlanResponse(revision=self.revision)


class Fleet:
    def __init__(self):
        self.router_address, self.list, self.statuses, self.decisions = "", [], [], []
        self.written = asyncio.Event()

    def members(self):
        return tuple(self.list)

    def absent_routers(self):
        return ()

    def routers(self):
        return {"router": self.router_address}

    async def decided(self, decision, plan):
        self.decisions.append((decision, plan))

    async def write(self, status):
        self.statuses.append(status)
        self.written.set()


class Silent(Log):
    def _write(self, level, event, fields):
        pass


@pytest.fixture
async def world(service):
    """A router and two workers that serve, and the loop that looks after them."""
    server, fleet, router = grpc.aio.server(), Fleet(), Router()
    router_pb2_grpc.add_RouterControlServicer_to_server(router, server)
    fleet.router_address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    servers, workers = [server], []
    for i in range(2):
        worker, server = Worker(f"worker-{i}"), grpc.aio.server()
        worker_pb2_grpc.add_WorkerServicer_to_server(worker, server)
        port = server.add_insecure_port("127.0.0.1:0")
        fleet.list.append(Member(worker.name, f"127.0.0.1:{port}", True))
        servers.append(server)
        workers.append(worker)
    for server in servers:
        await server.start()
    clients = Clients(read_seconds=0.5, write_seconds=0.5)
    loop = ControlLoop(service, fleet, fleet, clients, Silent("test"), clock=lambda: router.now)
    yield loop, fleet, router, workers, servers
    await clients.close()
    for server in servers:
        await server.stop(None)


async def rounds(world, count, rate=0.0):
    loop, _, router, _, _ = world
    router.rate = rate
    for _ in range(count):
        router.advance(2.0)
        status = await loop.tick()
    return status


async def test_first_tick_assigns_pushes_and_tells(world):
    _, fleet, router, workers, _ = world
    status = await rounds(world, 1)
    assert [w.revision for w in workers] == [1, 1]
    applied = router.plans[-1]
    assert applied.plan.reason == "InitialPlan"
    assert {w.name: w.address for w in applied.workers} == {m.name: m.address for m in fleet.list}
    assert status.condition("Ready").status == "True"
    assert fleet.statuses == [status]


async def test_load_changes_levels_and_price(world):
    _, _, router, workers, _ = world
    await rounds(world, 6, rate=1.0)
    status = await rounds(world, 6, rate=5.0)
    assert sum(w.level for w in workers) > 0
    applied = router.plans[-1]
    assert applied.plan.price > 0
    assert {w.name: w.assigned_skipped_steps for w in applied.workers} == {
        w.name: w.level for w in workers
    }
    assert status.mix == status.desired_mix != "0:2"
    assert status.slo.attainment == 1.0


async def test_worker_that_lost_its_level_gets_it_again(world):
    _, _, _, workers, _ = world
    await rounds(world, 6, rate=1.0)
    await rounds(world, 6, rate=9.0)
    level, revision = workers[0].level, workers[0].revision
    assert level > 0
    workers[0].level, workers[0].revision = 0, 0
    await rounds(world, 1, rate=9.0)
    assert workers[0].level == level
    assert workers[0].revision >= revision


async def test_worker_that_does_not_serve_is_not_told_to_the_router(world):
    _, fleet, router, _, _ = world
    await rounds(world, 2)
    fleet.list[1] = Member(
        "worker-1", fleet.list[1].address, False, message="worker-1 was ended by SIGKILL"
    )
    status = await rounds(world, 1)
    assert [w.name for w in router.plans[-1].workers] == ["worker-0"]
    ready = status.condition("Ready")
    assert (ready.status, ready.reason) == ("False", "SomeWorkersDown")
    assert "SIGKILL" in ready.message


async def test_silent_router_freezes_the_plan_and_is_told(world):
    _, _, router, workers, servers = world
    await rounds(world, 4, rate=1.0)
    plans = len(router.plans)
    await servers[0].stop(None)
    status = await rounds(world, 1, rate=50.0)
    assert status.condition("RouterReady").status == "False"
    assert status.condition("MetricsAvailable").reason == "NoReport"
    assert len(router.plans) == plans
    assert [w.level for w in workers] == [0, 0]


async def test_one_silent_router_of_two_freezes_the_plan_and_leaves_the_service_ready(world):
    loop, fleet, router, _, _ = world
    await rounds(world, 4, rate=1.0)
    alone = fleet.routers
    nobody = {"router-1": "127.0.0.1:1"}
    fleet.routers = lambda: {**alone(), **nobody}
    plans = len(router.plans)
    status = await rounds(world, 1, rate=50.0)
    assert status.condition("RouterReady").reason == "SomeRoutersDown"
    assert status.condition("MetricsAvailable").reason == "SomeReport"
    assert status.condition("Ready").status == "True"
    assert loop.decision.reason == Reason.NO_REPORT
    # The one that is there still gets what is in force.
    assert len(router.plans) == plans + 1


async def test_loop_ticks_when_woken_and_ends_when_told(world):
    loop, fleet, *_ = world
    stop = asyncio.Event()
    running = asyncio.create_task(loop.run(stop))

    async def written(count):
        while len(fleet.statuses) < count:
            fleet.written.clear()
            await fleet.written.wait()

    # The interval is 2 s: a second tick before that comes from the wake-up.
    await asyncio.wait_for(written(1), 5)
    began = asyncio.get_running_loop().time()
    loop.wake()
    await asyncio.wait_for(written(2), 5)
    assert asyncio.get_running_loop().time() - began < 1.5
    stop.set()
    await asyncio.wait_for(running, 5)


async def test_a_measured_start_replaces_the_guess_and_outlives_the_operator(world):
    loop, fleet, router, _, _ = world
    service = loop._service.model_copy(deep=True)
    workers = service.spec.workers.model_copy(
        update={"replicas": None, "min": 1, "max": 4, "start_seconds": 180.0}
    )
    service = service.model_copy(
        update={"spec": service.spec.model_copy(update={"workers": workers})}
    )
    elastic = ControlLoop(
        service, fleet, fleet, loop._clients, Silent("test"), lambda: router.now, elastic=True
    )
    assert elastic._settings.start_s == 180.0
    up = fleet.list[1]
    fleet.list[1] = replace(up, serving=False, starting=True, instance="a")
    assert (await elastic.tick()).workers.start_seconds is None
    fleet.list[1] = replace(up, instance="a", start_seconds=7.4)
    status = await elastic.tick()
    assert status.workers.start_seconds == elastic._settings.start_s == 7.0
    again = ControlLoop(
        service,
        fleet,
        fleet,
        loop._clients,
        Silent("test"),
        lambda: router.now,
        elastic=True,
        status=status,
    )
    assert (await again.tick()).workers.start_seconds == again._settings.start_s == 7.0
