"""What changes of model cost, learned from those that were made, and which to leave alone for now; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gesso.profile import Profile
from gesso_operator.planning import ModelVariant, RouterReport, WorkerView

#: Seconds that a change is reckoned to take until one has been measured.
ASSUMED_SECONDS = 30.0
#: Least that a change is reckoned to cost, and what one is reckoned to a model that is in memory still, until
#: measured.
LEAST_SECONDS = 0.1
#: What a new measurement counts against all before it.
WEIGHT = 0.3
#: Seconds until a model that could not be loaded is tried again on the same worker, doubled up to the most.
RETRY_SECONDS, MOST_RETRY_SECONDS = 60.0, 3600.0

#: (device class, model before, model after); the service's own model is the empty name.
Pair = tuple[str, str, str]


@dataclass(frozen=True)
class Switch:
    """A change of model as its worker measured it: seconds in which it took no requests."""

    before: str
    after: str
    drain_s: float
    load_s: float
    warmup_s: float
    #: The model was in the worker's memory still.
    kept: bool = False

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.drain_s + self.load_s + self.warmup_s


@dataclass(frozen=True)
class SwitchTimes:
    """Exponentially weighted mean seconds by pair of models and device class; `seen` is each worker's last.

    `kept_s` are those of changes to a model that was in the worker's memory still.
    """

    mean_s: Mapping[Pair, float] = field(default_factory=dict)
    kept_s: Mapping[Pair, float] = field(default_factory=dict)
    seen: Mapping[str, Switch] = field(default_factory=dict)

    def add(self, worker: str, device: str, last: Switch | None) -> SwitchTimes:
        """After a worker has told its last change; told again, it counts once."""
        if last is None or self.seen.get(worker) == last or not 0 <= last.seconds < float("inf"):
            return self
        pair = (device, last.before, last.after)
        known = self.kept_s if last.kept else self.mean_s
        before = known.get(pair, last.seconds)
        after = {**known, pair: before + WEIGHT * (last.seconds - before)}
        seen = {**self.seen, worker: last}
        if last.kept:
            return SwitchTimes(self.mean_s, after, seen)
        return SwitchTimes(after, self.kept_s, seen)

    def keep_only(self, workers: Iterable[str]) -> SwitchTimes:
        """Forgets what workers that are gone have told last; what it taught stays."""
        wanted = set(workers)
        if wanted.issuperset(self.seen):
            return self
        return replace(self, seen={w: s for w, s in self.seen.items() if w in wanted})

    def for_settings(
        self, models: Iterable[str], in_memory: Iterable[tuple[str, Collection[str]]] = ()
    ) -> tuple[tuple[str, str, float], ...]:
        """As `Settings.switch_s`, for a service with these other models: by device class and model to load.

        Of several models that it was loaded in place of, the dearest counts. `in_memory` are the device class
        of each worker and the models in its memory: where all workers of a class have one, a change to it
        costs what those to models in memory have cost. Empty without other models.
        """
        others = sorted(models)
        if not others:
            return ()
        known = {"", *others}
        found: dict[tuple[str, str], float] = {("", m): ASSUMED_SECONDS for m in known}
        found.update(_dearest(self.mean_s, known))
        everywhere: dict[str, set[str]] = {}
        for device, held in in_memory:
            everywhere[device] = everywhere.get(device, known) & set(held)
        kept = _dearest(self.kept_s, known)
        for device, held in everywhere.items():
            found |= {(device, m): kept.get((device, m), LEAST_SECONDS) for m in held}
        for model in known:
            if everywhere and all((device, model) in found for device in everywhere):
                # Nobody's seconds any more, and how far ahead plans look would go by them.
                del found["", model]
        return tuple((device, model, s) for (device, model), s in sorted(found.items()))


def _dearest(seconds: Mapping[Pair, float], known: Collection[str]) -> dict[tuple[str, str], float]:
    """Seconds by (device class, model after): the most over the models before."""
    found: dict[tuple[str, str], float] = {}
    for (device, before, after), s in seconds.items():
        if before in known and after in known:
            # To a tenth: what differs by less changes no plan.
            rounded = max(LEAST_SECONDS, round(s, 1))
            found[device, after] = max(found.get((device, after), 0.0), rounded)
    return found


@dataclass(frozen=True)
class Failures:
    """Models that workers could not load, by (worker, model): how often in a row, and when last."""

    counts: Mapping[tuple[str, str], tuple[int, float]] = field(default_factory=dict)

    def failed(self, worker: str, model: str, now_s: float) -> Failures:
        """A change to a model was asked for, and has come to nothing."""
        times, _ = self.counts.get((worker, model), (0, 0.0))
        return Failures({**self.counts, (worker, model): (times + 1, now_s)})

    def holds(self, worker: str, model: str) -> Failures:
        """A worker holds a model: it can be loaded."""
        if (worker, model) not in self.counts:
            return self
        return Failures({k: v for k, v in self.counts.items() if k != (worker, model)})

    def keep_only(self, workers: Iterable[str]) -> Failures:
        """Forgets workers that are gone."""
        wanted = set(workers)
        if all(worker in wanted for worker, _ in self.counts):
            return self
        return Failures({k: v for k, v in self.counts.items() if k[0] in wanted})

    def may_try(self, worker: str, model: str, now_s: float) -> bool:
        """Whether it is time to ask a worker for a model (again)."""
        times, last_s = self.counts.get((worker, model), (0, 0.0))
        if not times:
            return True
        wait_s = min(MOST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(times - 1, 16))
        return now_s - last_s >= wait_s

    def out_of_reach(self, held: Iterable[str], now_s: float) -> frozenset[str]:
        """Models that some worker could not load lately and none of them holds: no plan should count on one."""
        waiting = {m for w, m in self.counts if not self.may_try(w, m, now_s)}
        return frozenset(waiting - {"", *held})


def may_begin(serving: int, changing: int) -> int:
    """How many more workers may begin to change their model, of so many that serve and that change already.

    Half of them go on serving, where there is more than one.
    """
    return max(0, max(1, (serving + changing) // 2) - changing)


@dataclass(frozen=True)
class Measured:
    """The last profile of each (device class, model) that a worker has told."""

    profiles: Mapping[tuple[str, str], Profile] = field(default_factory=dict)

    def add(self, views: Iterable[WorkerView]) -> Measured:
        """After a look at the workers; the same object where it brought nothing new."""
        told = {(v.profile.device, v.model): v.profile for v in views if v.ready and v.profile}
        if all(self.profiles.get(key) == profile for key, profile in told.items()):
            return self
        return Measured({**self.profiles, **told})

    def assumed(self, models: Iterable[ModelVariant]) -> dict[tuple[str, str], Profile]:
        """As `Settings.profiles`: models that no worker of a class has held yet, so that one may be tried.

        A step is taken to last as long as one of the service's own model.
        """
        own = {device: p for (device, model), p in self.profiles.items() if not model}
        return {
            (device, model.name): replace(profile, steps=model.steps)
            for device, profile in own.items()
            for model in models
            if (device, model.name) not in self.profiles
        }


def reachable(
    report: RouterReport | None, levels: int, models: Sequence[str], out: frozenset[str]
) -> RouterReport | None:
    """A report whose quality curves end without the models that are out of reach.

    Curves run along `levels` levels, then `models`; those that do not are left as they are.
    """
    if report is None or not out:
        return report
    kept = [*range(levels), *(levels + i for i, m in enumerate(models) if m not in out)]
    classes = tuple(
        replace(c, quality=tuple(c.quality[i] for i in kept))
        if len(c.quality) == levels + len(models)
        else c
        for c in report.classes
    )
    return replace(report, classes=classes)
