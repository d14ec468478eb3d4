"""Who may act: a Lease as in client-go's leader election, decided purely.

The holder renews; another takes it over when it has not been renewed for its duration *by the observer's own
clock*, so that clocks of different machines are never compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

DURATION_S = 15.0
RENEW_S = 5.0


class Step(StrEnum):
    """What to do about the Lease now."""

    CREATE = "create"
    RENEW = "renew"
    TAKE = "take"
    WAIT = "wait"


@dataclass(frozen=True)
class Seen:
    """The Lease as read: holder (empty: released), its renewal mark and duration in seconds."""

    holder: str
    mark: str
    duration_s: float = DURATION_S


@dataclass(frozen=True)
class Watch:
    """What an observer remembers: the mark last seen, and when it first saw it, by its own clock."""

    mark: str = ""
    since_s: float = 0.0

    def at(self, seen: Seen, now_s: float) -> Watch:
        """After looking again."""
        return self if seen.mark == self.mark else replace(self, mark=seen.mark, since_s=now_s)


def step(me: str, seen: Seen | None, watch: Watch, now_s: float) -> Step:
    """The next step; `watch` has looked at `seen` already. None: there is no Lease."""
    if seen is None:
        return Step.CREATE
    if seen.holder == me:
        return Step.RENEW
    if not seen.holder or now_s - watch.since_s >= seen.duration_s:
        return Step.TAKE
    return Step.WAIT


def holds(renewed_s: float | None, now_s: float, duration_s: float = DURATION_S) -> bool:
    """Whether the holder may still act: it renewed lately enough that nobody can have taken over.

    A fifth of the duration is kept back for what is under way.
    """
    return renewed_s is not None and now_s - renewed_s < 0.8 * duration_s
