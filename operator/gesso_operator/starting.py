"""How long workers take from being asked for until they serve, learned from those that came up; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from gesso_operator.fleet import Member

#: Starts that count: one that waited for a node or an image among quick ones changes little.
MOST_STARTS = 8


@dataclass(frozen=True)
class StartTimes:
    """Seconds of the last starts, oldest first; `awaited` are the instances that were seen on their way up."""

    recent: tuple[float, ...] = ()
    awaited: frozenset[str] = frozenset()

    def see(self, members: Iterable[Member]) -> StartTimes:
        """After a look at the workers; the same object where it brought nothing new.

        An instance counts once, when it first serves, and only if it was seen before that: of one that has
        long been up, the time at which it became ready may be that of a later trouble.
        """
        named = [m for m in members if m.instance]
        up = [m for m in named if m.serving and m.start_seconds is not None]
        came = [m for m in up if m.instance in self.awaited]
        awaited = frozenset(m.instance for m in named if not m.serving)
        if not came and awaited == self.awaited:
            return self
        seconds = (s for m in came if (s := m.start_seconds) is not None and s >= 0)
        return StartTimes((*self.recent, *seconds)[-MOST_STARTS:], awaited)

    @property
    def seconds(self) -> float | None:
        """The median, to a whole second, as pods tell it; None until a start was seen."""
        return float(round(median(self.recent))) if self.recent else None
