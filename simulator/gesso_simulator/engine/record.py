"""What becomes of each request, in arrays that a run fills in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gesso_simulator.reports.result import LATE, LOST, SERVED, SHED, PolicyResult
from gesso_simulator.scenarios.spec import ScenarioRun


class Record:
    """One policy's outcomes as they come; plain lists, since single entries of arrays are slow."""

    def __init__(self, run: ScenarioRun) -> None:
        n = len(run.workload)
        self._run = run
        self.variant = [-1] * n
        self.worker = [-1] * n
        self.start = [float("nan")] * n
        self.finish = [float("nan")] * n
        self.similarity = [float("nan")] * n
        self.outcome = [-1] * n
        self.open = 0
        self.plans: list[tuple[float, str]] = []
        self.sizes: list[tuple[float, int]] = []
        self.plan_changes = 0
        self.switches = 0
        self.paid_s = 0.0

    def done(
        self,
        request: int,
        variant: int,
        worker: int,
        start_s: float,
        finish_s: float,
        in_time: bool,
        similarity: float,
    ) -> None:
        """An image was made, from a cache entry of this similarity unless it is NaN."""
        self.variant[request] = variant
        self.worker[request] = worker
        self.start[request] = start_s
        self.finish[request] = finish_s
        self.similarity[request] = similarity
        self.outcome[request] = SERVED if in_time else LATE
        self.open -= 1

    def shed(self, request: int) -> None:
        """Refused, or dropped unserved."""
        self.outcome[request] = SHED
        self.open -= 1

    def lost(self, request: int) -> None:
        """Its worker was lost, and so was its last attempt."""
        self.outcome[request] = LOST
        self.open -= 1

    def planned(self, at_s: float, mix: str) -> None:
        """A plan took effect."""
        if self.plans and self.plans[-1][1] == mix:
            return
        if self.plans:
            self.plan_changes += 1
        self.plans.append((at_s, mix))

    def result(
        self, policy: str, predicted_k: NDArray[np.int64], extra: dict[str, float]
    ) -> PolicyResult:
        """The arrays, the true quality looked up. `predicted_k` (n,): see PolicyResult."""
        run, work = self._run, self._run.workload
        variant = np.array(self.variant, dtype=np.int64)
        ran = variant >= 0
        levels = np.array([v.skipped_steps for v in run.variants], dtype=np.int64)
        quality = np.full(len(variant), np.nan)
        quality[ran] = work.quality[work.prompt[ran], variant[ran]]
        similarity = np.array(self.similarity)
        if run.quality_at is not None:
            # An image at K > 0 is as good as the entry that the cache really held.
            from_entry = np.flatnonzero(ran & ~np.isnan(similarity))
            curves = run.quality_at(work.prompt[from_entry], similarity[from_entry])
            quality[from_entry] = curves[np.arange(len(from_entry)), variant[from_entry]]
        return PolicyResult(
            policy=policy,
            arrival_s=work.arrival_s,
            prompt=work.prompt,
            predicted_k=predicted_k,
            served_k=np.where(ran, levels[variant], -1),
            variant=variant,
            worker=np.array(self.worker, dtype=np.int64),
            start_s=np.array(self.start),
            finish_s=np.array(self.finish),
            outcome=np.array(self.outcome, dtype=np.int8),
            relative_quality=quality,
            workers=tuple(w.name for w in run.workers),
            plan_changes=self.plan_changes,
            switches=self.switches,
            worker_hours=self.paid_s / 3600.0,
            plans=tuple(self.plans),
            fleet_size=tuple(self.sizes),
            extra=extra,
        )
