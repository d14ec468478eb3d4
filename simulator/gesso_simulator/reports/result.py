"""What a policy did with a run's requests: one array an attribute, one place a request."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

SERVED, LATE, SHED, LOST = 0, 1, 2, 3
#: Names of the outcome codes, by code.
OUTCOMES = ("served", "late", "shed", "lost")


@dataclass(frozen=True)
class PolicyResult:
    """One policy's run over n requests, all arrays (n,) in order of arrival, times in seconds from its start.

    `prompt` indexes the workload's prompts. `predicted_k` is the largest K that the prompt tolerates by the
    router's prediction (its optimal K), `served_k` the K it ran at; `variant` indexes the run's variants, and
    `worker` the names in `workers`; all three are -1 where it never ran. `start_s` and `finish_s` are NaN
    where it did not run or did not finish. `outcome` is one of SERVED (within the SLO), LATE (an image, too
    late), SHED (refused, or dropped unserved), LOST (with a worker). `relative_quality` is the true one of a
    served request, NaN for others. `plans` lists (time, mix) of every plan that took effect; `fleet_size`
    (time, workers up or starting) changes.
    """

    policy: str
    arrival_s: F64
    prompt: I64
    predicted_k: I64
    served_k: I64
    variant: I64
    worker: I64
    start_s: F64
    finish_s: F64
    outcome: I8
    relative_quality: F64
    workers: tuple[str, ...]
    plan_changes: int
    switches: int
    worker_hours: float
    plans: tuple[tuple[float, str], ...] = ()
    fleet_size: tuple[tuple[float, int], ...] = ()
    extra: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrival_s)
