"""A fleet at K = 0 whose size Kubernetes' autoscaler sets: `HPAUtilization@0.7`, `HPAQueue@2`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gesso_operator.planning import Decision, Observation, PlannerState, Settings
from gesso_operator.planning.baselines import BaselineState
from gesso_operator.planning.baselines.fixed import fixed
from gesso_operator.planning.explain import Reason, count_text
from gesso_simulator.baselines.hpa import SYNC_S, HpaState, desired

#: What an autoscaler looks at, and the target that it has where none is named: the busy share of the ready
#: workers' time since the last sync, or the requests on a ready worker, served ones included.
TARGETS: Mapping[str, float] = {"HPAUtilization": 0.7, "HPAQueue": 2.0}

#: The mean metric of the ready workers at one sync; None: there is none.
Metric = Callable[[], float | None]


@dataclass(frozen=True)
class _Memory:
    """What is kept between decisions: the fixed plan's state, the autoscaler's, the size, the next sync."""

    base: BaselineState | None = None
    hpa: HpaState = field(default_factory=HpaState)
    size: int | None = None
    due_s: float = -math.inf


def autoscaler_of(policy: str) -> tuple[str, float]:
    """Metric and target of a policy's name, `NAME` or `NAME@TARGET`. Raises ValueError on any other."""
    name, separator, text = policy.partition("@")
    if name not in TARGETS:
        raise ValueError(f"policy: {policy} is not allowed: one of {', '.join(TARGETS)}")
    if not separator:
        return name, TARGETS[name]
    try:
        target = float(text)
    except ValueError:
        target = math.nan
    if not 0 < target < math.inf:
        raise ValueError(f"policy: {policy} is not allowed: {name}@TARGET, a number above 0")
    return name, target


class Autoscaled:
    """A planner, called as `decide` is. All workers are at K = 0; every 15 s the fleet's size may change."""

    def __init__(self, policy: str, metric: Metric) -> None:
        """`metric` is asked once at each sync and no more, so that it may measure from one to the next.

        Raises ValueError on a policy that is not an autoscaler's.
        """
        self.metric_name, self.target = autoscaler_of(policy)
        self._name = policy
        self._metric = metric
        self._plan = fixed()

    def decide(
        self, observation: Observation, state: PlannerState, settings: Settings
    ) -> tuple[Decision, PlannerState]:
        """See `gesso_operator.planning.decide`. Raises ValueError where the fleet has no bounds of its size."""
        least, most = settings.workers_min, settings.workers_max
        if least is None or most is None:
            raise ValueError(f"policy: {self._name} is not allowed: for elastic fleets only")
        memory = state.baseline if isinstance(state.baseline, _Memory) else _Memory()
        decision, base = self._plan(observation, memory.base, settings)
        memory = replace(memory, base=base)
        there = sum(1 for w in observation.workers if w.ready or w.starting)
        current = there if memory.size is None else memory.size
        size = current
        if observation.now_s >= memory.due_s - 1e-9:
            ready = sum(1 for w in observation.workers if w.ready)
            size, hpa = desired(
                current,
                ready,
                self._metric(),
                self.target,
                least,
                most,
                observation.now_s,
                memory.hpa,
            )
            # On a grid of its own, whatever the interval between two decisions is.
            late = observation.now_s - memory.due_s
            due = memory.due_s + SYNC_S if late < SYNC_S else observation.now_s + SYNC_S
            memory = replace(memory, hpa=hpa, due_s=due)
        memory = replace(memory, size=size)
        if size != current:
            reason = Reason.SCALE_OUT if size > current else Reason.SCALE_IN
            message = f"{self._name}: {count_text(size)}, {current} before"
            decision = replace(decision, reason=reason, message=message)
        return replace(decision, fleet_size=size), replace(state, baseline=memory)
