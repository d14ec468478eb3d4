"""The SLO over the last minute, from the router's counters; pure."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_SECONDS = 60.0


@dataclass(frozen=True)
class Counters:
    """The router's counters at `at_s`. `served` counts images; `late` also what was dropped as too late."""

    at_s: float
    in_time: int
    late: int
    shed: int
    failed: int
    served: int
    quality_sum: float

    @property
    def settled(self) -> int:
        """Requests with an outcome; those that the client cancelled do not count."""
        return self.in_time + self.late + self.shed + self.failed


@dataclass(frozen=True)
class Window:
    """Samples of the counters, oldest first; spans the last minute and little more."""

    samples: tuple[Counters, ...] = ()

    def add(self, sample: Counters) -> Window:
        """The window after one more sample. A counter that fell means a restarted router: the past goes."""
        past = self.samples
        if past and (sample.settled < past[-1].settled or sample.at_s < past[-1].at_s):
            past = ()
        edge = sample.at_s - WINDOW_SECONDS
        # One sample at or before the edge stays, as what differences are taken from.
        kept = next((i for i in range(len(past) - 1, -1, -1) if past[i].at_s <= edge), 0)
        return Window((*past[kept:], sample))

    @property
    def attainment(self) -> float | None:
        """Share of the settled requests that were served in time; None without any."""
        if len(self.samples) < 2:
            return None
        first, last = self.samples[0], self.samples[-1]
        settled = last.settled - first.settled
        return _share(last.in_time - first.in_time, settled) if settled > 0 else None

    @property
    def quality(self) -> float | None:
        """Mean predicted relative quality of what was served; None when nothing was."""
        if len(self.samples) < 2:
            return None
        first, last = self.samples[0], self.samples[-1]
        served = last.served - first.served
        return _share(last.quality_sum - first.quality_sum, served) if served > 0 else None


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole))
