"""A circuit breaker: who fails again and again is left alone for a while, then tried again; pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Failures in a row after which it opens.
FAILURES = 3
#: Seconds that it stays open at first, doubled each time it opens again, up to the most.
OPEN_S, MOST_OPEN_S = 1.0, 30.0


@dataclass(frozen=True)
class Breaker:
    """Of one worker. After its time it lets requests through; the first of them decides."""

    failures: int = 0
    opened: int = 0
    until_s: float = 0.0

    def failed(self, now_s: float) -> Breaker:
        """A request failed for what the worker did."""
        failures = self.failures + 1
        if failures < FAILURES or self.open(now_s):
            return Breaker(failures, self.opened, self.until_s)
        seconds = min(MOST_OPEN_S, OPEN_S * 2.0 ** min(self.opened, 10))
        return Breaker(failures, self.opened + 1, now_s + seconds)

    def open(self, now_s: float) -> bool:
        """Whether nothing new should go there."""
        return now_s < self.until_s


CLOSED = Breaker()
