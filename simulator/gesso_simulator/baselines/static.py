"""Static mixes: so many workers hold the own model, so many the second, and nobody ever loads another.

`Static:6+2` is six and two. Levels are planned and prompts are routed as `QualityAware` does, by the same
price: what is left out is the choice of models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from gesso_simulator.engine.run import simulate
from gesso_simulator.reports.result import PolicyResult
from gesso_simulator.scenarios.spec import ScenarioRun

_NAME = re.compile(r"Static:(\d{1,4})\+(\d{1,4})")
_PLANNED_BY = "QualityAware"


def is_static(policy: str) -> bool:
    """Whether a policy's name is that of a static mix, possible here or not."""
    return policy.startswith("Static:")


def static_mixes(workers: int) -> tuple[str, ...]:
    """Every static mix of a fleet, from the own model alone to the second alone."""
    return tuple(f"Static:{workers - second}+{second}" for second in range(workers + 1))


def with_mix(run: ScenarioRun, policy: str) -> ScenarioRun:
    """The run with the workers of a static mix, the last ones holding the second model.

    Raises ValueError where the name is no mix of this fleet, or the fleet has one model, or no fixed size.
    """
    match = _NAME.fullmatch(policy)
    size = len(run.workers)
    if match is None or int(match[1]) + int(match[2]) != size:
        raise ValueError(
            f"policy: {policy} is not allowed: like Static:{size - 1}+1, the sum being the {size} workers"
        )
    if len(run.models) < 2 or run.elastic is not None:
        raise ValueError(
            f"policy: {policy} is not allowed: a fleet of fixed size with a second model is needed"
        )
    own = int(match[1])
    held = [replace(w, model=run.models[1]) if i >= own else w for i, w in enumerate(run.workers)]
    return replace(run, workers=tuple(held))


def play(
    run: ScenarioRun,
    policy: str,
    *,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> PolicyResult:
    """A policy's run by its name, static mixes among them; otherwise as `simulate`. Raises ValueError."""
    if not is_static(policy):
        return simulate(run, policy, seed=seed, progress=progress)
    held = with_mix(run, policy)
    result = simulate(held, _PLANNED_BY, seed=seed, progress=progress, keep_models=True)
    return replace(result, policy=policy)
