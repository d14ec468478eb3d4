"""One call's inputs after the first look at them, and what the planner remembers between two calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gesso.plan import Plan
from gesso.profile import Profile
from gesso_operator.planning.forecast import Forecast, ForecastState, update, with_daily
from gesso_operator.planning.gate import HysteresisState
from gesso_operator.planning.instance import (
    Kinds,
    Member,
    devices_of,
    kinds_of,
    learned_profiles,
)
from gesso_operator.planning.observation import Observation, WorkerView
from gesso_operator.planning.settings import Settings
from gesso_operator.planning.sizing import SizingState


@dataclass(frozen=True)
class PlannerState:
    """What the planner remembers between two decisions; start from `PlannerState()`.

    `plan` is the last plan made, `base` the plan in force where plans are not acted on, `levels` and `models`
    the level and the model last given to each worker by name (also of workers that are away), `rate` the
    mean rate when the mix last changed, `asked` what the user asked for then (see `Settings.asked`), `baseline`
    what another policy remembers.
    """

    plan: Plan | None = None
    base: Plan | None = None
    levels: tuple[tuple[str, int], ...] = ()
    models: tuple[tuple[str, str], ...] = ()
    forecast: ForecastState = field(default_factory=ForecastState)
    hysteresis: HysteresisState = field(default_factory=HysteresisState)
    model_hysteresis: HysteresisState = field(default_factory=HysteresisState)
    sizing: SizingState = field(default_factory=SizingState)
    profiles: tuple[tuple[tuple[str, str], Profile], ...] = ()
    rate: float = 0.0
    rate_count: float = 0.0
    asked: tuple[tuple[str, object], ...] = ()
    baseline: Any | None = None


def with_history(
    state: PlannerState,
    counts: Sequence[float],
    step_s: float,
    start_s: float,
    slot_s: float = Settings.slot_s,
) -> PlannerState:
    """The state after the daily shape was learned from a history of arrivals.

    `counts[i]` arrived in the `step_s` seconds from `start_s + i step_s` on (unix seconds, or the clock of the
    observations); NaN where nobody looked. `slot_s` is the settings'. What is not a count is left out.
    """
    return replace(state, forecast=with_daily(state.forecast, counts, step_s, start_s, slot_s))


@dataclass(frozen=True)
class Case:
    """One call's inputs.

    `members` are the workers that are planned for: those that serve, and those on their way to another model.
    `expected` counts them and those that start.
    """

    now_s: float
    settings: Settings
    state: PlannerState
    forecast: Forecast
    members: tuple[Member, ...]
    expected: int
    views: tuple[WorkerView, ...]
    revision: int

    @cached_property
    def kinds(self) -> Kinds:
        """How many members there are of each kind."""
        return kinds_of(self.members)

    @cached_property
    def ready(self) -> int:
        """Workers that serve."""
        return sum(n for (_, _, _, ready), n in self.kinds.items() if ready)

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """Their device classes, the most common first."""
        return devices_of(self.kinds)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Workers at each variant, over all device classes."""
        at: Counter[tuple[str, int | None]] = Counter()
        for (_, model, level, _), n in self.kinds.items():
            at[model, level] += n
        return tuple(at[v] for v in self.settings.variants)

    @property
    def settled(self) -> bool:
        """Whether enough reports in a row tell of one rate: a mix made on fewer is looked at again."""
        # The first report counts, too, though it tells no rate.
        return len(self.state.forecast.recent) + 1 >= self.settings.memory_plans

    @cached_property
    def spec_changes(self) -> tuple[str, ...]:
        """What the user asks for otherwise than when the plan was made, as `path old to new`."""
        before = dict(self.state.asked)
        return tuple(
            f"{path} {_text(before[path])} to {_text(value)}"
            for path, value in self.settings.asked
            if path in before and before[path] != value
        )

    @property
    def made_for_other(self) -> bool:
        """Whether the plan was made for another fleet, or for another spec."""
        return self.fleet_changed or bool(self.spec_changes)

    @property
    def fleet_changed(self) -> bool:
        """Whether there are other workers than the plan knows, or some without a level."""
        plan = self.state.plan
        planned = sum(level.workers for level in plan.levels) if plan else -1
        return planned != len(self.members) or sum(self.counts) != len(self.members)


def case_of(observation: Observation, state: PlannerState, settings: Settings) -> Case:
    """The first look: forecast, profiles, and who is there with what."""
    memory, forecast = update(state.forecast, observation.report, observation.now_s, settings)
    profiles = learned_profiles(dict(state.profiles), observation.workers, settings)
    state = replace(state, forecast=memory, profiles=tuple(sorted(profiles.items(), key=_key)))
    known = {m.name for m in settings.models}
    levels, models = dict(state.levels), dict(state.models)
    classes = [w.profile.device for w in observation.workers if w.profile]
    usual = max(sorted(set(classes)), key=classes.count) if classes else _any_device(profiles)
    members = []
    for worker in observation.workers:
        # A worker that served before and is on its way again is loading a model: it will be back soon.
        loading = not worker.ready and worker.starting and worker.name in levels
        if not (worker.ready or loading):
            continue
        model = models.get(worker.name, worker.model)
        model = model if model in known else ""
        level: int | None = 0
        if not model:
            seen = worker.skipped_steps if worker.assigned_revision > 0 else None
            level = levels.get(worker.name, seen)
            level = level if level in settings.ladder else None
        device = worker.profile.device if worker.profile else usual
        members.append(Member(worker.name, device, model, level, worker.ready))
    return Case(
        now_s=observation.now_s,
        settings=settings,
        state=state,
        forecast=forecast,
        members=tuple(members),
        expected=sum(1 for w in observation.workers if w.ready or w.starting),
        views=observation.workers,
        revision=_revision(observation, state),
    )


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key(item: tuple[tuple[str, str], Profile]) -> tuple[str, str]:
    return item[0]


def _any_device(profiles: dict[tuple[str, str], Profile]) -> str:
    return min((device for device, model in profiles if not model), default="")


def _revision(observation: Observation, state: PlannerState) -> int:
    """A revision above every one that anyone has seen, so that a restarted operator is not refused."""
    seen = [w.assigned_revision for w in observation.workers]
    seen += [p.revision for p in (state.plan, state.base) if p]
    if observation.report:
        seen.append(observation.report.plan_revision)
    return max(seen, default=0) + 1
