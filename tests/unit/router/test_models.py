"""Other models than the service's own: who holds them, what is asked of them, what is told of them."""

from __future__ import annotations

import numpy as np
import pytest
from router_kit import PROFILE, Clock, Events, ScriptedPool, failing, job, router, service

from gesso.api import DiffusionService, parse_service
from gesso.profile import Profile
from gesso.rpc.v1 import worker_pb2
from gesso_router.core import REFUSALS, Router
from gesso_router.errors import Ending, RequestError
from gesso_router.fleet import Endpoint, Fleet, WorkerReport
from gesso_router.ledger import Outcome
from gesso_router.models import Models
from gesso_router.routing.quality import Option
from gesso_router.workers import report_of

FAST = Profile("fake", 4, 0.0, 0.0, (0.01, 0.011, 0.012, 0.013))


def two_models(policy: str = "QualityAware", quality: float = 0.9) -> DiffusionService:
    return parse_service(
        f"""
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {{name: two}}
spec:
  model: {{source: some/model, steps: 50, width: 64, height: 64, guidanceScale: 2.0}}
  variants:
    - {{name: default, skippedSteps: [0, 5, 10, 15, 20, 25]}}
    - {{name: fast, model: {{source: some/other, steps: 4, quality: {quality}}}}}
  slo: {{latencySeconds: 2.0, minRelativeQuality: 0.5}}
  workers: {{min: 1, max: 2, maxBatch: 4}}
  scheduling: {{policy: {policy}}}
"""
    )


def report(model: str, profile: Profile | None = None) -> WorkerReport:
    return WorkerReport(True, False, profile or (FAST if model else PROFILE), model=model)


def mixed(pool: ScriptedPool, held: dict[str, str], spec: DiffusionService | None = None) -> Router:
    """A router whose workers hold these models."""
    reports = {name: report(model) for name, model in held.items()}
    return router(pool, Clock(), spec or two_models(), tuple(held), reports=reports)


def test_a_service_tells_its_models() -> None:
    models = Models.of(two_models())
    assert models.steps == {"": 50, "fast": 4}
    assert models.unseen == (Option(0, 1.0), Option(0, 0.9, None, "fast"))
    assert models.steps_of(Option(10, 0.9)) == 40
    assert models.steps_of(models.others[0]) == 4
    assert Models.of(service()).unseen == (Option(0, 1.0),)


def test_a_worker_is_usable_with_the_steps_of_the_model_that_it_holds() -> None:
    fleet = Fleet(50, 4, 3, {"fast": 4})
    fleet.apply([Endpoint("a", "a:1", 0)])
    for told, usable in (
        (report("fast"), True),
        (report("fast", PROFILE), False),
        (report("", FAST), False),
        (report("gone"), False),
        (report(""), True),
    ):
        fleet.reported("a", told, 10.0)
        assert fleet.usable == (["a"] if usable else [])
        assert fleet.holding(told.model) == fleet.usable
        assert fleet.holding("other") == []
    fleet.reported("a", report("fast"), 11.0)
    assert [v.model for v in fleet.views(11.0)] == ["fast"]


def test_how_slow_a_worker_was_with_one_model_says_nothing_of_another() -> None:
    fleet = Fleet(50, 4, 3, {"fast": 4})
    fleet.apply([Endpoint("a", "a:1", 0)])
    fleet.reported("a", report(""), 10.0)
    flight = fleet.sent("a", "r", 50, 10.0)
    fleet.started("a", flight, 50, 10.0)
    fleet.progressed("a", flight, 1, 12.0)
    fleet.finished("a", flight)
    assert fleet.views(12.0)[0].profile.step_seconds[0] > PROFILE.step_seconds[0]
    fleet.reported("a", report("fast"), 13.0)
    assert fleet.views(13.0)[0].profile == FAST


def test_who_refused_is_left_alone_until_it_tells_how_it_is() -> None:
    fleet = Fleet(50, 4, 3)
    fleet.apply([Endpoint("a", "a:1", 0)])
    fleet.reported("a", report(""), 10.0)
    fleet.refused("a", fleet.sent("a", "again", 50, 11.0), 11.0)
    assert fleet.usable == []
    assert [e.name for e in fleet.reachable] == ["a"]
    fleet.reported("a", report(""), 10.9)  # asked before
    assert fleet.usable == []
    fleet.reported("a", report(""), 11.1)
    assert fleet.usable == ["a"]


