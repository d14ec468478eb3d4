"""Counts what became of each request: every well-formed one ends in exactly one outcome.

No I/O and no clock of its own: times come in as monotonic seconds.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gesso.plan import QualityCurve


class Outcome(enum.Enum):
    """How a well-formed request ends."""

    SERVED_IN_SLO = "served_in_slo"
    LATE = "late"  # served after its deadline, or dropped because that had passed
    SHED = "shed"  # refused at once
    FAILED = "failed"
    CANCELLED = "cancelled"  # by the client
    INVALID = "invalid"  # asked for a K that no latent allows: nobody's deadline, nobody's load


@dataclass(frozen=True)
class Served:
    """An image that went out."""

    skipped_steps: int
    quality: float


class Ticket:
    """One request from arrival to outcome; the first `close` counts, later ones say False."""

    def __init__(self, ledger: Ledger, arrived_s: float, deadline_s: float) -> None:
        self._ledger = ledger
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        self.outcome: Outcome | None = None

    def served(self, now_s: float, image: Served) -> Outcome:
        """The image went out at `now_s`: in time or late."""
        outcome = Outcome.SERVED_IN_SLO if now_s <= self.deadline_s else Outcome.LATE
        if self.close(outcome):
            self._ledger.record_served(now_s, now_s - self.arrived_s, image)
        return outcome

    def close(self, outcome: Outcome) -> bool:
        """Ends the request without an image; False if it has ended before."""
        if self.outcome is not None:
            return False
        self.outcome = outcome
        self._ledger.record_end(outcome)
        return True


@dataclass
class ClassTally:
    """Arrivals of a prompt class, and the sum of their quality curves over the ladder, then other models."""

    arrivals: int = 0
    quality_sum: list[float] = field(default_factory=list)


class Ledger:
    """Counters since the router started. Sums of counters by outcome plus `open` always equal `offered`."""

    def __init__(
        self,
        ladder: Sequence[int],
        class_names: Sequence[str],
        latency_window_s: float,
        latency_samples: int,
        others: int = 0,
    ) -> None:
        """`others` is how many other models than the service's own there are."""
        self.ladder = tuple(ladder)
        self.offered = 0
        self.ended = dict.fromkeys(Outcome, 0)
        self.retried = 0
        self.cache_hits = 0
        self.quality_sum = 0.0
        self.skipped_steps_sum = 0.0
        self.served_by_level = dict.fromkeys(self.ladder, 0)
        self.optimal_by_level = dict.fromkeys(self.ladder, 0)
        self.classes = {n: ClassTally(0, [0.0] * (len(self.ladder) + others)) for n in class_names}
        self._window_s = latency_window_s
        self._latencies: deque[tuple[float, float]] = deque(maxlen=latency_samples)

    @property
    def open(self) -> int:
        """Requests that have not ended."""
        return self.offered - sum(self.ended.values())

    def arrive(self, now_s: float, slo_seconds: float) -> Ticket:
        """A well-formed request came in."""
        self.offered += 1
        return Ticket(self, now_s, now_s + slo_seconds)

    def classify(
        self, name: str, curve: QualityCurve, optimal_k: int, others: Sequence[float] = ()
    ) -> None:
        """The class of an arrival is known, and its optimal K, which is a level of the ladder.

        `others` is its quality by each other model.
        """
        self.optimal_by_level[optimal_k] += 1
        tally = self.classes[name]
        tally.arrivals += 1
        for i, quality in enumerate((*curve.quality, *others)):
            tally.quality_sum[i] += quality

    def retry(self) -> None:
        """A request goes to a second worker."""
        self.retried += 1

    def record_end(self, outcome: Outcome) -> None:
        """Called by tickets."""
        self.ended[outcome] += 1

    def record_served(self, now_s: float, latency_seconds: float, image: Served) -> None:
        """Called by tickets."""
        self.cache_hits += image.skipped_steps > 0
        self.quality_sum += image.quality
        self.skipped_steps_sum += image.skipped_steps
        # A level that the ladder lost meanwhile counts as the next below.
        level = max((k for k in self.ladder if k <= image.skipped_steps), default=0)
        self.served_by_level[level] += 1
        self._latencies.append((now_s, latency_seconds))

    def latency_percentiles(self, now_s: float, shares: Sequence[float]) -> tuple[float, ...]:
        """Latencies, seconds, below which these shares of the images served of late lie; 0 without any."""
        while self._latencies and self._latencies[0][0] < now_s - self._window_s:
            self._latencies.popleft()
        values = sorted(latency for _, latency in self._latencies)
        if not values:
            return (0.0,) * len(shares)
        return tuple(values[min(len(values) - 1, int(s * len(values)))] for s in shares)

    def mean_quality(self, name: str) -> tuple[float, ...]:
        """Mean quality of a class over the ladder, then other models; empty without an arrival."""
        tally = self.classes[name]
        return tuple(q / tally.arrivals for q in tally.quality_sum) if tally.arrivals else ()
