"""What changes while a router serves: settings that come with a plan, a plan file at start, the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from router_kit import PREDICTOR, Clock, Events, FixedEmbedder, ScriptedPool, job, router, service
from test_plan import RecordingPool, control, request

from gesso.rpc.v1 import router_pb2
from gesso_operator.wire import plan_json
from gesso_router.control import Control
from gesso_router.core import Router
from gesso_router.errors import Ending, RequestError
from gesso_router.flags import Flags, StartError, parse_flags
from gesso_router.fleet import Fleet
from gesso_router.http_api import create_app
from gesso_router.plan_store import PlanError, PlanStore, read_plan
from gesso_router.validation import Raw, validate


def with_settings(
    revision: int, latency: float = 9.0, quality: float = 0.7, max_queue: int = 3
) -> router_pb2.ApplyPlanRequest:
    made = request(revision)
    made.settings.CopyFrom(
        router_pb2.ServiceSettings(
            latency_seconds=latency, min_relative_quality=quality, max_queue=max_queue
        )
    )
    return made


def defaults(made: Router) -> tuple[float, float]:
    plain = validate(Raw(prompt="a red star"), made.service)
    return plain.slo_seconds, plain.min_quality


async def test_settings_are_in_force_at_once_and_after_a_restart(tmp_path: Path) -> None:
    first, made, _ = control(tmp_path)
    assert (defaults(made), made.service.spec.router.max_queue) == ((2.0, 0.5), 256)
    await first.apply(with_settings(3))
    assert (defaults(made), made.service.spec.router.max_queue) == ((9.0, 0.7), 3)
    assert made.view().slo_seconds == 9.0
    # The same plan with other settings: an edit of the spec changes no mix.
    await first.apply(with_settings(3, latency=1.5))
    assert defaults(made) == (1.5, 0.7)
    second, again, _ = control(tmp_path)
    assert second.restore()
    assert defaults(again) == (1.5, 0.7)


async def test_without_settings_those_of_the_service_stay(tmp_path: Path) -> None:
    made, live, _ = control(tmp_path)
    await made.apply(request(3))
    assert (defaults(live), live.service) == ((2.0, 0.5), service())


async def test_settings_that_cannot_be_leave_everything_as_it_was(tmp_path: Path) -> None:
    made, live, _ = control(tmp_path)
    with pytest.raises(PlanError, match=r"settings\.max_queue: 0 is not allowed: at least 1"):
        await made.apply(with_settings(3, max_queue=0))
    assert (live.plan, live.service, PlanStore(tmp_path).load()) == (None, service(), None)


async def test_the_bound_on_the_queue_follows() -> None:
    pool = ScriptedPool()
    made = router(pool, Clock())
    made.take_settings(2.0, 0.5, 1)
    made.ledger.arrive(0.0, 1.0)
    with pytest.raises(RequestError) as caught:
        await made.generate(job(made.service), Events())
    assert (caught.value.ending, caught.value.reason) == (Ending.SHED, "queue-full")


def with_plan_file(folder: Path, text: str | None) -> tuple[Control, Router]:
    file = folder / "mounted" / "plan.json"
    file.parent.mkdir(exist_ok=True)
    if text is not None:
        file.write_text(text)
    pool: Any = RecordingPool()
    made = Router(service(), PREDICTOR, Fleet(50, 4, 3), pool, clock=Clock())
    return Control(made, pool, PlanStore(folder / "state"), file, clock=Clock()), made


def test_what_the_operator_keeps_is_what_the_router_reads(tmp_path: Path) -> None:
    told = with_settings(5)
    (tmp_path / "plan.json").write_text(plan_json(told))
    assert read_plan(tmp_path / "plan.json") == told
    store = PlanStore(tmp_path / "state")
    store.save(told)
    assert store.path.read_text() == plan_json(told)


@pytest.mark.parametrize(
    ("stored", "mounted", "taken"),
    [
        pytest.param(None, 4, 4, id="no plan of its own"),
        pytest.param(3, 4, 4, id="an older one"),
        pytest.param(5, 4, 5, id="a newer one"),
        pytest.param(5, None, 5, id="no file"),
        pytest.param(None, None, None, id="neither"),
    ],
)
def test_the_newer_plan_is_taken(
    tmp_path: Path, stored: int | None, mounted: int | None, taken: int | None
) -> None:
    if stored is not None:
        PlanStore(tmp_path / "state").save(request(stored))
    made, live = with_plan_file(tmp_path, None if mounted is None else plan_json(request(mounted)))
    assert made.restore() == (taken is not None)
    assert (live.plan.revision if live.plan else None) == taken


@pytest.mark.parametrize("text", ["", "{", '{"plan": {"revision": 0}}', "\x00"])
def test_a_malformed_plan_file_is_told_and_ignored(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    PlanStore(tmp_path / "state").save(request(2))
    made, live = with_plan_file(tmp_path, text)
    assert made.restore()
    assert live.plan is not None
    assert live.plan.revision == 2
    assert "the saved plan is not usable" in caplog.text


FLAGS = ["--grpc", "h:1", "--http", "h:2", "--service", "s", "--state-dir", "d"]


def test_flags_of_a_pod_are_read() -> None:
    plain = parse_flags(FLAGS)
    assert (plain.plan_file, plain.linger_s, plain.drain_s) == (None, 0.0, Flags.drain_s)
    given = parse_flags(
        [*FLAGS, "--plan-file", "p.json", "--linger-seconds", "4", "--drain-seconds", "20"]
    )
    assert (given.plan_file, given.linger_s, given.drain_s) == (Path("p.json"), 4.0, 20.0)
    assert (plain.otlp_endpoint, plain.log_format) == (None, "json")
    traced = parse_flags([*FLAGS, "--otlp-endpoint", "https://o:4317", "--trace-ratio", "0.5"])
    assert (traced.otlp_endpoint, traced.trace_ratio) == ("https://o:4317", 0.5)


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--otlp-endpoint", "http://me:secret@o:4317", "without path, user or password"),
        ("--otlp-endpoint", "o", "http://HOST:PORT"),
        ("--trace-ratio", "2", "'2' is not allowed: a number from 0 to 1"),
        ("--trace-ratio", "nan", "a number from 0 to 1"),
        ("--log-format", "xml", "invalid choice: 'xml'"),
    ],
)
def test_bad_flags_are_told_in_a_line(flag: str, value: str, told: str) -> None:
    with pytest.raises(StartError, match=told) as caught:
        parse_flags([*FLAGS, flag, value])
    assert flag in str(caught.value)


async def test_while_it_lingers_it_is_not_ready_and_still_serves() -> None:
    made = router(ScriptedPool(), Clock())

    async def ready() -> tuple[int, str]:
        transport = httpx.ASGITransport(app=create_app(made))
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            answer = await client.get("/readyz")
        return answer.status_code, answer.text

    assert await ready() == (200, "ready\n")
    made.leaving = True
    assert await ready() == (503, "not ready: the router is shutting down\n")
    assert (await made.generate(job(made.service), Events())).attempts == 1
    made.draining = True
    with pytest.raises(RequestError) as caught:
        await made.generate(job(made.service), Events())
    assert caught.value.ending is Ending.UNAVAILABLE


async def test_what_keeps_a_router_from_being_ready_is_told() -> None:
    made = router(ScriptedPool(), Clock(), workers=())
    assert made.unready_reason == "no plan has named a worker yet"
    made.embedder = None
    assert made.unready_reason is not None
    assert "its embedding model is loading" in made.unready_reason
    made.embedder = FixedEmbedder()
    unready = router(ScriptedPool(), Clock())
    unready.fleet.lost("a", 1e9)
    unready.fleet.lost("b", 1e9)
    assert unready.unready_reason == "none of 2 workers is ready"
