"""All services' loops: begins one when a service comes, ends it when it goes, and knows if all are alive."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

from gesso_operator.cluster.names import Key
from gesso_operator.cluster.runner import Runner, Tools
from gesso_operator.loop import ControlLoop

#: Figures of a service, by what their metrics are called after `gesso_operator_`.
GAUGES = (
    *("solve_seconds", "price", "rate", "objective", "objective_held", "planned_switches"),
    *(
        "plan_made_seconds",
        "data_fresh",
        "workers_wanted",
        "workers_ready",
        "attainment",
        "quality",
    ),
)

#: A loop may take so many of its intervals, and seconds, for a round before it counts as frozen.
_PATIENCE, _PATIENCE_S = 3.0, 60.0


class Manager:
    """Runners by service. One event loop."""

    def __init__(self, tools: Tools, clock: Callable[[], float] = time.monotonic) -> None:
        """Listens to the world from now on."""
        self._tools, self._clock = tools, clock
        self._runners: dict[Key, tuple[Runner, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.decisions: Counter[tuple[Key, str, bool]] = Counter()
        tools.world.on_change(self._changed)

    @property
    def leads(self) -> bool:
        """Whether this operator may act."""
        return self._tools.leads()

    @property
    def status_writes(self) -> int:
        """Statuses written so far."""
        return self._tools.writer.writes

    def wake(self) -> None:
        """Has every service looked at now: this operator has begun to lead, say."""
        for runner, _ in self._runners.values():
            runner.wake()

    def frozen(self) -> list[str]:
        """Services whose loop has not gone round for too long, or has ended though it should not."""
        now, found = self._clock(), []
        for key, (runner, task) in self._runners.items():
            patience = _PATIENCE * runner.interval_s + _PATIENCE_S
            if task.done() or now - runner.beat_s > patience:
                found.append(str(key))
        return found

    def rounds(self) -> Mapping[Key, tuple[int, float]]:
        """Rounds of each service's loop so far, and the seconds that they took."""
        return {k: (r.rounds, r.round_seconds) for k, (r, _) in self._runners.items()}

    def gauges(self) -> Mapping[Key, Mapping[str, float | None]]:
        """The figures of each service as they are now."""
        return {
            key: _gauges(runner.control)
            for key, (runner, _) in self._runners.items()
            if runner.control is not None
        }

    async def stop(self) -> None:
        """Ends all loops, and waits for them."""
        for key in list(self._runners):
            self._end(key)
        if self._ending:
            await asyncio.wait(self._ending, timeout=10.0)

    def _changed(self, key: Key, owned: bool) -> None:
        exists = key in self._tools.world.services
        if exists and key not in self._runners:
            runner = Runner(key, self._tools, on_decision=self._count)
            task = asyncio.create_task(runner.run(), name=f"service {key}")
            self._runners[key] = (runner, task)
        elif not exists:
            self._end(key)
        else:
            self._runners[key][0].wake(look=not owned)

    def _end(self, key: Key) -> None:
        found = self._runners.pop(key, None)
        if found is None:
            return
        runner, task = found
        runner.stop()
        self._tools.writer.forget(key)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        for counted in [c for c in self.decisions if c[0] == key]:
            del self.decisions[counted]

    def _count(self, key: Key, reason: str, changed: bool) -> None:
        self.decisions[key, reason, changed] += 1


def _gauges(control: ControlLoop) -> dict[str, float | None]:
    status = control.status
    found: dict[str, float | None] = {
        "workers_wanted": status.workers.desired,
        "workers_ready": status.workers.ready,
        "attainment": status.slo.attainment,
        "quality": status.quality,
    }
    if status.plan is not None:
        found["price"] = status.plan.price
        found["solve_seconds"] = status.plan.solve_millis / 1000
    decision = control.decision
    if decision is not None:
        diagnostics = decision.diagnostics
        found["rate"] = diagnostics.rate_mean
        found["objective"] = diagnostics.objective
        found["objective_held"] = diagnostics.objective_held
        found["planned_switches"] = decision.switches
        found["data_fresh"] = 0.0 if decision.data_missing else 1.0
        if decision.plan is not None:
            found["plan_made_seconds"] = decision.plan.made_at_s
    return found
