"""When a dead process is started again: backoff and budget; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RestartPolicy:
    """`first_s` doubles with each failure in a row up to `most_s`; after `budget` failures it is given up.

    A process that was healthy for `settled_s` starts afresh.
    """

    first_s: float = 0.5
    most_s: float = 15.0
    budget: int = 10
    settled_s: float = 30.0


@dataclass(frozen=True)
class RestartState:
    """`failures` in a row, `total` restarts ever."""

    failures: int = 0
    total: int = 0


def after_exit(
    state: RestartState, healthy_for_s: float, policy: RestartPolicy
) -> tuple[RestartState, float | None]:
    """The state after an exit, and the seconds to wait before the next start; None: give it up."""
    failures = 1 if healthy_for_s >= policy.settled_s else state.failures + 1
    if failures > policy.budget:
        return replace(state, failures=failures), None
    delay = min(policy.most_s, policy.first_s * 2.0 ** (failures - 1))
    return RestartState(failures, state.total + 1), delay
