"""Clipper's central queue in the simulator; its decisions are `gesso_router.routing.clipper`'s."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from gesso_router.routing.clipper import Slot, Waiting, Window, clipper_option, next_turn
from gesso_router.routing.quality import Option
from gesso_simulator.engine.worker import SimulatedWorker


class ClipperQueue:
    """First in, first out; a request leaves when a worker's AIMD window opens, and only then is its deadline
    looked at.
    """

    def __init__(
        self, slo_s: float, max_batch: int, fastest: bool, min_quality: float = 0.0
    ) -> None:
        """`fastest`: Clipper-HT, each prompt at the largest K that it can have; else Clipper-HA, K = 0."""
        self._slo_s = slo_s
        self._max_batch = max_batch
        self._fastest = fastest
        self._min_quality = min_quality
        self._queue: deque[tuple[int, Option, Waiting]] = deque()
        self._windows: dict[str, Window] = {}

    def add(self, request: int, options: Sequence[Option], arrival_s: float) -> None:
        """A request comes, or comes again after its worker was lost."""
        option = clipper_option(options, self._fastest, self._min_quality)
        self._queue.append((request, option, Waiting(str(request), arrival_s + self._slo_s)))

    def finished(self, worker: str, took_s: float) -> None:
        """An image came from a worker after so many seconds there: its window learns."""
        window = self._windows.get(worker, Window())
        self._windows[worker] = window.after(took_s > self._slo_s, self._max_batch)

    def turns(
        self, workers: Sequence[SimulatedWorker], now_s: float
    ) -> Iterator[tuple[int, Option, SimulatedWorker | None]]:
        """Who is sent where now; None: dropped, since it could not be in time any more."""
        by_name = {w.name: w for w in workers}
        while self._queue:
            request, option, waiting = self._queue[0]
            free = [w for w in workers if w.in_flight < self._windows.get(w.name, Window()).size]
            slots = [
                Slot(
                    w.name,
                    self._windows.get(w.name, Window()),
                    w.in_flight,
                    w.profile.latency_seconds(
                        option.skipped_steps, min(w.in_flight + 1, self._max_batch)
                    ),
                )
                for w in free
            ]
            turn = next_turn((waiting,), slots, now_s)
            if turn is None:
                return
            self._queue.popleft()
            yield request, option, by_name[turn.worker] if turn.worker is not None else None
