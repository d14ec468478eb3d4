"""Fleets that follow the planner to the letter, for tests of whole decisions."""

from dataclasses import dataclass, field

import numpy as np

from gesso.profile import Profile
from gesso_operator.planning import (
    ClassCount,
    Decision,
    Observation,
    PlannerState,
    RouterReport,
    Settings,
    WorkerView,
    decide,
)

LADDER = (0, 10, 20, 25)
CURVES = {"easy": (1.0, 0.98, 0.95, 0.9), "hard": (1.0, 0.9, 0.8, 0.7)}
WEIGHTS = {"easy": 0.7, "hard": 0.3}
# SD-XL on an A100: 4.2 s at K = 0.
A100 = Profile("A100", 50, 0.0, 0.0, (4.2 / 50,))
SETTINGS = Settings(ladder=LADDER, latency_s=20, interval_s=10, min_quality=0.0)


@dataclass
class FakeFleet:
    """Counts Poisson arrivals and takes every assignment, every switch of models and every size.

    `curves` are by class, along the settings' variants; `model_profiles` those of other models, by name.
    """

    workers: int
    settings: Settings = SETTINGS
    profile: Profile = A100
    seed: int = 0
    classes: bool = True
    curves: dict = field(default_factory=lambda: dict(CURVES))
    model_profiles: dict = field(default_factory=dict)
    state: PlannerState = field(default_factory=PlannerState)
    now: float = 1000.0

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.counts = dict.fromkeys(self.curves, 0)
        self.levels = {f"w{i}": (0, 0) for i in range(self.workers)}
        self.models = dict.fromkeys(self.levels, "")
        self.busy_until = dict.fromkeys(self.levels, 0.0)
        self.born = self.workers
        self.switched = 0

    @property
    def full_rate(self):
        """Images per second of the whole first fleet at K = 0."""
        return self.workers / self.profile.work_seconds(0)

    def profile_of(self, name):
        model = self.models.get(name, "")
        return self.model_profiles[model] if model else self.profile

    def observe(self, rate, report=True):
        self.now += self.settings.interval_s
        for name in self.curves:
            weight = WEIGHTS[name]
            self.counts[name] += int(self.rng.poisson(rate * weight * self.settings.interval_s))
        classes = (
            tuple(ClassCount(n, self.counts[n], self.curves[n]) for n in self.curves)
            if self.classes
            else ()
        )
        seen = RouterReport(self.now, self.now, sum(self.counts.values()), classes)
        views = tuple(
            WorkerView(
                name,
                self.busy_until.get(name, 0.0) <= self.now,
                k,
                revision,
                self.profile_of(name),
                self.models.get(name, ""),
                starting=self.busy_until.get(name, 0.0) > self.now,
            )
            for name, (k, revision) in self.levels.items()
        )
        return Observation(self.now, seen if report else None, views)

    def step(self, rate, report=True) -> Decision:
        decision, self.state = decide(self.observe(rate, report), self.state, self.settings)
        for name, level in decision.assignment.items():
            self.levels[name] = (level, decision.plan.revision)
        for name, model in decision.models.items():
            if self.models[name] != model:
                self.models[name] = model
                self.busy_until[name] = self.now + self.settings.load_s("A100", model)
                self.switched += 1
        if decision.fleet_size is not None:
            self.resize(decision.fleet_size)
        return decision

    def resize(self, size):
        while len(self.levels) < size:
            name, self.born = f"w{self.born}", self.born + 1
            self.levels[name], self.models[name] = (0, 0), ""
            self.busy_until[name] = self.now + self.settings.start_s
        for name in sorted(self.levels, key=lambda n: (self.busy_until.get(n, 0.0), n))[::-1]:
            if len(self.levels) <= size:
                break
            del self.levels[name]

    def run(self, rate, plans):
        return [self.step(rate) for _ in range(plans)]
