"""What judges report: what is remembered of images, what is learned, refused and counted."""

from __future__ import annotations

import math

import learned_kit as kit
import pytest
from prometheus_client import generate_latest
from router_kit import LADDER, Clock, Events, ScriptedPool, job, router, service

from gesso.plan import Plan
from gesso.rpc.v1 import router_pb2, worker_pb2
from gesso_router.core import Router
from gesso_router.errors import Ending, RequestError
from gesso_router.feedback import Feedback, Shown, UnknownRequestError
from gesso_router.metrics import registry_of
from gesso_router.routing.quality import Match, QualityPredictor

PROMPT, NEIGHBOUR = kit.unit(1), kit.unit(2)
MATCH = Match("e1", "b", 0.8, LADDER[1:], NEIGHBOUR)
#: At its price every prompt skips as much as it can.
PRICED = Plan(1, 0.0, (), 20.0, "Test", "")


class Embedder:
    async def embed(self, prompt: str) -> object:
        return PROMPT


async def served(
    request_id: str = "r1", used: int | None = None, predictor: QualityPredictor | None = None
) -> tuple[Router, Clock, int]:
    """A router with a learned predictor that has served one image, and the K it used."""

    async def script(request: worker_pb2.WorkerGenerateRequest) -> int:
        return request.skipped_steps if used is None else used

    pool, clock, spec = ScriptedPool(matches=[MATCH], scripts={"a": [script]}), Clock(), service()
    made = router(pool, clock, spec, predictor=predictor or kit.predictor())
    made.embedder = Embedder()  # type: ignore[assignment]
    made.plan = PRICED
    image = await made.generate(job(spec, "a", request_id=request_id, min_quality=0), Events())
    return made, clock, image.skipped_steps


async def test_a_report_draws_the_prediction_to_it() -> None:
    made, _, k = await served()
    assert k > 0
    before = made.predictor
    i = LADDER.index(k)
    told = before.quality(0.8, PROMPT, NEIGHBOUR)[i]
    verdict = made.report_quality("r1", told - 0.3)
    assert verdict.predicted_quality == pytest.approx(told)
    assert verdict.learned
    assert made.predictor is not before
    assert made.predictor.quality(0.8, PROMPT, NEIGHBOUR)[i] < told
    # What places prompts knows it too.
    assert made._placer.predictor is made.predictor


@pytest.mark.parametrize(
    ("used", "predictor"),
    [(0, None), (5, None), (None, kit.predictor().fallback.table)],
    ids=["in full", "another K than asked for", "no learned predictor"],
)
async def test_what_teaches_nothing_is_counted_all_the_same(
    used: int | None, predictor: QualityPredictor | None
) -> None:
    made, _, k = await served(used=used, predictor=predictor)
    before = made.predictor
    assert not made.report_quality("r1", 0.5).learned
    assert made.predictor is before
    assert made.feedback.tallies[k].reports == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.01, 1.51])
async def test_a_quality_that_cannot_be_is_refused_and_may_be_mended(value: float) -> None:
    made, _, _ = await served()
    with pytest.raises(RequestError, match=f"relative_quality: {value} is not allowed: 0 to 1.5"):
        made.report_quality("r1", value)
    assert made.report_quality("r1", 1.5).learned


async def test_a_missing_quality_is_not_taken_for_0() -> None:
    made, _, _ = await served()
    with pytest.raises(RequestError, match="relative_quality: None is not allowed: 0 to") as caught:
        made.report_quality("r1", None)
    assert (caught.value.ending, caught.value.param) == (Ending.INVALID, "relative_quality")


async def test_unknown_old_and_repeated_reports_are_refused() -> None:
    made, clock, _ = await served()
    with pytest.raises(UnknownRequestError, match="request_id: 'r2' is not allowed: one of the la"):
        made.report_quality("r2", 1.0)
    clock.now += 3601
    with pytest.raises(UnknownRequestError, match="within 3600 s"):
        made.report_quality("r1", 1.0)
    made, _, _ = await served()
    made.report_quality("r1", 1.0)
    with pytest.raises(UnknownRequestError, match="not reported on before"):
        made.report_quality("r1", 1.0)


def test_memory_is_bounded_by_count_and_age_and_the_newest_of_an_id_counts() -> None:
    memory, table = Feedback(LADDER, most=3, seconds=10.0), kit.predictor().fallback.table
    for i in range(5):
        memory.served(f"r{i}", Shown(0, 1.0), float(i))
    assert len(memory) == 3
    memory.served("r2", Shown(5, 0.7), 5.0)
    assert memory.reported("r2", 0.7, table, 6.0)[1].predicted_quality == 0.7
    memory.served("late", Shown(0, 1.0), 13.5)
    assert len(memory) == 2  # r4 of second 4, and this one
    with pytest.raises(UnknownRequestError):
        memory.reported("r3", 1.0, table, 13.5)


def test_errors_are_counted_at_the_level_that_was_used() -> None:
    memory, table = Feedback((0, 10, 20), most=9, seconds=9.0), kit.predictor().fallback.table
    for i, (k, predicted, told) in enumerate(((10, 0.9, 0.8), (10, 0.9, 1.1), (15, 0.5, 0.5))):
        memory.served(str(i), Shown(k, predicted), 0.0)
        memory.reported(str(i), told, table, 0.0)
    tally = memory.tallies[10]
    assert tally.reports == 3
    assert tally.error_sum == pytest.approx(-0.1)
    assert tally.absolute_sum == pytest.approx(0.3)
    assert memory.tallies[0].reports == memory.tallies[20].reports == 0


async def test_metrics_tell_predicted_minus_reported() -> None:
    made, _, k = await served()
    told = made.report_quality("r1", 0.25).predicted_quality
    lines = generate_latest(registry_of(made)).decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if f'skipped_steps="{k}"' in line)
    label = f'{{skipped_steps="{k}"}}'
    assert found[f"gesso_router_quality_reports_total{label}"] == "1.0"
    error = float(found[f"gesso_router_quality_error_sum{label}"])
    assert error == pytest.approx(told - 0.25)
    absolute = float(found[f"gesso_router_quality_absolute_error_sum_total{label}"])
    assert absolute == pytest.approx(abs(error))


def test_the_wire_tells_a_missing_quality_from_0() -> None:
    assert not router_pb2.ReportQualityRequest(request_id="r").HasField("relative_quality")
    assert router_pb2.ReportQualityRequest(relative_quality=0).HasField("relative_quality")
