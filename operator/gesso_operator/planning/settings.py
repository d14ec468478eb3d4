"""What the planner is told: the ladder, the SLO, and the constants of its decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gesso.api import DiffusionService


@dataclass(frozen=True)
class Settings:
    """Frozen settings of one service's planner."""

    ladder: tuple[int, ...]
    latency_s: float
    """Deadline, from arrival to the last byte."""
    attainment: float = 0.95
    min_quality: float = 0.9
    interval_s: float = 10.0
    policy: Literal["QualityAware", "ClipperHA"] = "QualityAware"
    mode: Literal["Auto", "Recommend", "Off"] = "Auto"
    max_batch: int = 64

    memory_plans: float = 5.0
    """Least memory of the rate's EWMA, in plan intervals. Longer: calmer, slower on drifts; jumps reset it."""
    most_memory_plans: float = 60.0
    """Most memory, in plan intervals: where few prompts arrive, a long memory is all that tells their rate."""
    memory_arrivals: float = 100.0
    """Arrivals that the memory should hold, between the two bounds above."""
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
        if not self.ladder or self.ladder[0] != 0 or list(self.ladder) != sorted(set(self.ladder)):
            raise ValueError(f"ladder: {self.ladder} is not allowed: ascending, from 0")
        for name in (
            "latency_s",
            "interval_s",
            "memory_plans",
            "most_memory_plans",
            "memory_arrivals",
            "payback_plans",
            "drain_s",
            "stale_plans",
            "solver_limit_s",
            "max_batch",
            "faster_agreement",
            "slower_agreement",
            "reversal_plans",
            "forget_plans",
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

    @classmethod
    def of(cls, service: DiffusionService) -> Settings:
        """The settings that a DiffusionService asks for."""
        spec = service.spec
        return cls(
            ladder=service.ladder,
            latency_s=spec.slo.latency_seconds,
            attainment=spec.slo.attainment,
            min_quality=spec.slo.min_relative_quality,
            interval_s=spec.scheduling.plan_interval_seconds,
            policy=spec.scheduling.policy,
            mode=spec.scheduling.mode,
            max_batch=spec.workers.max_batch,
        )

    @property
    def payback_s(self) -> float:
        """Seconds over which a switch must pay back."""
        return self.payback_plans * self.interval_s
