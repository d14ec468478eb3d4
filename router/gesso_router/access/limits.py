"""How much a caller may have: a token bucket per key, a fair share of the queue per tenant; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

#: Seconds for which a tenant that has gone silent still has its share.
REMEMBERED_S = 10.0
#: Seconds for which a queue that was too long for its deadlines counts as the most that the fleet can bear.
OVERLOAD_S = 5.0


@dataclass(frozen=True)
class Bucket:
    """A token bucket: `rate` tokens come in each second, up to `burst`; what is `left` was so at `at_s`."""

    rate: float
    burst: float
    left: float
    at_s: float

    @classmethod
    def full(cls, rate: float, burst: float, now_s: float) -> Bucket:
        """One that nothing has been taken from."""
        return cls(rate, burst, burst, now_s)

    def take(self, tokens: float, now_s: float) -> tuple[Bucket, float]:
        """The bucket afterwards, and the seconds until so many tokens are there: 0 where they were taken.

        `tokens` is at most `burst`, else they never are.
        """
        left = min(self.burst, self.left + self.rate * max(0.0, now_s - self.at_s))
        if left >= tokens:
            return replace(self, left=left - tokens, at_s=now_s), 0.0
        return replace(self, left=left, at_s=now_s), (tokens - left) / self.rate

    def give_back(self, tokens: float) -> Bucket:
        """The bucket with so many tokens more, up to `burst`."""
        return replace(self, left=min(self.burst, self.left + tokens))


@dataclass(frozen=True)
class Standing:
    """A tenant in the queue: requests that are `open`, the most that were of late, and when it last came."""

    open: int = 0
    peak: int = 0
    peak_s: float = 0.0
    seen_s: float = 0.0


def bearable(most: int, shed_open: int, shed_s: float | None, now_s: float) -> int:
    """How long the queue may be: `most`, or what was open when a deadline could not be made a moment ago."""
    if shed_s is None or now_s - shed_s > OVERLOAD_S:
        return most
    return max(1, min(most, shed_open))


def has_share(
    tenant: str, standings: Mapping[str, Standing], bearable_queue: int, now_s: float
) -> bool:
    """Whether one more request of a tenant leaves the others their shares (max-min fairness, with notice).

    Below its equal part of the queue a tenant always has one. Beyond, it takes what the others leave: each
    is held free twice its recent peak, up to its equal part, so that who grows finds room, and who asks for
    little holds up nobody.
    """
    active = {
        name: s
        for name, s in standings.items()
        if name != tenant and (s.open or now_s - s.seen_s < REMEMBERED_S)
    }
    mine = standings.get(tenant, Standing()).open
    part = max(1, bearable_queue // (len(active) + 1))
    if mine < part:
        return True
    held_free = 0
    for s in active.values():
        peak = max(s.open, s.peak if now_s - s.peak_s < REMEMBERED_S else 0)
        held_free += max(0, min(part, 2 * peak + 1) - s.open)
    return sum(s.open for s in standings.values()) + held_free < bearable_queue
