"""Why a plan is what it is: reasons for machines, sentences for people, and every intermediate figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gesso.plan import LevelPlan, Plan


class Reason(StrEnum):
    """Reasons of plans and non-plans; part of the API."""

    # Plans.
    INITIAL_PLAN = "InitialPlan"
    LOAD_ROSE = "LoadRose"
    LOAD_FELL = "LoadFell"
    OVERLOADED = "Overloaded"
    SLO_UNREACHABLE = "SLOUnreachable"
    REBALANCED = "Rebalanced"
    FLEET_CHANGED = "FleetChanged"
    SPEC_CHANGED = "SpecChanged"
    PRICE_UPDATED = "PriceUpdated"
    FIXED_POLICY = "FixedPolicy"
    MODEL_SWITCH = "ModelSwitch"
    # The fleet is to grow or shrink; the plan may be a new one or not.
    SCALE_OUT = "ScaleOut"
    SCALE_IN = "ScaleIn"
    # Non-plans: the plan in force stays.
    STEADY = "Steady"
    NOT_WORTH_IT = "NotWorthIt"
    AWAITING_AGREEMENT = "AwaitingAgreement"
    WARMING_UP = "WarmingUp"
    NO_REPORT = "NoReport"
    STALE_REPORT = "StaleReport"
    NO_READY_WORKERS = "NoReadyWorkers"
    NO_PROFILE = "NoProfile"
    SOLVER_FAILED = "SolverFailed"
    MODE_OFF = "ModeOff"
    RECOMMENDED = "Recommended"


#: Reasons that tell of missing data or a failed solve: the plan in force stays as it is.
FROZEN = frozenset(
    {
        Reason.NO_REPORT,
        Reason.STALE_REPORT,
        Reason.NO_READY_WORKERS,
        Reason.NO_PROFILE,
        Reason.SOLVER_FAILED,
    }
)


@dataclass(frozen=True)
class Diagnostics:
    """Every figure on the way to a decision; what was not reached stays at its default.

    Rates in images/s, times in seconds. Tuples by variant run along `Settings.variants`: `work_s`, `bound` (of
    utilisation) and `capacity` (images/s of the ready fleet, were all of it there) for the most common
    device class, `current` and `proposed` workers over all classes. `pools` are (device class, model,
    workers). `workers` are ready, `expected` also on their way. `rate_models` is what the mix of models was
    planned for, `rate_ahead` and `rate_ahead_upper` what the fleet's size was. `worker_cost` is in relative
    quality per worker-second, `needed` and `agreed` in plans, those of models apart.
    """

    workers: int = 0
    expected: int = 0
    data: str = ""
    rate_mean: float = 0.0
    rate_upper: float = 0.0
    rate_cautious: float = 0.0
    rate_models: float = 0.0
    rate_ahead: float = 0.0
    rate_ahead_upper: float = 0.0
    jumped: bool = False
    batch: int = 0
    work_s: tuple[float, ...] = ()
    bound: tuple[float, ...] = ()
    capacity: tuple[float, ...] = ()
    slack: float = 1.0
    price: float = 0.0
    utilisation: float = 0.0
    pools: tuple[tuple[str, str, int], ...] = ()
    current: tuple[int, ...] = ()
    proposed: tuple[int, ...] = ()
    shed: float = 0.0
    quality: float = 0.0
    objective: float = 0.0
    objective_held: float = 0.0
    benefit_share: float = 0.0
    disruption_share: float = 0.0
    direction: str = "none"
    agreed: int = 0
    needed: int = 0
    reversals: int = 0
    model_benefit_share: float = 0.0
    model_disruption_share: float = 0.0
    model_direction: str = "none"
    model_agreed: int = 0
    model_needed: int = 0
    model_reversals: int = 0
    size_needed: int = 0
    size_wanted: int = 0
    size_kept: int = 0
    worker_cost: float = 0.0


@dataclass(frozen=True)
class Decision:
    """What is to be done now.

    `plan` is the plan in force after this decision (None: there has never been one) and goes to the router;
    `changed` says that it is new. `wanted` is the plan that the planner would make: the same in the mode
    Auto, a recommendation in the mode Recommend. `assignment` is the level of each ready worker under the
    plan in force; it is given every time, so that an actuator can repair what a failed call left behind, and
    empty where workers keep what they have. `models` names, in the same way, the model that each worker is to
    hold; empty where the fleet has one model. `fleet_size` is how many workers there should be in all; None:
    no opinion. `reason` and `message` explain this decision, also where nothing changed; `plan.reason`
    explains the plan. `data_missing` says that the planner lacked what it plans with (see FROZEN), whatever
    the reason is.
    """

    plan: Plan | None
    wanted: Plan | None
    changed: bool
    reason: Reason
    message: str
    assignment: Mapping[str, int] = field(default_factory=dict)
    switches: int = 0
    diagnostics: Diagnostics = Diagnostics()
    models: Mapping[str, str] = field(default_factory=dict)
    fleet_size: int | None = None
    data_missing: bool = False


def mix_text(variants: Sequence[tuple[str, int]], workers: Sequence[int]) -> str:
    """`0:5,10:2,lightning:1`, as in `Plan.mix_text`."""
    named = (
        (LevelPlan(k, n, 0.0, model).variant, n)
        for (model, k), n in zip(variants, workers, strict=True)
    )
    return ",".join(f"{variant}:{n}" for variant, n in named if n) or "none"


def count_text(workers: int) -> str:
    """`1 worker`, `2 workers`."""
    return f"{workers} worker{'' if workers == 1 else 's'}"


def load_text(d: Diagnostics) -> str:
    """The load beside what the fleet carries in full and at its fastest."""
    if not d.capacity:
        return f"load {d.rate_mean:.2f} images/s"
    return (
        f"load {d.rate_mean:.2f} images/s (planned for {d.rate_upper:.2f}); {count_text(d.workers)} carry "
        f"{d.capacity[0]:.2f} at K=0 and {max(d.capacity):.2f} at most"
    )


def shed_text(d: Diagnostics) -> str:
    """What cannot be served, or nothing."""
    return f"; {d.shed:.2f} images/s must be refused" if d.shed > 0 else ""


def quality_text(d: Diagnostics) -> str:
    """The quality that the mix is expected to give."""
    return f", expected relative quality {d.quality:.3f}" if d.quality > 0 else ""
