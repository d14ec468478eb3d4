"""Planners of the published policies and of plain setups, by the name of their policy; pure.

A policy that is not here is planned for by Gesso's own planner.
"""

from __future__ import annotations

from collections.abc import Mapping

from gesso_operator.planning.baselines.argus import plan_argus
from gesso_operator.planning.baselines.fixed import Planner, fixed
from gesso_operator.planning.baselines.proteus import plan_proteus
from gesso_operator.planning.baselines.state import BaselineState

__all__ = ["BASELINES", "BaselineState", "Planner"]

BASELINES: Mapping[str, Planner] = {
    "Argus": plan_argus,
    "Proteus": plan_proteus,
    "Nirvana": fixed(),
    "ClipperHA": fixed(),
    "ClipperHT": fixed(fastest=True),
    "RoundRobin": fixed(),
    "LeastOutstanding": fixed(),
    "BacklogPrice": fixed(keep_models=True),
}
