"""A flood of warnings is cut; a line for each image is none."""

from __future__ import annotations

import logging

from gesso_worker.throttle import Throttle


def _record(text: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("n", level, "f", 1, text, None, None)


def test_a_flood_of_lines_is_cut_to_one_a_second_and_the_loss_is_told() -> None:
    now = 0.0
    throttle = Throttle(burst=3, clock=lambda: now)
    assert sum(throttle.filter(_record("x")) for _ in range(10)) == 3
    now = 1.0
    late = _record("y")
    assert throttle.filter(late)
    assert late.__dict__["dropped"] == 7
    assert not throttle.filter(_record("z"))


def test_what_is_no_warning_goes_through() -> None:
    throttle = Throttle(burst=1, clock=lambda: 0.0)
    assert throttle.filter(_record("x"))
    assert all(throttle.filter(_record("image", logging.INFO)) for _ in range(100))
    assert not throttle.filter(_record("x"))
