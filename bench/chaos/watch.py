"""What the system says of itself while it is disturbed: conditions as they change, counters, memory."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from gesso.api.local_state import StateDir
from gesso_simulator.demo.fleet import Fleet

EVERY_S = 0.5
#: Counters of the routers that tell of trouble; by what they are called in the report.
COUNTERS = {
    "gesso_router_retries_total": "retries",
    "gesso_router_unanswered_lookups_total": "unanswered_lookups",
    "gesso_router_worker_cache_faults_total": "cache_faults",
}
CONDITIONS = ("Ready", "WorkersReady", "RouterReady", "MetricsAvailable", "PlanReady", "SLOMet")
#: A status older than this is one whose supervisor does not answer.
STALE_S = 8.0


@dataclass
class Watch:
    """Samples every half second; times are seconds since `start` (monotonic)."""

    fleet: Fleet
    start: float
    #: (time, condition, "reason: message"), whenever a reason changes.
    changes: list[tuple[float, str, str]] = field(default_factory=list)
    #: Resident MiB by process and time.
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    #: Counters by name and time, summed over routers and their restarts.
    counters: dict[str, list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _reasons: dict[str, str] = field(default_factory=dict)
    _last: dict[tuple[str, str], float] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=2.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                began = time.monotonic()
                self._conditions()
                self._memory()
                await self._scrape(session)
                await asyncio.sleep(max(0.05, EVERY_S - (time.monotonic() - began)))

    def said(self, begin_s: float, end_s: float) -> list[str]:
        """What changed in a stretch, a line each."""
        return [
            f"+{at - begin_s:.0f} s {name}: {text}"
            for at, name, text in self.changes
            if begin_s <= at < end_s
        ]

    def counted(self, begin_s: float, end_s: float) -> dict[str, float]:
        """What the counters grew by in a stretch."""
        grown = {}
        for name, samples in self.counters.items():
            before = [v for at, v in samples if at < begin_s]
            upto = [v for at, v in samples if at < end_s]
            grown[name] = (upto[-1] if upto else 0.0) - (before[-1] if before else 0.0)
        return grown

    def _add(self, source: str, told: str, value: float) -> None:
        """What a counter grew by since it was last read; one that fell has started anew."""
        before = self._last.get((source, told), value)
        self._last[source, told] = value
        self._sums[told] += value - before if value >= before else value

    def _now(self) -> float:
        return time.monotonic() - self.start

    def _conditions(self) -> None:
        status = StateDir(self.fleet.state_dir).read_status()
        if status is None:
            return
        age = time.time() - status.observed_at.timestamp() if status.observed_at else 0.0
        self._note("status", f"STALE: {STALE_S:g} s old" if age > STALE_S else "fresh", "")
        for name in CONDITIONS:
            condition = status.condition(name)  # type: ignore[arg-type]
            if condition is not None:
                text = condition.message if name != "PlanReady" else ""
                self._note(name, f"{condition.status} {condition.reason}", text)

    def _note(self, name: str, reason: str, message: str) -> None:
        if self._reasons.get(name, reason) != reason and name != "PlanReady":
            self.changes.append((self._now(), name, f"{reason}{': ' + message if message else ''}"))
        self._reasons[name] = reason

    def _memory(self) -> None:
        pids = {name: pid for name, (pid, _) in self.fleet.workers().items()}
        pids |= {name: pid for name, (pid, *_) in self.fleet.routers().items()}
        for name, pid in pids.items():
            try:
                resident = psutil.Process(pid).memory_info().rss if pid else 0
            except psutil.Error:
                continue
            if resident:
                self.memory[name].append((self._now(), resident / 2**20))

    async def _scrape(self, session: aiohttp.ClientSession) -> None:
        async def one(name: str, http: str) -> None:
            try:
                async with session.get(f"http://{http}/metrics") as answer:
                    text = await answer.text()
            except (aiohttp.ClientError, TimeoutError, OSError):
                return
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name in COUNTERS:
                        # What routers tell of workers, each of them tells.
                        labels = sample.labels
                        source = " ".join(labels.values()) if "worker" in labels else name
                        self._add(source, COUNTERS[sample.name], sample.value)

        routers: dict[str, Any] = self.fleet.routers()
        await asyncio.gather(*(one(n, http) for n, (pid, _, http) in routers.items() if pid))
        for told, value in self._sums.items():
            self.counters[told].append((self._now(), value))
