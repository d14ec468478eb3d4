"""At rest: a bounded share of the time, in turn, never beside requests, only to show that work is faster."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import pytest
from engine_kit import Gate, Pipe, request, submit
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso.profile import Profile
from gesso_worker.engine import Engine, EngineSettings, Finished, Model, warm_up
from gesso_worker.engine.at_rest import AtRest
from gesso_worker.engine.job import ImageRequest
from gesso_worker.engine.ledger import Ledger
from gesso_worker.engine.live_profile import TELL_SHARE, LiveProfile
from gesso_worker.engine.rest import IDLE_SECONDS, SHARE, TURNS, Proof, RestPacer, RestStage

#: Of an SD-XL on a fast GPU: steps 0.06 s, an image of 1024 pixels is decoded in a quarter of a second.
COSTS: dict[RestStage, float] = {"encode": 0.06, "step": 0.12, "decode": 0.5}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def idle(
    pacer: RestPacer, seconds: float, costs: dict[RestStage, float]
) -> list[tuple[float, RestStage]]:
    """What is measured when by a worker that idles so long, its threads looking once a second."""
    measured, now = [], 0.0
    while now < seconds:
        for stage, cost in costs.items():
            if pacer.take(stage, now, now):
                measured.append((now, stage))
                now += cost
                pacer.done(now, cost)
        now += 1.0
    return measured


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(0.001, 20.0)] * 3))
def test_a_bounded_share_of_the_time(costs: tuple[float, float, float]) -> None:
    named = dict(zip(COSTS, costs, strict=True))
    seconds = 20_000.0
    measured = idle(RestPacer(), seconds, named)
    # The last measurement may not have been paid for.
    spent = sum(named[stage] for _, stage in measured[:-1])
    assert spent <= SHARE * seconds
    assert {stage for _, stage in measured} == set(COSTS)


def test_not_before_it_has_idled_a_while() -> None:
    pacer = RestPacer()
    assert not pacer.take("step", 1000.0, IDLE_SECONDS - 0.1)
    assert pacer.take("step", 1000.0, IDLE_SECONDS)
    assert not pacer.take("step", 1000.0, IDLE_SECONDS), "one at a time"


def test_stages_take_turns_and_those_that_fail_are_left_out() -> None:
    pacer = RestPacer()
    measured = [stage for _, stage in idle(pacer, 400.0, COSTS)]
    assert measured[: len(TURNS)] == list(TURNS)
    pacer.drop("decode")
    later = [stage for _, stage in idle(pacer, 2000.0, COSTS)]
    assert set(later) == {"encode", "step"}


def test_a_pessimistic_profile_heals_within_two_minutes() -> None:
    thought = Profile("d", 50, 0.06, 0.5, (0.12, 0.2))
    live = LiveProfile(thought)
    for _ in range(500):
        live.ticked(1, 0.12)
    for _, stage in idle(RestPacer(), 120.0, COSTS):
        live.rested(stage, {"encode": 0.03, "step": 0.06, "decode": 0.25}[stage])
    assert live.profile.tick_seconds(1) < 0.06 * 1.25
    assert live.profile.tick_seconds(2) < 0.1 * 1.25, "all batches alike"


def test_one_quick_measurement_proves_nothing_and_work_between_starts_anew() -> None:
    proof = Proof()
    assert proof.add(0.5) == math.inf
    assert proof.add(0.7) == 0.7
    proof.forget()
    assert proof.add(0.5) == math.inf


@pytest.mark.parametrize("slower", [1 - TELL_SHARE / 2, 1.0, 5.0])
def test_what_is_slow_at_rest_teaches_nothing(slower: float) -> None:
    thought = Profile("d", 50, 0.06, 0.5, (0.12,))
    live = LiveProfile(thought)
    for _ in range(100):
        live.rested("encode", slower * 0.06)
        live.rested("step", slower * 0.12)
        live.rested("decode", slower * 0.5)
    assert live.profile is thought


def test_serving_has_the_last_word() -> None:
    thought = Profile("d", 50, 0.06, 0.5, (0.12,))
    live = LiveProfile(thought)
    for _ in range(5):
        live.rested("step", 0.01)
    assert live.profile.tick_seconds(1) < 0.03
    for _ in range(500):
        live.ticked(1, 0.12)
    assert live.profile.tick_seconds(1) == pytest.approx(0.12, rel=TELL_SHARE)


def test_every_stage_is_really_measured(model: Model) -> None:
    warm = warm_up(model, 1, budget_s=0.1)
    assert warm.sample is not None
    # As if warm-up had found everything a thousand times slower than it is.
    thought = Profile("cpu", model.settings.steps, 100.0, 100.0, (100.0,))
    live = LiveProfile(thought)
    ledger = Ledger(4, time.monotonic)
    at_rest = AtRest(model, ledger, live, warm.sample, Eager())
    for _ in range(2):
        for stage in COSTS:
            at_rest.measure(stage)
    told = live.profile
    assert max(told.encode_seconds, told.decode_seconds, told.step_seconds[0]) < 30.0


class Eager(RestPacer):
    """Always in the mood."""

    def take(self, stage: RestStage, now_s: float, idle_s: float) -> bool:
        return True


def test_a_request_in_between_ends_a_measurement(model: Model) -> None:
    warm = warm_up(model, 1, budget_s=0.1)
    assert warm.sample is not None
    ledger = Ledger(4, time.monotonic)
    calls: list[int] = []

    class Unet:
        def __getattr__(self, name: str) -> Any:
            return getattr(model.unet, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            ledger.accept(ImageRequest("r", "", 0, 1.0), lambda event: None)
            return model.unet(*args, **kwargs)

    watched = replace(model, pipeline=Pipe(model.pipeline, Unet()))
    live = LiveProfile(warm.profile)
    at_rest = AtRest(watched, ledger, live, warm.sample, Eager())
    at_rest.measure("step")
    assert len(calls) == 1, "no second call"
    assert live.profile is warm.profile


def test_no_measurement_beside_requests_nor_when_closed() -> None:
    clock = Clock()
    ledger = Ledger(4, clock)
    clock.now += 10.0
    assert ledger.idle_seconds == 10.0
    job = ledger.accept(ImageRequest("r", "", 0, 1.0), lambda event: None)
    assert ledger.idle_seconds == 0.0
    ledger.cancel(job)
    assert ledger.idle_seconds == 0.0
    clock.now += 3.0
    assert ledger.idle_seconds == 3.0
    ledger.close("draining")
    assert ledger.idle_seconds == 0.0


def test_an_idle_engine_heals_and_then_serves(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gesso_worker.engine.engine.REST_POLL_S", 0.01)
    monkeypatch.setattr("gesso_worker.engine.denoiser.REST_POLL_S", 0.01)
    monkeypatch.setattr("gesso_worker.engine.rest.IDLE_SECONDS", 0.0)
    monkeypatch.setattr("gesso_worker.engine.rest.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("gesso_worker.engine.rest.SHARE", 0.5)
    warm = warm_up(model, 1, budget_s=0.1)
    thought = Profile("cpu", model.settings.steps, 100.0, 100.0, (100.0,))
    live = LiveProfile(thought)
    engine = Engine(model, EngineSettings(), live=live, sample=warm.sample)
    engine.start()
    try:
        deadline = time.monotonic() + 20
        while True:
            told = live.profile
            if max(told.encode_seconds, told.decode_seconds, told.step_seconds[0]) < 30.0:
                break
            assert time.monotonic() < deadline, "it did not heal"
            time.sleep(0.01)
        assert isinstance(submit(engine, request()).result(), Finished)
        assert engine.snapshot().images_done == 1, "measurements are no images"
    finally:
        engine.stop()


def test_what_cannot_be_measured_is_left_alone(model: Model) -> None:
    warm = warm_up(model, 1, budget_s=0.1)
    assert warm.sample is not None
    gate = Gate(model.unet)
    gate.open_wide()
    gate.error = RuntimeError("no")
    pacer = RestPacer()
    broken = replace(model, pipeline=Pipe(model.pipeline, gate))
    clock = Clock()
    ledger = Ledger(4, clock)
    clock.now += 100.0
    at_rest = AtRest(broken, ledger, LiveProfile(warm.profile), warm.sample, pacer)
    for _ in range(6):
        for stage in COSTS:
            at_rest.measure(stage)
        clock.now += 1000.0
    assert len(gate.rows) == 1, "tried once"
