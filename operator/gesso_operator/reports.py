"""The counters of several routers as those of one; pure.

Routers count from their start and come and go. Here their differences add up to counters that never fall, so
that the planner sees one router that lives as long as the operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gesso.rpc.v1 import router_pb2
from gesso_operator.planning import ClassCount, RouterReport
from gesso_operator.window import Counters

Reply = router_pb2.ReportResponse
_Key = TypeVar("_Key", str, int)


@dataclass(frozen=True)
class Tally:
    """Sums of counters; `classes` are arrivals by the class's name, `optimal` by optimal K."""

    offered: int = 0
    invalid: int = 0
    in_time: int = 0
    late: int = 0
    shed: int = 0
    failed: int = 0
    served: int = 0
    quality_sum: float = 0.0
    classes: Mapping[str, int] = field(default_factory=dict)
    optimal: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, reply: Reply) -> Tally:
        """One router's counters."""
        return cls(
            offered=reply.offered,
            invalid=reply.invalid,
            in_time=reply.served_in_slo,
            late=reply.late,
            shed=reply.shed,
            failed=reply.failed,
            served=sum(reply.served_by_level),
            quality_sum=reply.predicted_quality_sum,
            classes={c.name: c.arrivals for c in reply.classes},
            optimal=dict(zip(reply.skipped_steps, reply.optimal_by_level, strict=False)),
        )

    def plus(self, other: Tally, sign: int = 1) -> Tally:
        """The sum, or with `sign` -1 the difference."""
        return Tally(
            self.offered + sign * other.offered,
            self.invalid + sign * other.invalid,
            self.in_time + sign * other.in_time,
            self.late + sign * other.late,
            self.shed + sign * other.shed,
            self.failed + sign * other.failed,
            self.served + sign * other.served,
            self.quality_sum + sign * other.quality_sum,
            _added(self.classes, other.classes, sign),
            _added(self.optimal, other.optimal, sign),
        )


@dataclass(frozen=True)
class Merged:
    """All routers' counters so far: `seen` holds each one's uptime and counters when it last told, `load` how
    many requests were to be served.
    """

    total: Tally = Tally()
    load: int = 0
    seen: Mapping[str, tuple[float, Tally]] = field(default_factory=dict)
    began_s: float | None = None
    at_s: float = 0.0

    def add(self, replies: Mapping[str, Reply]) -> Merged:
        """After one round of reports, by the router's name; a router that did not answer keeps what it had.

        One that was not known before, or has restarted, is counted from its start, unless it was up before
        anything was merged: what it served then is nobody's rate.
        """
        if not replies:
            return self
        total, seen = self.total, dict(self.seen)
        at_s = max(r.at for r in replies.values())
        for name, reply in replies.items():
            now, before = Tally.of(reply), seen.get(name)
            if before is not None and not _restarted(reply, now, *before):
                total = total.plus(now.plus(before[1], -1))
            elif self.began_s is not None and reply.at - reply.uptime_seconds >= self.began_s:
                total = total.plus(now)
            seen[name] = (reply.uptime_seconds, now)
        began_s = at_s if self.began_s is None else self.began_s
        # That a request is invalid is known a little after it was offered.
        load = max(self.load, total.offered - total.invalid)
        return Merged(total, load, seen, began_s, max(at_s, self.at_s))

    def keep_only(self, names: Sequence[str]) -> Merged:
        """Forgets the routers that are gone."""
        return replace(self, seen={n: s for n, s in self.seen.items() if n in names})

    def report(self, replies: Mapping[str, Reply], ladder: tuple[int, ...]) -> RouterReport | None:
        """What the planner is shown; None without a reply. Curves of another ladder are left empty."""
        if not replies or self.began_s is None:
            return None
        known = [r for r in replies.values() if tuple(r.skipped_steps) == ladder]
        classes = {c.name: 0 for r in replies.values() for c in r.classes} | dict(
            self.total.classes
        )
        return RouterReport(
            at_s=self.at_s,
            # Any number that grows by the time that passes: the sums never fall.
            uptime_s=1.0 + self.at_s - self.began_s,
            offered=self.load,
            classes=tuple(
                ClassCount(name, count, _curve(name, known)) for name, count in classes.items()
            ),
            # Every router sees the whole of each worker's queue.
            backlog_s=max(r.backlog_seconds for r in replies.values()),
            plan_revision=max(r.plan_revision for r in replies.values()),
            optimal_levels=tuple((k, self.total.optimal.get(k, 0)) for k in ladder)
            if known
            else (),
        )

    @property
    def counters(self) -> Counters:
        """For the SLO over the last minute."""
        t = self.total
        return Counters(self.at_s, t.in_time, t.late, t.shed, t.failed, t.served, t.quality_sum)


def latency_p95(replies: Sequence[Reply]) -> float | None:
    """The worst router's 95th percentile over the last minute, in seconds; None where none served."""
    return max((r.latency_p95_seconds for r in replies), default=0.0) or None


def _restarted(reply: Reply, now: Tally, uptime_s: float, before: Tally) -> bool:
    fell = now.offered < before.offered or now.quality_sum < before.quality_sum - 1e-9
    return fell or reply.uptime_seconds < uptime_s


def _added(mine: Mapping[_Key, int], other: Mapping[_Key, int], sign: int) -> dict[_Key, int]:
    """Sums by key."""
    return {k: mine.get(k, 0) + sign * other.get(k, 0) for k in {**mine, **other}}


def _curve(name: str, replies: Sequence[Reply]) -> tuple[float, ...]:
    """The mean curve of a class, each router counting by the class's arrivals; empty where none has one."""
    told = [
        (c.arrivals, tuple(c.quality))
        for r in replies
        for c in r.classes
        if c.name == name and c.arrivals and c.quality
    ]
    length = max((len(q) for _, q in told), default=0)
    told = [(n, q) for n, q in told if len(q) == length]
    weight = sum(n for n, _ in told)
    if not weight:
        return ()
    return tuple(sum(n * q[i] for n, q in told) / weight for i in range(length))
