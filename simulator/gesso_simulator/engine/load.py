"""What an autoscaler measures of the simulated workers: how busy they were, and how many requests they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gesso_simulator.engine.worker import SimulatedWorker


class Load:
    """Means over the workers that are ready; None where none is."""

    def __init__(
        self, ready: Callable[[], Sequence[SimulatedWorker]], clock: Callable[[], float]
    ) -> None:
        """`ready` gives the ready workers, `clock` the time of the run in seconds."""
        self._ready = ready
        self._clock = clock
        self._asked_s = 0.0
        self._busy: dict[int, float] = {}

    def queue(self) -> float | None:
        """Requests on a worker now, those being served included."""
        workers = self._ready()
        return sum(w.in_flight for w in workers) / len(workers) if workers else None

    def utilisation(self) -> float | None:
        """Share of the time since this was last asked for that a worker was busy."""
        now = self._clock()
        workers, span = self._ready(), now - self._asked_s
        busy = {w.index: w.busy_s(now) for w in workers}
        worked = sum(
            min(span, seconds - self._busy.get(index, 0.0)) for index, seconds in busy.items()
        )
        self._busy.update(busy)
        self._asked_s = now
        return worked / (len(workers) * span) if workers and span > 0 else None
