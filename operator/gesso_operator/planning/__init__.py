"""The planner's decisions, pure: no clock, network, asyncio, Kubernetes or metrics.

`decide(observation, state, settings)` is the only entry the loop and the simulator need.
"""

from gesso_operator.planning.case import PlannerState, with_history
from gesso_operator.planning.decide import decide
from gesso_operator.planning.explain import Decision, Diagnostics, Reason
from gesso_operator.planning.observation import ClassCount, Observation, RouterReport, WorkerView
from gesso_operator.planning.settings import ModelVariant, Settings

__all__ = [
    "ClassCount",
    "Decision",
    "Diagnostics",
    "ModelVariant",
    "Observation",
    "PlannerState",
    "Reason",
    "RouterReport",
    "Settings",
    "WorkerView",
    "decide",
    "with_history",
]
