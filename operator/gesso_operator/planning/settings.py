"""What the planner is told: the ladder, the SLO, and the constants of its decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from gesso.api import DiffusionService
from gesso.api.service import Policy
from gesso.profile import Profile


@dataclass(frozen=True)
class ModelVariant:
    """Another model that a worker may hold instead of the service's own, always generated in full.

    `steps` are the denoising steps of an image. Its relative quality differs by prompt class: it is the last
    part of the reported curves.
    """

    name: str
    steps: int = 1


@dataclass(frozen=True)
class Settings:
    """Frozen settings of one service's planner.

    Reported quality curves run along `variants`: the ladder of the service's own model, then the other models.
    """

    ladder: tuple[int, ...]
    latency_s: float
    """Deadline, from arrival to the last byte."""
    attainment: float = 0.95
    min_quality: float = 0.9
    interval_s: float = 10.0
    policy: Policy = "QualityAware"
    mode: Literal["Auto", "Recommend", "Off"] = "Auto"
    max_batch: int = 64

    models: tuple[ModelVariant, ...] = ()
    profiles: Mapping[tuple[str, str], Profile] = field(default_factory=dict)
    """By (device class, model): used where given, else what the workers report."""
    switch_s: tuple[tuple[str, str, float], ...] = ()
    """(device class, model to load, seconds in which the worker serves nothing); the class "" stands for
    all.
    """
    workers_min: int | None = None
    """With `workers_max`: bounds of an elastic fleet; None: the fleet is what it is."""
    workers_max: int | None = None
    start_s: float = 0.0
    """Seconds from asking for a worker until it serves."""
    worker_hour_cost: float = 0.0
    """Relative quality, in images, that an hour of a worker must earn."""
    quality_target: float | None = None
    """Mean relative quality to be held at least cost; the cost of a worker-hour then follows from the days
    that are known.
    """

    memory_plans: float = 5.0
    """Least memory of the rate's EWMA, in plan intervals. Longer: calmer, slower on drifts; jumps reset it."""
    most_memory_plans: float = 60.0
    """Most memory, in plan intervals: where few prompts arrive, a long memory is all that tells their rate."""
    memory_arrivals: float = 100.0
    """Arrivals that the memory should hold, between the two bounds above."""
    class_memory_arrivals: float = 2000.0
    """Arrivals after which a prompt counts 1/e in the shares of the prompt classes."""
    upper_quantile: float = 0.90
    """Quantile of the forecast rate that a plan must carry."""
    cautious_quantile: float = 0.9999
    """Quantile that a move to slower levels must carry. Its distance to `upper_quantile` is the dead band."""
    cautious_margin: float = 0.15
    """Share by which the rate may rise without undoing a move to slower levels."""
    jump_significance: float = 1e-6
    """False-alarm rate of each test for a jump of the rate; a found jump discards the older past."""
    shed_penalty: float = 10.0
    """Relative quality that a refused image costs beyond its own: serving comes before quality."""
    stray_share: float = 0.05
    """Share of the load reckoned at its worker's assigned level: it brings idle workers back to K = 0."""
    payback_plans: float = 30.0
    """Plan intervals over which a switch must pay back."""
    least_price_share: float = 0.01
    """A lost worker-second is worth the capacity price, and at least this share of its yield at K = 0."""
    gate_threshold: float = 2.0
    """Benefit share over disruption share from which a move is made; 1 breaks even over the pay-back."""
    faster_agreement: int = 2
    """Consecutive plans that must ask for faster levels before they are given."""
    slower_agreement: int = 5
    """The same for slower levels; doubled for each recent reversal."""
    reversal_plans: int = 30
    """A change of direction within this many plans counts as a reversal."""
    forget_plans: int = 60
    """Plans without a change after which one reversal is forgotten."""
    model_faster_agreement: int = 1
    """Consecutive plans that must ask for another mix of models which serves more, before it is given."""
    model_slower_agreement: int = 6
    """The same for a mix of models that serves less; doubled for each recent reversal."""
    level_band: float = 0.25
    """Share of the workers whose levels may differ from the best split of the load: levels are soft."""
    mismatch_share: float = 0.05
    """Worth of work done at its worker's assigned level, as a share of the yield at K = 0."""
    slot_s: float = 300.0
    """Length of one slot of the daily shape; a whole number of them makes an hour."""
    scale_in_s: float = 300.0
    """Seconds for which fewer workers must have been enough before one goes, where no past days tell what
    comes; where they do, one plan interval.
    """
    reprice_share: float = 0.10
    """Relative change of the price from which it is sent without a change of the mix."""
    service_scv: float = 0.25
    """Squared coefficient of variation of service times: levels mix within the pool."""
    batch_latency_share: float = 0.5
    """The working batch is the best one whose latency at K = 0 stays within this share of the deadline."""
    max_utilisation: float = 0.98
    """Utilisation that no plan exceeds."""
    drain_s: float = 30.0
    """Seconds in which a backlog beyond the work in hand is to be worked off."""
    stale_plans: float = 3.0
    """Plan intervals after which a report counts as missing."""
    solver_limit_s: float = 2.0
    """Time limit of one MILP solve."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "profiles", dict(self.profiles))
        if not self.ladder or self.ladder[0] != 0 or list(self.ladder) != sorted(set(self.ladder)):
            raise ValueError(f"ladder: {self.ladder} is not allowed: ascending, from 0")
        for name in (
            "latency_s",
            "interval_s",
            "memory_plans",
            "most_memory_plans",
            "memory_arrivals",
            "class_memory_arrivals",
            "payback_plans",
            "drain_s",
            "stale_plans",
            "solver_limit_s",
            "max_batch",
            "faster_agreement",
            "slower_agreement",
            "reversal_plans",
            "forget_plans",
            "model_faster_agreement",
            "model_slower_agreement",
            "slot_s",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not allowed: above 0")
        for name in (
            "attainment",
            "upper_quantile",
            "cautious_quantile",
            "jump_significance",
            "max_utilisation",
        ):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not allowed: between 0 and 1")
        for name in ("start_s", "worker_hour_cost", "scale_in_s", "level_band"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: {getattr(self, name)} is not allowed: 0 or more, finite")
        if self.quality_target is not None and not 0 < self.quality_target <= 1:
            raise ValueError(
                f"quality_target: {self.quality_target} is not allowed: above 0, at most 1"
            )
        names = [m.name for m in self.models]
        if "" in names or len(set(names)) != len(names):
            raise ValueError(f"models: {names} is not allowed: each a name of its own")
        for switch in self.switch_s:
            if not 0 <= switch[2] < math.inf:
                raise ValueError(f"switch_s: {switch} is not allowed: seconds 0 or more, finite")
        if (self.workers_min is None) != (self.workers_max is None):
            raise ValueError("workers_min: alone is not allowed: with workers_max, or neither")
        low, high = self.workers_min, self.workers_max
        if low is not None and high is not None and not 1 <= low <= high:
            raise ValueError(f"workers_min: {low} is not allowed: 1 to workers_max ({high})")

    @classmethod
    def of(cls, service: DiffusionService, elastic: bool = False) -> Settings:
        """The settings that a DiffusionService asks for; `elastic` where workers can be had and let go."""
        spec = service.spec
        workers = spec.workers
        elastic = elastic and workers.elastic
        return cls(
            ladder=service.ladder,
            latency_s=spec.slo.latency_seconds,
            attainment=spec.slo.attainment,
            min_quality=spec.slo.min_relative_quality,
            interval_s=spec.scheduling.plan_interval_seconds,
            policy=spec.scheduling.policy,
            mode=spec.scheduling.mode,
            max_batch=workers.max_batch,
            models=tuple(
                ModelVariant(v.name, v.model.steps)
                for v in spec.variants[1:]
                if v.model is not None
            ),
            workers_min=workers.least if elastic else None,
            workers_max=workers.most if elastic else None,
            start_s=workers.start_seconds if elastic else 0.0,
            worker_hour_cost=workers.cost_per_hour if elastic else 0.0,
            quality_target=workers.target_relative_quality
            if elastic and not workers.cost_per_hour
            else None,
        )

    @cached_property
    def asked(self) -> tuple[tuple[str, object], ...]:
        """What the user asks for and a plan depends on, by path: one made for something else is made anew."""
        return (
            ("spec.slo.latencySeconds", self.latency_s),
            ("spec.slo.attainment", self.attainment),
            ("spec.slo.minRelativeQuality", self.min_quality),
            ("spec.variants", tuple(f"{m}/{k}" if m else str(k) for m, k in self.variants)),
            ("spec.scheduling.policy", self.policy),
            ("spec.workers.maxBatch", self.max_batch),
        )

    @cached_property
    def variants(self) -> tuple[tuple[str, int], ...]:
        """(model, K): the ladder of the service's own model (the empty name) first, then each other model
        in full.
        """
        return (*(("", k) for k in self.ladder), *((m.name, 0) for m in self.models))

    @property
    def elastic(self) -> bool:
        """Whether the fleet's size is the planner's to choose."""
        return self.workers_min is not None and self.workers_min != self.workers_max

    def load_s(self, device: str, model: str) -> float:
        """Seconds that a worker of a device class loses by loading a model; 0 where none are given."""
        by_class = {(d, m): s for d, m, s in self.switch_s}
        return by_class.get((device, model), by_class.get(("", model), 0.0))

    @property
    def payback_s(self) -> float:
        """Seconds over which a switch must pay back."""
        return self.payback_plans * self.interval_s
