"""Joining, leaving, failing: what happens to a job never happens to another."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import PROMPTS, SIDE, STEPS, Client, Gate, pixels, request, submit, until_ready
from PIL import Image

from gesso_worker.engine import (
    ClosedError,
    Failed,
    FailureReason,
    Finished,
    Model,
    Progress,
    QueueFullError,
    Start,
    Started,
)
from gesso_worker.engine import engine as engine_module
from gesso_worker.engine.job import Stage


@pytest.fixture
def gate(model: Model) -> Gate:
    return Gate(model.unet)


def _reason(client: Client) -> FailureReason | None:
    event = client.result()
    return event.reason if isinstance(event, Failed) else None


def test_events_come_in_order(start_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gesso_worker.engine.denoiser.PROGRESS_STEPS", 5)
    client = submit(start_engine(), request())
    assert isinstance(client.result(), Finished)
    kinds = [type(e) for e in client.events]
    assert kinds == [Started, Progress, Finished]
    assert client.events[1] == Progress(5, STEPS)


def test_timings_add_up_to_the_whole(start_engine: Any) -> None:
    engine = start_engine()
    began = time.monotonic()
    event = submit(engine, request()).result()
    whole = time.monotonic() - began
    assert isinstance(event, Finished)
    t = event.timings
    parts = (t.queue, t.encode, t.fetch, t.denoise, t.decode)
    assert min(parts) >= 0
    assert t.denoise > 0
    assert sum(parts) == pytest.approx(whole, abs=0.1)


def test_a_request_joins_a_batch_under_way(start_engine: Any, gate: Gate) -> None:
    engine = start_engine(gate)
    first = submit(engine, request("a"))
    gate.wait()
    second = submit(engine, request("b", seed=1))
    until_ready(second)
    gate.step()
    gate.wait()
    assert gate.rows == [2, 4], "two rows for each, guided"
    gate.open_wide()
    assert isinstance(first.result(), Finished)
    assert isinstance(second.result(), Finished)


def test_a_cancelled_request_leaves_at_the_step_boundary_and_touches_no_other(
    start_engine: Any, gate: Gate
) -> None:
    alone = submit(start_engine(), request("alone", seed=8)).result()
    engine = start_engine(gate)
    stays = submit(engine, request("stays", seed=8))
    gate.wait()
    goes = submit(engine, request("goes", seed=9))
    until_ready(goes)
    gate.step()
    gate.wait()
    assert goes.job is not None
    engine.cancel(goes.job)
    gate.step()
    gate.wait()
    assert gate.rows == [2, 4, 2], "its rows are gone at the next step"
    assert _reason(goes) is FailureReason.CANCELLED
    gate.open_wide()
    assert np.abs(pixels(stays.result()) - pixels(alone)).max() <= 1


def test_who_comes_together_begins_together(
    start_engine: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = engine_module.encode_prompt

    def slow(*args: Any) -> Any:
        time.sleep(0.05)
        return encode(*args)

    monkeypatch.setattr(engine_module, "encode_prompt", slow)
    engine = start_engine(gate, step_seconds=60.0)
    clients = [submit(engine, request(f"r{i}", prompt=f"{i} stars")) for i in range(4)]
    gate.wait()
    assert len(engine.snapshot().active) == 4
    gate.open_wide()
    assert all(isinstance(c.result(), Finished) for c in clients)


def test_nobody_is_waited_for_longer_than_a_step(
    start_engine: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, held = engine_module.encode_prompt, threading.Event()

    def stuck(model: Any, prompt: str, *args: Any) -> Any:
        assert prompt != "stuck" or held.wait(60)
        return encode(model, prompt, *args)

    monkeypatch.setattr(engine_module, "encode_prompt", stuck)
    engine = start_engine(gate, step_seconds=0.1)
    first = submit(engine, request("first"))
    second = submit(engine, request("second", prompt="stuck"))
    gate.wait()
    assert [r.request_id for r in engine.snapshot().active] == ["first"]
    held.set()
    gate.open_wide()
    assert all(isinstance(c.result(), Finished) for c in (first, second))


def test_a_request_past_its_deadline_leaves_the_batch(start_engine: Any, gate: Gate) -> None:
    engine = start_engine(gate)
    soon = time.monotonic() + 0.3
    late = submit(engine, request("late", deadline_s=soon))
    gate.wait()
    while time.monotonic() < soon:
        time.sleep(0.01)  # the deadline itself is what is waited for
    gate.step()
    assert _reason(late) is FailureReason.DEADLINE
    gate.open_wide()
    assert isinstance(submit(engine, request("next")).result(), Finished)


def test_a_request_that_cannot_be_in_time_any_more_leaves_before_its_deadline(
    start_engine: Any, gate: Gate
) -> None:
    engine = start_engine(gate)
    deadline = time.monotonic() + 8
    late = submit(engine, request("late", deadline_s=deadline))
    gate.wait()
    time.sleep(2)  # no step was ever faster, and five are left
    gate.step()
    assert _reason(late) is FailureReason.DEADLINE
    assert time.monotonic() < deadline - 1
    gate.open_wide()


def test_a_deadline_that_has_passed_is_noticed_before_any_work(
    start_engine: Any, gate: Gate
) -> None:
    engine = start_engine(gate)
    client = submit(engine, request(deadline_s=time.monotonic() - 1))
    assert _reason(client) is FailureReason.DEADLINE
    assert gate.rows == []


def test_accepted_requests_are_bounded(start_engine: Any, gate: Gate) -> None:
    engine = start_engine(gate, max_accepted=3)
    clients = [submit(engine, request(f"r{i}")) for i in range(3)]
    with pytest.raises(QueueFullError, match="3 requests accepted"):
        engine.accept(request("one too many"), Client())
    gate.open_wide()
    assert all(isinstance(c.result(), Finished) for c in clients)
    assert isinstance(submit(engine, request("now")).result(), Finished)


def test_a_place_taken_and_given_up_is_free_again(start_engine: Any) -> None:
    engine = start_engine(max_accepted=1)
    for _ in range(3):
        client = Client()
        job = engine.accept(request(), client)
        engine.cancel(job)
        assert _reason(client) is FailureReason.CANCELLED
        engine.begin(job, Start())  # too late: nothing happens
    assert isinstance(submit(engine, request()).result(), Finished)


def test_the_snapshot_tells_steps_left_of_active_and_queued(start_engine: Any, gate: Gate) -> None:
    engine = start_engine(gate, max_batch=1)
    first = submit(engine, request("active"))
    gate.wait()
    gate.step()
    gate.wait()
    second = submit(engine, request("queued"))
    client = Client()
    fetching = engine.accept(request("fetching", skipped_steps=4), client)
    now = engine.snapshot()
    assert [(r.request_id, r.steps) for r in now.active] == [("active", STEPS - 1)]
    assert {(r.request_id, r.steps) for r in now.queued} == {("queued", STEPS), ("fetching", 2)}
    engine.cancel(fetching)
    gate.open_wide()
    assert isinstance(first.result(), Finished)
    assert isinstance(second.result(), Finished)
    assert engine.drain(10)
    after = engine.snapshot()
    assert (after.active, after.queued, after.images_done) == ((), (), 2)


def test_out_of_memory_halves_the_batch_and_loses_nobody(start_engine: Any, gate: Gate) -> None:
    gate.most_rows = 4
    engine = start_engine(gate)
    clients = [submit(engine, request("r0"))]
    gate.wait()
    clients += [submit(engine, request(f"r{i}", seed=i)) for i in range(1, 4)]
    for client in clients[1:]:
        until_ready(client)
    gate.open_wide()
    assert all(isinstance(c.result(), Finished) for c in clients)
    now = engine.snapshot()
    assert gate.rows[:3] == [2, 8, 4], "half of the four go on, with two rows each"
    assert (now.out_of_memory, now.batch_limit) == (1, 2)


@pytest.mark.parametrize("stage", ["encode_prompt", "decode_latents"])
def test_a_stage_without_memory_tries_again_beside_half_of_the_batch(
    start_engine: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    work = getattr(engine_module, stage)
    short = [torch.OutOfMemoryError("no memory left")] * 2

    def scarce(*args: Any, **kwargs: Any) -> Any:
        if short:
            raise short.pop()
        return work(*args, **kwargs)

    engine = start_engine(gate)
    others = [submit(engine, request("r0"))]
    gate.wait()
    others += [submit(engine, request(f"r{i}", seed=i)) for i in range(1, 4)]
    for client in others[1:]:
        until_ready(client)
    monkeypatch.setattr(engine_module, stage, scarce)
    last = submit(engine, request("last", seed=9, prompt=PROMPTS[1]))
    gate.open_wide()
    assert all(isinstance(c.result(), Finished) for c in (*others, last))
    now = engine.snapshot()
    assert now.out_of_memory == 2
    assert now.batch_limit == 1


def test_a_stage_that_never_has_memory_fails_its_request_and_the_next_is_served(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = engine_module.decode_latents

    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    engine = start_engine()
    monkeypatch.setattr(engine_module, "decode_latents", never)
    assert _reason(submit(engine, request())) is FailureReason.OUT_OF_MEMORY
    monkeypatch.setattr(engine_module, "decode_latents", work)
    assert isinstance(submit(engine, request()).result(), Finished)


def test_in_a_full_batch_one_that_can_wait_makes_room(start_engine: Any, gate: Gate) -> None:
    alone = submit(start_engine(), request("alone", seed=8)).result()
    engine = start_engine(gate, max_batch=1, step_seconds=10.0)
    lax = submit(engine, request("lax", seed=8))
    gate.wait()
    strict = submit(engine, request("strict", deadline_s=time.monotonic() + 80))
    until_ready(strict)
    gate.step()
    gate.wait()
    assert [r.request_id for r in engine.snapshot().active] == ["strict"]
    gate.open_wide()
    assert isinstance(strict.result(), Finished)
    assert np.array_equal(pixels(lax.result()), pixels(alone)), "it goes on where it was"
    assert engine.snapshot().swaps == 1


def test_progress_is_told_as_often_as_asked(start_engine: Any) -> None:
    client = submit(start_engine(), request(progress_steps=2))
    assert isinstance(client.result(), Finished)
    told = [e.step for e in client.events if isinstance(e, Progress)]
    assert told == list(range(2, STEPS, 2))


def test_a_slow_model_tells_every_step(start_engine: Any) -> None:
    client = submit(start_engine(step_seconds=0.5), request())
    assert isinstance(client.result(), Finished)
    assert sum(isinstance(e, Progress) for e in client.events) == STEPS - 1


def test_previews_come_at_the_steps_asked_for(start_engine: Any) -> None:
    engine = start_engine()
    first = submit(engine, request(preview_steps=2))
    assert isinstance(first.result(), Finished)
    assert not any(e.preview for e in first.events if isinstance(e, Progress)), "nothing learnt yet"
    client = submit(engine, request(preview_steps=2, width=SIDE, height=16))
    assert isinstance(client.result(), Finished)
    seen = {e.step: e.preview for e in client.events if isinstance(e, Progress)}
    assert list(seen) == list(range(2, STEPS, 2))
    assert Image.open(io.BytesIO(seen[4])).size == (SIDE // 8, 2)


def test_one_encoding_serves_several_images_of_a_prompt(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, calls = engine_module.encode_prompt, []

    def counted(*args: Any) -> Any:
        calls.append(args[1:])
        return work(*args)

    monkeypatch.setattr(engine_module, "encode_prompt", counted)
    engine = start_engine()
    clients = [submit(engine, request(f"r{i}", seed=i)) for i in range(3)]
    clients.append(submit(engine, request("other", negative_prompt="a dog")))
    assert all(isinstance(c.result(), Finished) for c in clients)
    assert len(calls) == 2


def test_one_request_that_does_not_fit_alone_fails_and_the_next_is_served(
    start_engine: Any, gate: Gate
) -> None:
    gate.most_rows = 1
    gate.open_wide()
    engine = start_engine(gate)
    assert _reason(submit(engine, request())) is FailureReason.OUT_OF_MEMORY
    unguided = submit(engine, request(guidance_scale=1.0))
    assert isinstance(unguided.result(), Finished)


def test_a_failed_step_fails_its_requests_and_three_break_the_engine(
    start_engine: Any, gate: Gate
) -> None:
    engine = start_engine(gate)
    gate.open_wide()
    gate.error = RuntimeError("lost")
    for _ in range(3):
        assert not engine.broken
        assert _reason(submit(engine, request())) is FailureReason.INTERNAL
    assert engine.broken
    with pytest.raises(ClosedError, match="denoising fails"):
        engine.accept(request(), Client())


def test_draining_finishes_what_was_accepted_and_refuses_more(start_engine: Any) -> None:
    engine = start_engine()
    clients = [submit(engine, request(f"r{i}")) for i in range(3)]
    assert engine.drain(20)
    assert all(isinstance(c.result(), Finished) for c in clients)
    with pytest.raises(ClosedError, match="draining"):
        engine.accept(request(), Client())


def test_stopping_fails_what_is_left(start_engine: Any, gate: Gate) -> None:
    engine = start_engine(gate)
    client = submit(engine, request())
    gate.wait()
    assert not engine.drain(0.01)
    gate.open_wide()
    engine.stop()
    assert _reason(client) in (FailureReason.STOPPED, None)


def test_latents_that_are_not_finite_make_no_image_and_are_not_kept(
    model: Model, start_engine: Any
) -> None:
    kept: list[object] = []
    engine = start_engine(keep=lambda job, latents: kept.append(latents))
    start = Start(2, model.noise(0, model.trajectory()) * float("nan"))
    client = submit(engine, request(skipped_steps=2, keep_levels=(4,)), start)
    assert _reason(client) is FailureReason.INTERNAL
    assert kept == []


def test_a_sink_that_fails_harms_only_itself(start_engine: Any) -> None:
    engine = start_engine()

    def broken(_: object) -> None:
        raise RuntimeError("gone")

    job = engine.accept(request("broken"), broken)
    engine.begin(job, Start())
    assert isinstance(submit(engine, request("fine")).result(), Finished)
    assert engine.drain(10)


def test_nothing_is_lost_among_cancels_deadlines_and_refusals(start_engine: Any) -> None:
    engine = start_engine(max_accepted=12)
    random = Random(5)
    clients: list[Client] = []
    cancelled: set[int] = set()
    unhurried: set[int] = set()
    refused = 0
    for i in range(200):
        client = Client()
        patience = random.choice([0.0, 0.05, 300, 300, 300])
        deadline = time.monotonic() + patience
        asked = request(f"r{i}", seed=i, guidance_scale=random.choice([1.0, 3.0]))
        try:
            client.job = engine.accept(replace(asked, deadline_s=deadline), client)
        except QueueFullError:
            refused += 1
            assert clients[-4].ended.wait(30)
            continue
        if random.random() < 0.8:
            engine.begin(client.job, Start())
        clients.append(client)
        if patience > 1:
            unhurried.add(client.job.key)
        if client.job.stage is Stage.ACCEPTED or random.random() < 0.2:
            cancelled.add(client.job.key)
            engine.cancel(client.job)
    assert engine.drain(60)
    assert refused
    outcomes = [client.result() for client in clients]
    for client, outcome in zip(clients, outcomes, strict=True):
        assert client.job is not None
        ends = [e for e in client.events if isinstance(e, Finished | Failed)]
        assert len(ends) == 1, "a job ends once"
        if isinstance(outcome, Failed):
            wanted = client.job.key in cancelled
            assert outcome.reason is (
                FailureReason.CANCELLED if wanted else FailureReason.DEADLINE
            ) or (wanted and outcome.reason is FailureReason.DEADLINE)
            assert wanted or client.job.key not in unhurried
    finished = sum(isinstance(outcome, Finished) for outcome in outcomes)
    assert engine.snapshot().images_done == finished >= len(unhurried - cancelled) > 0
