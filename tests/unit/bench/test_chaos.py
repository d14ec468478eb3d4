"""What bench_chaos reckons: dips, recovery, what counts as lost; and its client with two routers before it."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from chaos import fake_worker, faults
from chaos.client import Balanced
from chaos.disturbed import schedule, seconds_of
from chaos.figures import (
    Answer,
    Ending,
    attainment,
    back_after,
    due,
    told,
    touched,
    trend,
    windows,
    worst,
)
from chaos.load import load
from chaos.overload import summary
from hypothesis import given
from hypothesis import strategies as st

from gesso.rpc.v1 import image_pb2, image_pb2_grpc, worker_pb2, worker_pb2_grpc
from gesso_simulator.workloads.sessions import PromptRequest


def stream(*misses: float, seconds: float = 60.0, each: float = 0.5) -> list[Answer]:
    """A request every half second, those in `misses` late."""
    times = [i * each for i in range(int(seconds / each))]
    return [Answer(t, Ending.LATE if t in misses else Ending.IN_SLO, 1.0, True) for t in times]


def test_a_calm_stream_never_dips() -> None:
    answers = stream()
    assert worst(answers, 10.0, 30.0) == 1.0
    assert back_after(answers, 10.0, 60.0, 0.95) == 0.0


def test_the_dip_and_when_it_is_over() -> None:
    answers = stream(20.0, 20.5, 21.0, 23.0)
    # Ten requests in five seconds, four of them late.
    assert worst(answers, 15.0, 40.0) == 0.6
    after = back_after(answers, 20.0, 60.0, 0.99)
    assert after == pytest.approx(3.0)
    # One in twenty may be late where 95 % are promised.
    assert back_after(answers, 20.0, 60.0, 0.95) == pytest.approx(1.0)


def test_a_dip_that_comes_later_is_waited_for() -> None:
    answers = stream(*[35.0 + i / 2 for i in range(10)])
    assert back_after(answers, 20.0, 60.0, 0.95) == pytest.approx(19.0)


def test_what_was_under_way_when_it_broke_is_part_of_it() -> None:
    answers = [Answer(float(t), Ending.IN_SLO, 1.5, True) for t in range(10)]
    assert [a.at_s for a in touched(answers, 5.0, 7.0)] == [4.0, 5.0, 6.0]


def test_what_is_not_back_in_time_is_not_back() -> None:
    answers = stream(*[t / 2 for t in range(40, 120)])
    assert back_after(answers, 20.0, 60.0, 0.95) is None


@given(st.lists(st.integers(0, 119), unique=True), st.floats(0.5, 1.0))
def test_once_back_it_holds(missed: list[int], target: float) -> None:
    answers = stream(*[i / 2 for i in missed])
    after = back_after(answers, 10.0, 60.0, target)
    if after:
        held = attainment(due(answers, math.nextafter(10.0 + after, math.inf), 20.0 + after))
        assert held is None or held >= target - 1 / 19


def test_windows_without_requests_say_nothing() -> None:
    assert windows([], 0.0, 60.0) == []
    assert worst([], 0.0, 60.0) is None
    assert told([])["attainment"] is None


@pytest.mark.parametrize(
    ("accepted", "ending", "lost"),
    [
        (True, Ending.LOST, True),
        (True, Ending.FAILED, True),
        (True, Ending.REFUSED, False),
        (True, Ending.DROPPED, False),
        (False, Ending.LOST, False),
    ],
)
def test_lost_is_what_was_accepted_and_never_answered(
    accepted: bool, ending: Ending, lost: bool
) -> None:
    answers = [Answer(0.0, ending, 1.0, accepted)]
    assert told(answers)["accepted_and_lost"] == int(lost)


def test_memory_that_grows_is_seen() -> None:
    assert trend([(0.0, 1.0)]) is None
    grown = trend([(float(i), 100.0 + i) for i in range(9)])
    assert grown == {"first_third": 101.0, "last_third": 107.0, "most": 108.0}


def test_faults_come_one_after_another_with_a_calm_between() -> None:
    plan = schedule(faults.FAULTS, 10.0, 1.0)
    for (fault, at), (_, following) in pairwise(plan):
        assert following - at == fault.lasts_s + fault.after_s + 10.0
    assert seconds_of(faults.FAULTS, 10.0, 1.0) == plan[-1][1] + plan[-1][0].after_s + 10.0


def test_corruption_changes_every_file_and_leaves_its_length(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8
    for name in ("a/x.safetensors", "b/y.safetensors", "b/z.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    assert faults.corrupt(tmp_path) == 2
    changed = (tmp_path / "a/x.safetensors").read_bytes()
    assert len(changed) == len(data)
    assert sum(a != b for a, b in zip(changed, data, strict=True)) == 1
    assert (tmp_path / "b/z.txt").read_bytes() == data


def test_a_refusal_at_once_keeps_the_promise_and_a_slow_one_does_not() -> None:
    extra = {
        "at_s": [0.0] * 5,
        "seconds": [1.0, 9.0, 0.01, 0.2, 0.0],
        "status": ["OK", "OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"],
        "cpu_share": 0.1,
        "sent_late_p99_s": 0.0,
    }
    watch: Any = SimpleNamespace(
        memory={"router": [(t, 100.0) for t in (1.0, 11.0, 12.0, 13.0)]},
        counted=lambda *_: {},
        said=lambda *_: [],
    )
    found = summary(stream(), extra, watch, 5.0, 40.0, 10.0, 20.0)
    assert (found["images"], found["images_in_slo"]) == (2, 1)
    assert (found["refused"], found["refused_at_once"]) == (2, 1)
    assert found["kept_promise_share"] == 0.4
    assert found["otherwise"] == {"UNAVAILABLE": 1}
    assert found["recovered_after_s"] == 0.0


class Router(image_pb2_grpc.ImageServiceServicer):
    """Serves, or does what it is told to."""

    def __init__(self, does: str = "serve") -> None:
        self.does = does
        self.keys: list[str] = []

    async def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.keys.append(dict(context.invocation_metadata()).get("idempotency-key", ""))
        if self.does == "not-ready":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining", (("reason", "not-ready"),))
        if self.does == "shed":
            trailing = (("reason", "deadline"),)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no time", trailing)
        yield image_pb2.GenerateEvent(queued=image_pb2.Queued())
        if self.does == "die":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "reset")
        if self.does == "fail":
            trailing = (("reason", "worker-failed"),)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no worker", trailing)
        yield image_pb2.GenerateEvent(
            image=image_pb2.Image(worker="w0", attempts=1, predicted_quality=0.9, skipped_steps=5)
        )


async def asked_of(*routers: Router) -> tuple[Answer, list[Router]]:
    """One request through routers of which the first is asked first."""
    servers, targets = [], []
    for router in routers:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        image_pb2_grpc.add_ImageServiceServicer_to_server(router, server)
        targets.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    try:
        async with Balanced(targets, 5.0) as client:
            one: Any = PromptRequest(0, 0.0, "a red star", 1, None)  # type: ignore[arg-type]
            return await client.send(one, time.monotonic()), list(routers)
    finally:
        for server in servers:
            await server.stop(None)


@pytest.mark.parametrize(("does", "accepted_before"), [("not-ready", False), ("die", True)])
async def test_what_one_router_lets_go_of_another_gets_with_the_same_key(
    does: str, accepted_before: bool
) -> None:
    answer, (first, second) = await asked_of(Router(does), Router())
    assert answer.ending is Ending.IN_SLO
    assert answer.routers == (0, 1)
    assert first.keys == second.keys
    assert answer.quality == pytest.approx(0.9)


async def test_a_refusal_is_an_answer_and_goes_nowhere_else() -> None:
    answer, (_, second) = await asked_of(Router("shed"), Router())
    assert answer.ending is Ending.REFUSED
    assert not answer.accepted
    assert not second.keys


async def test_accepted_and_then_let_go_by_all_is_lost() -> None:
    answer, _ = await asked_of(Router("die"), Router("die"))
    assert answer.ending is Ending.LOST
    assert answer.lost


async def test_accepted_and_then_failed_is_lost_too() -> None:
    answer, _ = await asked_of(Router("fail"), Router())
    assert answer.ending is Ending.FAILED
    assert answer.lost


async def test_a_fake_worker_takes_as_long_as_its_profile_says() -> None:
    profile = fake_worker.Profile("fake", fake_worker.STEPS, 0.0, 0.0, (0.002, 0.003))
    async with (
        fake_worker.BatchWorker("w0", profile) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        stub: Any = worker_pb2_grpc.WorkerStub(channel)
        calls = [
            stub.Generate(worker_pb2.WorkerGenerateRequest(request_id=str(i))) for i in range(3)
        ]
        kinds = [[e.WhichOneof("event") async for e in call] for call in calls]
        assert kinds == [["started", *["progress"] * 4, "image"]] * 3
        assert worker.served == 3
        assert worker.outstanding == 0


async def test_the_load_generator_tells_images_from_refusals() -> None:
    servers, targets = [], []
    for router in (Router(), Router("shed")):
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        image_pb2_grpc.add_ImageServiceServicer_to_server(router, server)
        targets.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    try:
        found = await load(targets, 50.0, 0.5, 2.0, 1, time.monotonic())
    finally:
        for server in servers:
            await server.stop(None)
    count = len(found["status"])
    assert count > 5
    assert found["status"].count("OK") == (count + 1) // 2
    assert found["status"].count("RESOURCE_EXHAUSTED") == count // 2
    assert max(found["seconds"]) < 2.0
