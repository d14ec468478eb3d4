"""What a job's time went into, stage by stage: what a worker's spans are made of."""

from __future__ import annotations

import logging
import time
from itertools import pairwise
from typing import Any

import pytest
from engine_kit import STEPS, Gate, request, submit, until_ready

from gesso.logs import Formatter, Subject
from gesso_worker.engine import Failed, FailureReason, Finished, Model
from gesso_worker.engine import engine as engine_module
from gesso_worker.engine.job import Stage


@pytest.fixture
def gate(model: Model) -> Gate:
    return Gate(model.unet)


def test_marks_follow_each_other_and_add_up_to_the_whole(start_engine: Any) -> None:
    began = time.monotonic()
    client = submit(start_engine(), request())
    event = client.result()
    whole = time.monotonic() - began
    assert isinstance(event, Finished)
    assert client.job is not None
    marks = client.job.marks
    assert [m.name for m in marks] == ["queue", "encode", "queue", "denoise", "queue", "decode"]
    for before, after in pairwise(marks):
        assert before.began_s <= before.ended_s <= after.began_s
    spent = sum(m.ended_s - m.began_s for m in marks)
    assert spent == pytest.approx(whole, abs=0.1)
    queued = sum(m.ended_s - m.began_s for m in marks if m.name == "queue")
    assert queued == pytest.approx(event.timings.queue, abs=0.01)
    assert marks[3].ended_s - marks[3].began_s == pytest.approx(event.timings.denoise, abs=0.01)
    assert (marks[3].steps, marks[3].batch) == (STEPS, 1.0)
    assert not any(m.failed for m in marks)


def test_the_mean_batch_is_that_of_its_own_steps(start_engine: Any, gate: Gate) -> None:
    engine = start_engine(gate)
    first = submit(engine, request("a"))
    gate.wait()
    second = submit(engine, request("b", seed=1))
    until_ready(second)
    gate.open_wide()
    for client in (first, second):
        assert isinstance(client.result(), Finished)
    batches = []
    for client in (first, second):
        assert client.job is not None
        (denoised,) = [m for m in client.job.marks if m.name == "denoise"]
        assert denoised.steps == STEPS
        batches.append(denoised.batch)
    # Together but for the first step of one, and the last of the other.
    assert batches == [pytest.approx(2 - 1 / STEPS)] * 2


def test_a_job_that_is_cut_short_says_in_which_stage(start_engine: Any, gate: Gate) -> None:
    engine = start_engine(gate)
    client = submit(engine, request())
    gate.wait()
    assert client.job is not None
    engine.cancel(client.job)
    gate.open_wide()
    assert isinstance(client.result(), Failed)
    last = client.job.marks[-1]
    assert (last.name, last.stage, last.failed) == ("denoise", Stage.DENOISING, True)
    assert last.steps == 1
    assert [m.failed for m in client.job.marks[:-1]] == [False] * 3


def test_a_stage_that_fails_is_logged_with_the_requests_id_and_without_its_prompt(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "a velvet zeppelin"

    def fails(*asked: Any) -> Any:
        raise ValueError(f"cannot encode {asked[1]!r}")

    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(Formatter("worker", "json").format(record))

    monkeypatch.setattr(engine_module, "encode_prompt", fails)
    logger = logging.getLogger("gesso_worker.engine.engine")
    handler = Collect()
    logger.addHandler(handler)
    try:
        subject = Subject("order-4711", "", (prompt,))
        failed = submit(start_engine(), request("a", prompt=prompt, subject=subject)).result()
    finally:
        logger.removeHandler(handler)
    assert isinstance(failed, Failed)
    assert failed.reason is FailureReason.INTERNAL
    (line,) = lines
    assert '"request": "order-4711"' in line
    assert "cannot encode" in line
    assert prompt not in line
