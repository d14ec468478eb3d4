"""Log lines: one form for all parts, the request's id in each, a hash where a prompt would be."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso.logs import (
    NOBODY,
    Formatter,
    Subject,
    about,
    begin,
    prompt_hash,
    render,
    set_up,
    subject,
)
from gesso_operator.logs import Log

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
FIRST = ["time", "level", "part"]


def _record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    logger = logging.getLogger("gesso_worker.test")
    return logger.makeRecord(logger.name, logging.INFO, "f", 1, message, args, None, extra=extra)


def _line(record: logging.LogRecord, name: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Formatter("worker", "json", name).format(record))
    return found


def test_every_part_writes_the_same_form() -> None:
    line = _line(_record("ready", listen="a:1"), "worker-0")
    assert list(line) == [*FIRST, "name", "message", "logger", "listen"]
    stream = io.StringIO()
    Log("operator", stream).info("up", pod="p", empty="")
    told = json.loads(stream.getvalue())
    assert list(told) == [*FIRST, "message", "pod"]
    for each in (line, told):
        assert re.fullmatch(STAMP, each["time"])
        assert each["level"] == "info"


def test_text_quotes_what_must_be_and_never_breaks_a_line() -> None:
    with about(Subject("r-1", "ab")):
        record = _record("it %s", "so\nthere", images=3, seconds=0.123456, why="two words", none="")
        text = Formatter("worker", "text", "worker-0").format(record)
    assert re.fullmatch(
        STAMP + r' INFO worker/worker-0 "it so\\nthere" request=r-1 trace=ab images=3 '
        r'seconds=0\.1235 why="two words" none=""',
        text,
    )


@given(st.text(), st.text())
def test_no_value_makes_a_second_line(message: str, value: str) -> None:
    line = {"time": "t", "level": "info", "part": "p", "message": message, "value": value}
    for form in ("json", "text"):
        assert not set("\n\r") & set(render(line, form))  # type: ignore[arg-type]


async def test_lines_of_a_task_and_those_it_starts_are_about_its_request() -> None:
    async def inner() -> str:
        await asyncio.sleep(0)
        return str(_line(_record("x")).get("request"))

    async def request(name: str) -> tuple[str, str]:
        begin(Subject(name))
        return await inner(), await asyncio.create_task(inner())

    found = await asyncio.gather(*(asyncio.create_task(request(n)) for n in ("a", "b")))
    assert found == [("a", "a"), ("b", "b")]
    assert subject() is NOBODY


def test_a_block_is_about_one_request_only() -> None:
    with about(Subject("a", "t")):
        line = _line(_record("x"))
        assert (line["request"], line["trace"]) == ("a", "t")
    assert "request" not in _line(_record("x"))


@pytest.mark.parametrize("prompt", ["a red 'star'", "with \"both\" 'kinds'", "two\nlines", "né"])
def test_an_error_that_quotes_the_prompt_is_logged_with_its_hash(prompt: str) -> None:
    with about(Subject("a", hidden=(prompt,))):
        try:
            raise ValueError(f"cannot read {prompt!r}", prompt)
        except ValueError as error:
            record = _record("failed: %s", error, cause=repr(error))
            record.exc_info = sys.exc_info()
        line = _line(record)
        text = Formatter("router", "text").format(record)
    hashed = f"<prompt {prompt_hash(prompt)}>"
    for field in ("message", "cause", "exception"):
        assert hashed in line[field], field
    # The traceback's own source line holds the name of the variable, not what it holds.
    for whole in (json.dumps(line), text):
        assert prompt not in whole
        assert repr(prompt)[1:-1] not in whole


def test_a_prompt_that_is_a_word_of_ours_garbles_nothing() -> None:
    with about(Subject("a", hidden=("image",))):
        line = _line(_record("image", outcome="image"))
    assert (line["message"], line["outcome"]) == ("image", "image")


def test_a_prompt_hash_tells_prompts_apart_and_nothing_else() -> None:
    assert prompt_hash("a red circle") == prompt_hash("a red circle") != prompt_hash("a red square")
    assert re.fullmatch("[0-9a-f]{12}", prompt_hash("a red circle"))


def test_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    try:
        set_up("router", "json", own=("gesso_router",))
        logging.getLogger("gesso_router.x").info("ours")
        logging.getLogger("somebody").info("theirs")
        logging.getLogger("somebody").warning("theirs, a warning")
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("gesso_router").setLevel(logging.NOTSET)
        logging.getLogger("gesso").setLevel(logging.NOTSET)
    lines = [json.loads(x) for x in capsys.readouterr().err.splitlines()]
    assert [x["message"] for x in lines] == ["ours", "theirs, a warning"]
