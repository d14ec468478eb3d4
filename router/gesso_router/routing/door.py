"""Who is refused before anything is known of the prompt; pure.

To read a prompt takes time, most of all under overload, when embedder and shards are as busy as everyone. A
prompt that could not be served even if it were the luckiest of all, with a perfect match at the deepest level,
need not be read to be refused. Prompts that are being read count as if they were as lucky, each on the worker
where there is most room: else all who come while one is read would be let in for the same place.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from gesso_router.routing.quality import Option
from gesso_router.routing.view import FleetView

#: While the least busy worker has less to do than this share of the deadline, everybody is read.
CALM_SHARE = 0.25
#: Prompts in reading that are reckoned with, for each worker: more would only cost time to count.
MOST_READING = 16
#: Where so large a share is refused, for every prompt that is given up there is another.
MOST_REFUSED = 0.5
#: A refusal that comes later than this is not at once; the rest of 50 ms is the way there and back.
AT_ONCE_SECONDS = 0.03


@dataclass(frozen=True)
class Refusals:
    """The share of refused prompts lately: a running mean, each prompt counting `rate`."""

    share: float = 0.0
    rate: float = 0.05

    def seen(self, refused: bool) -> Refusals:
        """After a prompt was refused, or placed."""
        return replace(self, share=self.share + self.rate * (refused - self.share))

    @property
    def most(self) -> bool:
        """Whether most prompts are refused."""
        return self.share >= MOST_REFUSED

    def reading_seconds(self, usual: float, so_far: float) -> float:
        """What a prompt's look-up may take that may usually take `usual` seconds, `so_far` after it came.

        Under overload a shard may answer late, on a machine that is as busy as everyone. There a prompt is
        worth no wait, since another stands in for it: who is to be refused learns of it at once.
        """
        if not self.most:
            return usual
        return min(usual, max(0.0, AT_ONCE_SECONDS - so_far))


def luckiest(options: Sequence[Option], deepest: int) -> tuple[Option, ...]:
    """The best that a prompt may turn out to be: `options` are those of a prompt that nothing is known of."""
    others = tuple(o for o in options if o.model)
    return (Option(deepest, 1.0), *others)


def is_calm(fleet: FleetView, deadline_seconds: float, reading: int = 0, steps: int = 1) -> bool:
    """Whether there is so much room that nobody needs to be stopped at the door.

    It is certain, though there may be room where it says no: `reading` more requests of `steps` steps count as
    if the least busy worker had them all.
    """
    if not fleet.workers:
        return deadline_seconds > 0
    least = min(fleet.workers, key=attrgetter("backlog_seconds"))
    profile = least.profile
    more = reading * (profile.fixed_seconds + steps * profile.busy_step_seconds)
    return least.backlog_seconds + more < CALM_SHARE * deadline_seconds


def with_reading(fleet: FleetView, reading: int, steps: int) -> FleetView:
    """The fleet as if `reading` more requests of `steps` steps were queued where there is most room."""
    if reading < 1 or not fleet.workers:
        return fleet
    workers = list(fleet.workers)
    room = [(w.backlog_seconds, i) for i, w in enumerate(workers)]
    heapq.heapify(room)
    for _ in range(min(reading, MOST_READING * len(workers))):
        _, i = room[0]
        workers[i] = replace(workers[i], queued=(*workers[i].queued, max(1, steps)))
        heapq.heapreplace(room, (workers[i].backlog_seconds, i))
    return replace(fleet, workers=tuple(workers))
