"""The planner's decisions, pure: no clock, network, asyncio, Kubernetes or metrics.

`decide(observation, state, settings)` is the only entry the loop and the simulator need.
"""

from gesso_operator.planning.decide import PlannerState, decide
from gesso_operator.planning.explain import Decision, Diagnostics, Reason
from gesso_operator.planning.observation import ClassCount, Observation, RouterReport, WorkerView
from gesso_operator.planning.settings import Settings

__all__ = [
    "ClassCount",
    "Decision",
    "Diagnostics",
    "Observation",
    "PlannerState",
    "Reason",
    "RouterReport",
    "Settings",
    "WorkerView",
    "decide",
]
