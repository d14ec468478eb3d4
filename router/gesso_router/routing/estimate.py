"""When would a new request finish on a worker that batches mixed steps: an exact event simulation.

The worker has active requests with remaining steps and a FIFO queue. One tick of a batch of b takes
`profile.tick_seconds(b)` and takes one step off each; requests join and leave at tick boundaries;
at most `profile.max_batch` are active. Encoding at a join and decoding at a leave hold the device
for everyone. Events are joins and leaves, so the cost grows with requests, not with steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gesso.profile import Profile


@dataclass(frozen=True)
class Arrivals:
    """Requests expected to follow on the same worker: one every `interval_seconds`, of `steps` each.

    They matter because whoever joins the batch slows everyone in it.
    """

    interval_seconds: float = math.inf
    steps: int = 1

    def __post_init__(self) -> None:
        if not self.interval_seconds > 0 or self.steps < 1:
            raise ValueError(
                f"arrivals: {self} is not allowed: an interval above 0, at least 1 step"
            )


NO_ARRIVALS = Arrivals()


class Estimate(NamedTuple):
    """Seconds from now to the first denoising step, and to the decoded image for each asked number of steps."""

    start_seconds: float
    finish_seconds: tuple[float, ...]


def estimate(
    profile: Profile,
    active: Sequence[int],
    queued: Sequence[int],
    steps: Sequence[int],
    arrivals: Arrivals = NO_ARRIVALS,
) -> Estimate:
    """Predicted start and finish of a request that joins the end of the queue now.

    Args:
        profile: times of the worker; its `max_batch` bounds the batch.
        active: remaining steps of each request in the denoising batch.
        queued: steps of each request in the queue, in order.
        steps: numbers of steps to price, any order, each at least 1. One run answers all: until it
        leaves, a request's
            course does not depend on how many steps it has.
        arrivals: who will follow.
    """
    if not steps or min(steps) < 1:
        raise ValueError(
            f"steps: {tuple(steps)} is not allowed: at least one number, each at least 1"
        )
    seconds = profile.step_seconds
    limit = len(seconds)
    if limit == 1:
        return _in_turn(profile, active, queued, steps)
    encode, decode = profile.encode_seconds, profile.decode_seconds
    # More than the batch holds can only be a stale report: the surplus waits first in line.
    batch = sorted(max(1, r) for r in active[:limit])
    waiting = [max(1, r) for r in (*active[limit:], *queued)]
    # Whoever joins waits for the end of the tick in progress: half a tick on average.
    now = seconds[len(batch) - 1] / 2 if batch else 0.0

    place = 0
    while True:  # until the new request may join
        while len(batch) < limit and place < len(waiting):
            batch.append(waiting[place])
            place += 1
            now += encode
        if len(batch) < limit:
            break
        batch.sort()
        ticks = batch[0]
        now += ticks * seconds[len(batch) - 1]
        remaining = [r - ticks for r in batch if r > ticks]
        now += decode * (len(batch) - len(remaining))
        batch = remaining

    now += encode
    start = now
    batch.sort()
    wanted = sorted(set(steps))
    finish: dict[int, float] = {}
    done, longest = 0, wanted[-1]
    following, next_arrival, pending = 0, start + arrivals.interval_seconds, 0
    while done < longest:
        size = len(batch) + 1
        tick = seconds[size - 1]
        ticks = longest - done
        if batch and batch[0] < ticks:
            ticks = batch[0]
        if size < limit and next_arrival < math.inf:
            ticks = min(ticks, max(1, math.ceil((next_arrival - now) / tick)))
        while following < len(wanted) and wanted[following] <= done + ticks:
            n = wanted[following]
            finish[n] = now + (n - done) * tick + decode
            following += 1
        now += ticks * tick
        done += ticks
        remaining = [r - ticks for r in batch if r > ticks]
        now += decode * (len(batch) - len(remaining))
        batch = remaining
        if next_arrival <= now:
            came = 1 + int((now - next_arrival) / arrivals.interval_seconds)
            next_arrival += came * arrivals.interval_seconds
            # More than a batch of them waiting changes nothing that this request sees.
            pending = min(pending + came, limit)
        if pending and len(batch) + 1 < limit:
            joining = min(pending, limit - 1 - len(batch))
            pending -= joining
            now += joining * encode
            batch = sorted([*batch, *[arrivals.steps] * joining])
    return Estimate(start, tuple(finish[n] for n in steps))


def _in_turn(
    profile: Profile, active: Sequence[int], queued: Sequence[int], steps: Sequence[int]
) -> Estimate:
    """The estimate where the worker serves one request at a time: all before it, then its own steps."""
    tick = profile.step_seconds[0]
    encode, decode = profile.encode_seconds, profile.decode_seconds
    start = encode
    if active or queued:
        start = (
            (sum(active) + sum(queued)) * tick
            + len(queued) * encode
            + (len(active) + len(queued)) * decode
            + encode
        )
    if active:
        start -= tick / 2  # of the tick in progress, half is over on average
    return Estimate(start, tuple([start + n * tick + decode for n in steps]))


def backlog_seconds(profile: Profile, active: Sequence[int], queued: Sequence[int]) -> float:
    """Worker-seconds of accepted work still to do, at the throughput of the best batch."""
    steps, images, waiting = sum(active), len(active), 0
    if queued:
        waiting = len(queued)
        steps += sum(queued)
        images += waiting
    elif not images:
        return 0.0
    return (
        steps * profile.busy_step_seconds
        + images * profile.decode_seconds
        + waiting * profile.encode_seconds
    )
