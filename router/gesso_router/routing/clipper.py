"""Clipper, the baseline: static levels, one queue, AIMD windows, late requests dropped lazily.

Clipper-HA generates everything in full (K = 0), Clipper-HT everything at the largest K that the
prompt can be served at.

As Clipper (NSDI'17) and the papers that compare with it define it: the window of a worker, how many
requests it is given at once, grows by one while a batch takes no longer than the latency objective
and halves when one does. A request leaves the router's queue when a window opens; only then is its
deadline looked at, and it is dropped if an image at its level can no longer make it. Without that last
clause an overloaded queue would be served just past its deadlines for ever, and the comparison
would be with a straw man.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gesso_router.routing.baselines.common import FULL
from gesso_router.routing.quality import Option


@dataclass(frozen=True)
class Window:
    """AIMD window of one worker: `size` requests at once; `clean` in time since the last change."""

    size: int = 1
    clean: int = 0

    def after(self, missed: bool, largest: int) -> Window:
        """After one image: halve on a miss, one up after a whole window without one; within 1 and `largest`."""
        if missed:
            return Window(max(1, self.size // 2))
        if self.clean + 1 < self.size:
            return Window(self.size, self.clean + 1)
        return Window(min(largest, self.size + 1))


@dataclass(frozen=True)
class Slot:
    """A worker as Clipper sees it: its window, how many requests it has, seconds of one more image."""

    worker: str
    window: Window
    in_flight: int
    service_seconds: float = 0.0


@dataclass(frozen=True)
class Waiting:
    """A request in the router's queue; `deadline_s` on the caller's clock."""

    request_id: str
    deadline_s: float
    exclude: frozenset[str] = frozenset()  # workers that failed it
    skipped_steps: int = 0  # the level it will be served at


@dataclass(frozen=True)
class Turn:
    """The head of the queue: sent to `worker`, or dropped (None) because it is too late for it."""

    request_id: str
    worker: str | None


def clipper_option(options: Sequence[Option], fastest: bool, min_quality: float = 0.0) -> Option:
    """K = 0 (HA), or the largest K of the service's own model not below the floor (`fastest`, HT)."""
    own = [
        o
        for o in options
        if not o.model and (o.skipped_steps == 0 or (fastest and o.quality >= min_quality))
    ]
    return max(own, key=lambda o: o.skipped_steps, default=FULL)


def next_turn(queue: Sequence[Waiting], slots: Sequence[Slot], now_s: float) -> Turn | None:
    """What becomes of the head of the queue; None: it waits for a window."""
    if not queue:
        return None
    head = queue[0]
    free = [s for s in slots if s.in_flight < s.window.size and s.worker not in head.exclude]
    if not free:
        return None
    least = min(free, key=lambda s: (s.in_flight, s.worker))
    if now_s + least.service_seconds >= head.deadline_s:
        return Turn(head.request_id, None)
    return Turn(head.request_id, least.worker)
