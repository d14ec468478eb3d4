"""How much of a device each stage takes, where stages run at once.

Encoding, denoising and decoding have a thread each, and slow each other down: the sum of what each takes by the
clock is more than the device has. So each is charged its share: with n of them at work, each takes a second of
the device in n seconds. The sum over all stages is then the time in which any was at work, which is what a
profile must add up to, since planner and routers reckon with one stage after the other. It is the virtual time
of processor sharing (Kleinrock, J. ACM 14(2), 1967).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Share:
    """What a block took: seconds of the device, known when it has ended."""

    seconds: float = 0.0


class SharedTime:
    """Of one device. Thread-safe; `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work = 0
        self._virtual = 0.0
        self._as_of = 0.0

    @contextmanager
    def work(self) -> Iterator[Share]:
        """A block that uses the device; its share is told though it fails."""
        share = Share()
        began = self._advance(1)
        try:
            yield share
        finally:
            share.seconds = self._advance(-1) - began

    def _advance(self, change: int) -> float:
        """The virtual time now, with so many more at work from now on."""
        with self._lock:
            now = self._clock()
            if self._at_work:
                self._virtual += max(0.0, now - self._as_of) / self._at_work
            self._as_of = now
            self._at_work += change
            return self._virtual
