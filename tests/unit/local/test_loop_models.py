"""The loop where workers may hold another model: it asks, waits, learns the cost, leaves alone what fails."""

from dataclasses import dataclass, field

import pytest

from gesso.api import parse_service
from gesso.rpc.v1 import router_pb2, worker_pb2
from gesso_operator.fleet import Member
from gesso_operator.logs import Log
from gesso_operator.loop import ControlLoop
from gesso_operator.switching import ASSUMED_SECONDS, RETRY_SECONDS

LADDER = [0, 5, 10, 15, 20, 25]
SERVICE = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: two-models}
spec:
  model: {source: some/model, steps: 50, width: 64, height: 64}
  variants:
    - {name: default, skippedSteps: [0, 5, 10, 15, 20, 25]}
    - {name: fast, model: {source: some/other, steps: 4, quality: 0.9}}
  slo: {latencySeconds: 4, minRelativeQuality: 0.8}
  workers: {min: 2, max: 2, maxBatch: 1}
  scheduling: {planIntervalSeconds: 2}
"""


class Silent(Log):
    def _write(self, level, event, fields):
        pass


@dataclass
class Worker:
    """Does what it is told when the test says so."""

    name: str
    level: int = 0
    revision: int = 0
    model: str = ""
    loading: str | None = None
    error: str = ""
    last: dict = field(default_factory=dict)
    assigned: list = field(default_factory=list)

    def stats(self):
        told = worker_pb2.StatsResponse(
            worker=self.name,
            ready=self.loading is None,
            assigned_skipped_steps=self.level,
            assigned_revision=self.revision,
            model=self.model,
            loading_model=self.loading,
            switch_error=self.error,
            profile=worker_pb2.DeviceProfile(
                device="gpu",
                steps=4 if self.model else 50,
                encode_seconds=0.001,
                decode_seconds=0.001,
                step_seconds=[0.02],
            ),
        )
        if self.last:
            told.last_switch.CopyFrom(worker_pb2.Switch(**self.last))
        return told

    def loaded(self):
        self.last = {
            "from": self.model,
            "to": self.loading,
            "drain_seconds": 1.0,
            "load_seconds": 5.0,
            "warmup_seconds": 2.0,
        }
        self.model, self.loading = self.loading, None

    def failed(self):
        self.error, self.loading = "spec.variants[1].model.source: cannot be loaded", None


class World:
    """A router that reports load, and two workers, by the calls of `Clients`."""

    def __init__(self):
        self.now, self.rate, self.offered, self.revision = 0.0, 0.0, 0, 0
        self.workers = {n: Worker(n) for n in ("w0", "w1")}
        self.statuses = []
        self.loop = ControlLoop(
            parse_service(SERVICE), self, self, self, Silent("test"), clock=lambda: self.now
        )

    def members(self):
        return tuple(Member(n, n, True) for n in self.workers)

    def absent_routers(self):
        return ()

    def routers(self):
        return {"router": "router"}

    async def decided(self, decision, plan):
        pass

    async def write(self, status):
        self.statuses.append(status)

    async def keep_only(self, addresses):
        pass

    async def stats(self, address):
        return self.workers[address].stats()

    async def report(self, address):
        curve = [1, 0.99, 0.98, 0.97, 0.95, 0.92, 0.9]
        return router_pb2.ReportResponse(
            at=self.now,
            uptime_seconds=self.now,
            offered=self.offered,
            served_in_slo=self.offered,
            skipped_steps=LADDER,
            classes=[router_pb2.PromptClass(name="all", arrivals=self.offered, quality=curve)],
            plan_revision=self.revision,
        )

    async def apply_plan(self, address, request):
        self.revision = request.plan.revision
        return router_pb2.ApplyPlanResponse(revision=self.revision)

    async def assign(self, address, skipped_steps, revision, model=""):
        worker = self.workers[address]
        worker.assigned.append((model, skipped_steps))
        worker.level, worker.revision = skipped_steps, revision
        if model != worker.model:
            worker.loading, worker.error = model, ""
        return worker_pb2.AssignResponse(skipped_steps=skipped_steps, model=worker.model)

    async def rounds(self, count, rate):
        for _ in range(count):
            self.now += 2.0
            self.offered += round(rate * 2.0)
            await self.loop.tick()
        return self.statuses[-1]

    @property
    def loading(self):
        return [w for w in self.workers.values() if w.loading is not None]


@pytest.fixture
async def overloaded():
    """A world whose load asks for another model; the first worker has been asked to load it."""
    world = World()
    await world.rounds(6, rate=0.5)
    assert not world.loading
    for _ in range(40):
        await world.rounds(1, rate=20.0)
        if world.loading:
            return world
    raise AssertionError("no other model was asked for")


async def test_a_change_is_asked_for_once_and_waited_for(overloaded):
    world = overloaded
    asked = {w.name: len(w.assigned) for w in world.loading}
    status = await world.rounds(5, rate=20.0)
    for name, times in asked.items():
        assert len(world.workers[name].assigned) == times
        assert world.workers[name].assigned[-1] == ("fast", 0)
    assert "model" in status.condition("WorkersReady").message


async def test_one_of_two_goes_on_serving_while_the_other_changes(overloaded):
    world = overloaded
    for _ in range(4):
        assert len(world.loading) == 1
        await world.rounds(1, rate=20.0)
    world.loading[0].loaded()
    await world.rounds(1, rate=20.0)
    assert sorted(w.model for w in world.workers.values()) == ["", "fast"]
    assert [w.loading for w in world.loading] == ["fast"]


async def test_what_a_change_cost_is_told_to_the_planner(overloaded):
    world = overloaded
    assert ("", "fast", ASSUMED_SECONDS) in world.loop._settings.switch_s
    for worker in world.loading:
        worker.loaded()
    status = await world.rounds(1, rate=20.0)
    assert ("gpu", "fast", 8.0) in world.loop._settings.switch_s
    assert "fast:" in status.mix


async def test_a_model_that_cannot_be_loaded_is_left_alone_for_a_while(overloaded):
    world = overloaded
    for worker in world.loading:
        worker.failed()
    status = await world.rounds(3, rate=20.0)
    # Both are tried, the second once the first could not.
    while world.loading:
        world.loading[0].failed()
        status = await world.rounds(3, rate=20.0)
    told = status.condition("WorkersReady")
    assert (told.status, told.reason) == ("True", "AssignFailed")
    assert "spec.variants[1].model.source" in told.message
    assert not world.loading
    # The own model's levels are still used, since the curves are still understood.
    assert max(w.level for w in world.workers.values()) > 0
    tried = sum(m == "fast" for w in world.workers.values() for m, _ in w.assigned)
    world.now += RETRY_SECONDS
    for _ in range(40):
        await world.rounds(1, rate=20.0)
        if world.loading:
            break
    assert sum(m == "fast" for w in world.workers.values() for m, _ in w.assigned) > tried


async def test_a_worker_that_dies_of_a_model_is_not_made_to_die_again_at_once(overloaded):
    world = overloaded
    (victim,) = world.loading
    world.workers[victim.name] = reborn = Worker(victim.name)
    await world.rounds(1, rate=20.0)
    assert reborn.loading is None
