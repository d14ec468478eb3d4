"""What happened lately, second by second: readings of the router's counters, and figures between them. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Reading:
    """The router's counters at one moment (`at_s`, unix seconds), and how things stood then."""

    at_s: float
    offered: int
    in_slo: int
    late: int
    shed: int
    failed: int
    cache_hits: int
    quality_sum: float
    served_by_level: tuple[int, ...]
    open: int
    #: Those of the open ones, and of other routers', that no worker denoises yet.
    waiting: int
    backlog_seconds: float
    price: float
    workers_ready: int
    #: Workers by variant, as `Plan.mix_text` names them.
    mix: Mapping[str, int]
    latency_p50: float
    latency_p95: float


@dataclass(frozen=True)
class PlanNote:
    """A plan that came into force; `times` counts those before it of the same reason and mix, and itself."""

    revision: int
    made_at_s: float
    mix: str
    price: float
    reason: str
    message: str
    times: int = 1


class History:
    """The last `seconds` readings, one a second or so, and the last `plans` plans; older ones are forgotten."""

    def __init__(self, seconds: int = 600, plans: int = 24, window: int = 10) -> None:
        """Figures are over the last `window` readings."""
        if not 1 <= window < seconds:
            raise ValueError(f"window: {window} is not allowed: 1 to {seconds - 1}")
        self._readings: deque[Reading] = deque(maxlen=seconds)
        self._plans: deque[PlanNote] = deque(maxlen=plans)
        self._window = window
        #: Readings taken since the start: the sequence number of the newest.
        self.taken = 0

    def add(self, reading: Reading) -> None:
        """Takes the next reading."""
        self._readings.append(reading)
        self.taken += 1

    def note(self, plan: PlanNote) -> None:
        """Takes a plan, unless it was the last; it takes the place of one of the same reason and mix."""
        last = self._plans[-1] if self._plans else None
        if last is not None and last.revision == plan.revision:
            return
        if last is not None and (last.reason, last.mix) == (plan.reason, plan.mix):
            self._plans.pop()
            plan = replace(plan, times=last.times + 1)
        self._plans.append(plan)

    @property
    def plans(self) -> list[PlanNote]:
        """The newest first."""
        return list(reversed(self._plans))

    def since(self, sequence: int) -> list[dict[str, Any]]:
        """A point for each reading after the one with this sequence number that is still held, in order."""
        readings = list(self._readings)
        first = self.taken - len(readings) + 1
        begin = max(0, sequence - first + 1) if sequence <= self.taken else 0
        return [
            point(readings[max(0, i - self._window)], readings[i]) | {"seq": first + i}
            for i in range(begin, len(readings))
        ]


def point(before: Reading, now: Reading) -> dict[str, Any]:
    """The figures between two readings; None where nothing ended from which to tell."""
    seconds = now.at_s - before.at_s
    in_slo, late = now.in_slo - before.in_slo, now.late - before.late
    shed, failed = now.shed - before.shed, now.failed - before.failed
    ended = in_slo + late + shed + failed
    levels = _less(now.served_by_level, before.served_by_level)
    served = sum(levels)
    return {
        "at": round(now.at_s, 3),
        "rate": _ratio(now.offered - before.offered, seconds),
        "served_rate": _ratio(served, seconds),
        "attainment": _ratio(in_slo, ended),
        "refused": _ratio(shed, ended),
        "quality": _ratio(now.quality_sum - before.quality_sum, served),
        "hit_rate": _ratio(now.cache_hits - before.cache_hits, served),
        "levels": list(levels),
        "open": now.open,
        "waiting": now.waiting,
        "backlog": round(now.backlog_seconds, 3),
        "price": round(now.price, 5),
        "workers": now.workers_ready,
        "mix": dict(now.mix),
        "p50": round(now.latency_p50, 4),
        "p95": round(now.latency_p95, 4),
    }


def _less(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(now, before, strict=True))


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole > 0 else None
