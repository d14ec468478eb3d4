"""A fleet that follows the planner to the letter, for tests of whole decisions."""

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
# Section 2's SD-XL on an A100: 4.2 s at K = 0.
A100 = Profile("A100", 50, 0.0, 0.0, (4.2 / 50,))
SETTINGS = Settings(ladder=LADDER, latency_s=20, interval_s=10, min_quality=0.0)


@dataclass
class FakeFleet:
    """Counts Poisson arrivals and takes every assignment."""

    workers: int
    settings: Settings = SETTINGS
    profile: Profile = A100
    seed: int = 0
    classes: bool = True
    state: PlannerState = field(default_factory=PlannerState)
    now: float = 1000.0

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.counts = dict.fromkeys(CURVES, 0)
        self.levels = {f"w{i}": (0, 0) for i in range(self.workers)}

    @property
    def full_rate(self):
        """Images per second of the whole fleet at K = 0."""
        return self.workers / self.profile.work_seconds(0)

    def observe(self, rate, report=True):
        self.now += self.settings.interval_s
        for name, weight in WEIGHTS.items():
            self.counts[name] += int(self.rng.poisson(rate * weight * self.settings.interval_s))
        classes = (
            tuple(ClassCount(n, self.counts[n], CURVES[n]) for n in CURVES) if self.classes else ()
        )
        seen = RouterReport(self.now, self.now, sum(self.counts.values()), classes)
        views = tuple(
            WorkerView(name, True, k, revision, self.profile)
            for name, (k, revision) in self.levels.items()
        )
        return Observation(self.now, seen if report else None, views)

    def step(self, rate, report=True) -> Decision:
        decision, self.state = decide(self.observe(rate, report), self.state, self.settings)
        for name, level in decision.assignment.items():
            self.levels[name] = (level, decision.plan.revision)
        return decision

    def run(self, rate, plans):
        return [self.step(rate) for _ in range(plans)]
