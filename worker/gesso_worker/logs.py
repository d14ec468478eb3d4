"""Log lines on stderr: `time level name event key=value ...`; never a prompt."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable


class Throttle(logging.Filter):
    """Lets one record a second through on average, twenty at once; the next one tells how many were dropped."""

    def __init__(self, burst: int = 20, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether there is room for the record."""
        now = self._clock()
        self._left = min(self._burst, self._left + now - self._at)
        self._at = now
        if self._left < 1:
            self._dropped += 1
            return False
        self._left -= 1
        if self._dropped:
            record.msg = f"{record.getMessage()} dropped={self._dropped}"
            record.args = None
            self._dropped = 0
        return True


def set_up(name: str) -> None:
    """Sends this process's log to stderr, one line for each record."""
    logging.captureWarnings(True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)s {name} %(message)s", "%Y-%m-%dT%H:%M:%S")
    )
    handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("gesso_worker").setLevel(logging.INFO)


def line(event: str, **fields: object) -> str:
    """`event key=value ...`; strings with spaces are quoted, floats shortened."""
    return " ".join([event, *(f"{key}={_value(value)}" for key, value in fields.items())])


def prompt_hash(prompt: str) -> str:
    """Eight hexadecimal digits that stand for a prompt in a log."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:8]


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if text and not set(text) & set(' "=\n') else json.dumps(text)