def test_a_worker_that_loads_is_not_chosen_and_not_lost() -> None:
    told = worker_pb2.StatsResponse(ready=False, model="", loading_model="fast")
    told.profile.CopyFrom(worker_pb2.DeviceProfile(device="gpu", steps=50, step_seconds=[0.1]))
    fleet = Fleet(50, 4, 3, {"fast": 4})
    fleet.apply([Endpoint("a", "a:1", 0)])
    fleet.reported("a", report_of(told), 10.0)
    assert (fleet.usable, [e.name for e in fleet.reachable]) == ([], ["a"])
    told.ready, told.model, told.profile.steps = True, "fast", 4
    told.ClearField("loading_model")
    fleet.reported("a", report_of(told), 11.0)
    assert fleet.holding("fast") == ["a"]


@pytest.mark.parametrize(("held", "model"), [("fast", "fast"), ("", "")])
async def test_a_request_says_which_model_it_is_meant_for(held: str, model: str) -> None:
    pool = ScriptedPool()
    made = mixed(pool, {"a": held})
    image = await made.generate(job(made.service), Events())
    (sent,) = [request for _, request in pool.sent]
    assert (sent.model, sent.skipped_steps, sent.keep_latents) == (model, 0, not model)
    assert (image.model, image.predicted_quality) == (model, 0.9 if model else 1.0)
    assert made.ledger.quality_sum == pytest.approx(image.predicted_quality)


async def test_the_own_model_is_taken_while_seconds_are_cheap() -> None:
    pool = ScriptedPool()
    made = mixed(pool, {"a": "fast", "b": ""})
    assert (await made.generate(job(made.service), Events())).worker == "b"


async def test_another_model_below_the_floor_is_not_taken() -> None:
    made = mixed(ScriptedPool(), {"a": "fast"})
    with pytest.raises(RequestError) as caught:
        await made.generate(job(made.service, min_quality=0.95), Events())
    assert (caught.value.ending, caught.value.reason) == (Ending.UNAVAILABLE, "no-worker")


@pytest.mark.parametrize("policy", ["ClipperHA", "ClipperHT", "RoundRobin", "LeastOutstanding"])
async def test_policies_of_one_model_leave_the_others_alone(policy: str) -> None:
    pool = ScriptedPool()
    made = mixed(pool, {"a": "fast", "b": ""}, two_models(policy))
    for _ in range(3):
        await made.generate(job(made.service), Events())
    assert {(worker, request.model) for worker, request in pool.sent} == {("b", "")}


async def test_reported_curves_end_with_the_other_models() -> None:
    made = mixed(ScriptedPool(), {"a": ""})
    await made.generate(job(made.service), Events())
    (tally,) = [t for t in made.ledger.classes.values() if t.arrivals]
    assert np.array(tally.quality_sum) == pytest.approx([1, 0, 0, 0, 0, 0, 0.9])


async def test_a_worker_that_is_about_to_go_costs_no_attempt() -> None:
    pool = ScriptedPool()
    made = router(pool, Clock(), workers=("a", "b", "c"))
    pool.scripts["a red star"] = [failing(refused=True), failing()]
    events = Events()
    image = await made.generate(job(made.service), events)
    assert len({worker for worker, _ in pool.sent}) == 3
    assert (image.attempts, made.ledger.retried) == (2, 1)
    assert made.ledger.ended[Outcome.SERVED_IN_SLO] == 1
    # The one that refused gets nothing until it tells how it is, the one that failed does.
    assert pool.sent[0][0] not in made.fleet.usable
    assert pool.sent[1][0] in made.fleet.usable


async def test_where_all_are_about_to_go_the_request_is_shed() -> None:
    pool = ScriptedPool()
    made = router(pool, Clock())
    pool.scripts["a red star"] = [failing(refused=True)] * 2
    with pytest.raises(RequestError) as caught:
        await made.generate(job(made.service), Events())
    assert (caught.value.ending, caught.value.reason) == (Ending.UNAVAILABLE, "no-worker")
    assert made.ledger.ended[Outcome.SHED] == 1


async def test_a_request_is_not_sent_on_for_ever() -> None:
    pool = ScriptedPool()
    names = [f"w{i}" for i in range(REFUSALS + 10)]
    made = router(pool, Clock(), workers=names)
    pool.scripts["a red star"] = [failing(refused=True)] * len(names)
    with pytest.raises(RequestError):
        await made.generate(job(made.service), Events())
    assert len(pool.sent) == REFUSALS + 2
