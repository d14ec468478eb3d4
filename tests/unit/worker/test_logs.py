"""Log lines are one line each, and hold a hash where a prompt would be."""

from __future__ import annotations

import logging

from gesso_worker.logs import Throttle, line, prompt_hash


def test_fields_are_quoted_where_they_must_be() -> None:
    text = line("served", images=3, seconds=0.123456, reason="two words", empty="")
    assert text == 'served images=3 seconds=0.1235 reason="two words" empty=""'


def test_a_value_cannot_make_a_second_line() -> None:
    assert "\n" not in line("served", reason="one\ntwo")


def test_a_prompt_hash_tells_prompts_apart_and_nothing_else() -> None:
    assert prompt_hash("a red circle") == prompt_hash("a red circle") != prompt_hash("a red square")
    assert len(prompt_hash("a red circle")) == 8


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("n", logging.INFO, "f", 1, text, None, None)


def test_a_flood_of_lines_is_cut_to_one_a_second_and_the_loss_is_told() -> None:
    now = 0.0
    throttle = Throttle(burst=3, clock=lambda: now)
    assert sum(throttle.filter(_record("x")) for _ in range(10)) == 3
    now = 1.0
    late = _record("y")
    assert throttle.filter(late)
    assert late.getMessage() == "y dropped=7"
    assert not throttle.filter(_record("z"))
