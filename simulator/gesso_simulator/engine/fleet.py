"""The simulated fleet: workers that start, load models, drain, are lost and come back, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gesso_operator.planning import WorkerView
from gesso_simulator.engine.record import Record
from gesso_simulator.engine.worker import Job, SimulatedWorker
from gesso_simulator.scenarios.spec import ScenarioRun


class SimulatedFleet:
    """Who is there and in what state. `at(time, worker)` is called for each start or load that will be over,
    `gone(worker, time)` for each worker that is not there any more.
    """

    def __init__(
        self,
        run: ScenarioRun,
        record: Record,
        at: Callable[[float, int], None],
        gone: Callable[[str, float], None] = lambda *_: None,
    ) -> None:
        self._run = run
        self._record = record
        self._at = at
        self._on_gone = gone
        self._device = [spec.device for spec in run.workers]
        self.workers = [
            SimulatedWorker(
                i, spec.name, spec.device.profiles[spec.model], spec.model, run.max_batch
            )
            for i, spec in enumerate(run.workers)
        ]
        up = run.elastic.initial if run.elastic else len(self.workers)
        self.present = dict.fromkeys(range(up), True)
        self._leaving: set[int] = set()
        self.routable: list[SimulatedWorker] = []
        self.by_name: dict[str, SimulatedWorker] = {}
        self._refresh()
        record.sizes.append((0.0, up))

    def views(self) -> tuple[WorkerView, ...]:
        """Every worker that is there or on its way, as the planner sees it."""
        return tuple(
            WorkerView(
                name=w.name,
                ready=w.ready and not w.draining,
                skipped_steps=w.assigned,
                assigned_revision=w.assigned_revision,
                profile=w.profile if w.ready else None,
                model=w.target,
                starting=not w.ready or (w.draining and i not in self._leaving),
            )
            for i, w in enumerate(self.workers)
            if i in self.present and i not in self._leaving
        )

    def assign(self, levels: Mapping[str, int], revision: int) -> None:
        """Gives workers their levels."""
        for worker in self.workers:
            level = levels.get(worker.name)
            if level is not None and (level != worker.assigned or not worker.assigned_revision):
                worker.assign(level, revision)

    def load(self, models: Mapping[str, str], now_s: float) -> None:
        """Workers are to hold these models: each that holds another finishes its work, then loads."""
        for i, worker in enumerate(self.workers):
            model = models.get(worker.name)
            if model is None or i not in self.present or model == worker.target:
                continue
            if not worker.ready or worker.draining:
                continue  # on its way already; the next plan sees where it ended
            worker.target = model
            worker.draining = True
            self.emptied(worker, now_s)
        self._refresh()

    def resize(self, size: int, now_s: float) -> None:
        """So many workers are to be there: starts some, or drains some and lets them go."""
        elastic = self._run.elastic
        if elastic is None:
            return
        size = min(elastic.most, max(elastic.least, size))
        staying = [i for i in self.present if i not in self._leaving]
        if len(staying) != size:
            self._record.sizes.append((now_s, size))
        while len(staying) < size and self._leaving:  # whoever is about to go may as well stay
            i = min(self._leaving)
            self._leaving.discard(i)
            self.workers[i].draining = False
            staying.append(i)
        for i in range(len(self.workers)):
            if len(staying) >= size:
                break
            if i not in self.present:
                self.present[i] = True
                worker = self.workers[i]
                worker.ready, worker.paid_since = False, now_s
                worker.assigned_revision = 0
                worker.ready_at = now_s + elastic.start_seconds
                self._at(worker.ready_at, i)
                staying.append(i)
        # Those that are not up yet go first, then the last to come.
        staying.sort(key=lambda i: (self.workers[i].ready, -i))
        while len(staying) > size:
            i = staying.pop(0)
            worker = self.workers[i]
            if worker.ready:
                self._leaving.add(i)
                worker.draining = True
                self.emptied(worker, now_s)
            else:
                self._gone(i, now_s)
        self._refresh()

    def arrived(self, i: int, now_s: float) -> None:
        """A start or load is over, unless it was called off meanwhile."""
        worker = self.workers[i]
        if i not in self.present or worker.ready or worker.ready_at > now_s:
            return
        worker.ready = True
        worker.draining = False
        worker.holds(self._device[i].profiles[worker.target], worker.target)
        self._refresh()

    def emptied(self, worker: SimulatedWorker, now_s: float) -> None:
        """A draining worker may have nothing left: then it goes, or loads its next model."""
        if not worker.draining or not worker.ready or worker.in_flight:
            return
        if worker.index in self._leaving:
            self._leaving.discard(worker.index)
            self._gone(worker.index, now_s)
        else:
            self._record.switches += 1
            worker.ready = False
            worker.ready_at = now_s + self._device[worker.index].load_seconds[worker.target]
            self._at(worker.ready_at, worker.index)

    def lose(self, name: str, now_s: float) -> list[Job]:
        """A worker is gone at once; gives what it was serving."""
        for i, worker in enumerate(self.workers):
            if worker.name == name and i in self.present:
                jobs = worker.clear()
                self._leaving.discard(i)
                self._gone(i, now_s)
                return jobs
        return []

    def back(self, name: str, now_s: float) -> None:
        """A lost worker is there again, ready."""
        for i, worker in enumerate(self.workers):
            if worker.name == name and i not in self.present:
                self.present[i] = True
                worker.ready, worker.draining, worker.paid_since = True, False, now_s
                worker.assigned_revision = 0
                worker.changed()
        self._refresh()

    def end(self, now_s: float) -> None:
        """The run is over: whoever is there is paid up to now."""
        for i in self.present:
            self._record.paid_s += now_s - self.workers[i].paid_since

    def _gone(self, i: int, now_s: float) -> None:
        worker = self.workers[i]
        self._record.paid_s += now_s - worker.paid_since
        self.present.pop(i, None)
        worker.ready = worker.draining = False
        worker.ready_at = float("inf")
        self._on_gone(worker.name, now_s)
        self._refresh()

    def _refresh(self) -> None:
        self.routable = [
            w
            for i, w in enumerate(self.workers)
            if i in self.present and w.ready and not w.draining
        ]
        self.by_name = {w.name: w for w in self.routable}
