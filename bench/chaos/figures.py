"""What a stream of answers says about a disturbance: the dip, and the time until it is over. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: Attainment is told by windows of so many seconds, in which requests were due.
WINDOW_S = 5.0
#: It is back once it holds for so long.
HOLD_S = 10.0


class Ending(StrEnum):
    """How a request ended for its client."""

    IN_SLO = "in_slo"
    LATE = "late"  # an image, after its deadline
    DROPPED = "dropped"  # accepted, and told that its deadline had passed
    REFUSED = "refused"  # told at once that there is no room or no time
    FAILED = "failed"  # told of another failure
    LOST = "lost"  # told nothing, by any router


@dataclass(frozen=True)
class Answer:
    """One request: due at `at_s`, answered `latency_s` later.

    `accepted`: a router had placed it on a worker. `routers` were asked in turn, `attempts` workers tried.
    """

    at_s: float
    ending: Ending
    latency_s: float
    accepted: bool = False
    routers: tuple[int, ...] = ()
    attempts: int = 0
    quality: float | None = None
    skipped_steps: int | None = None
    worker: str = ""
    detail: str = ""

    @property
    def lost(self) -> bool:
        """Accepted, and then neither served nor told in time that it would not be."""
        return self.accepted and self.ending in (Ending.LOST, Ending.FAILED)


def attainment(answers: Sequence[Answer]) -> float | None:
    """Share served in time; None without a request."""
    if not answers:
        return None
    return sum(a.ending is Ending.IN_SLO for a in answers) / len(answers)


def due(answers: Sequence[Answer], begin_s: float, end_s: float) -> Sequence[Answer]:
    """Those due in [begin, end), of answers in the order in which they were due."""
    times = [a.at_s for a in answers]
    return answers[bisect_left(times, begin_s) : bisect_left(times, end_s)]


def windows(
    answers: Sequence[Answer], begin_s: float, end_s: float, step_s: float = 0.5
) -> list[tuple[float, float]]:
    """(start, attainment) of every window of `WINDOW_S` in [begin, end] in which anything was due."""
    found, at = [], begin_s
    while at + WINDOW_S <= end_s + 1e-9:
        share = attainment(due(answers, at, at + WINDOW_S))
        if share is not None:
            found.append((at, share))
        at += step_s
    return found


def worst(answers: Sequence[Answer], begin_s: float, end_s: float) -> float | None:
    """The least attainment of any window."""
    return min((share for _, share in windows(answers, begin_s, end_s)), default=None)


def back_after(
    answers: Sequence[Answer], begin_s: float, end_s: float, target: float
) -> float | None:
    """Seconds from `begin_s` until attainment is at least `target` for `HOLD_S`, after its worst window.

    0 where no window fell below; None where that moment does not come before `end_s` less `HOLD_S`. Moments
    are those of misses: right after one is where a good stretch may begin.
    """
    low = min(windows(answers, begin_s, end_s), key=lambda w: w[1], default=(begin_s, 1.0))
    if low[1] >= target:
        return 0.0
    misses = [a.at_s for a in due(answers, low[0], end_s) if a.ending is not Ending.IN_SLO]
    for moment in (math.nextafter(at, math.inf) for at in misses):
        if moment + HOLD_S > end_s:
            return None
        share = attainment(due(answers, moment, moment + HOLD_S))
        if share is None or share >= target:
            return max(0.0, moment - begin_s)
    return None


def touched(answers: Sequence[Answer], begin_s: float, end_s: float) -> Sequence[Answer]:
    """Those that were under way at `begin_s`, or due from then on until `end_s`."""
    return [a for a in answers if a.at_s < end_s and a.at_s + a.latency_s >= begin_s]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which a share of the values lies; None without one."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def mean(values: Sequence[float]) -> float | None:
    """None without a value."""
    return sum(values) / len(values) if values else None


def told(answers: Sequence[Answer]) -> dict[str, Any]:
    """The figures of a stretch."""
    counts = Counter(a.ending for a in answers)
    latencies = [a.latency_s for a in answers if a.ending in (Ending.IN_SLO, Ending.LATE)]
    return {
        "offered": len(answers),
        **{ending.value: counts[ending] for ending in Ending},
        "accepted_and_lost": sum(a.lost for a in answers),
        "attainment": attainment(answers),
        "latency_p50_s": percentile(latencies, 0.5),
        "latency_p99_s": percentile(latencies, 0.99),
        "predicted_quality": mean([a.quality for a in answers if a.quality is not None]),
        "mean_skipped_steps": mean(
            [float(a.skipped_steps) for a in answers if a.skipped_steps is not None]
        ),
        "asked_another_router": sum(len(a.routers) > 1 for a in answers),
        "took_a_second_worker": sum(a.attempts > 1 for a in answers),
    }


def trend(samples: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """The mean of the first and of the last third of (time, value), and the most; None below three samples."""
    if len(samples) < 3:
        return None
    third = len(samples) // 3
    values = [v for _, v in samples]
    first, last = values[:third], values[-third:]
    return {
        "first_third": sum(first) / third,
        "last_third": sum(last) / third,
        "most": max(values),
    }
