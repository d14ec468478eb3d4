"""Bounds a log: of warnings and errors, which may come by the step, only so many a second go through."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class Throttle(logging.Filter):
    """Lets one warning or error a second through on average, twenty at once.

    The next one tells how many were dropped. What is below goes through: there is a line for each
    image at most.
    """

    def __init__(self, burst: int = 20, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether there is room for the record."""
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        self._left = min(self._burst, self._left + now - self._at)
        self._at = now
        if self._left < 1:
            self._dropped += 1
            return False
        self._left -= 1
        if self._dropped:
            record.dropped = self._dropped
            self._dropped = 0
        return True
