"""The typed status of a DiffusionService: conditions, mix, SLO, quality, the last plans and their reasons."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import Field

from gesso.api.base import ApiModel, DnsLabel, Share

ConditionStatus = Literal["True", "False", "Unknown"]
ConditionType = Literal[
    "Accepted",
    "ProfileReady",
    "MetricsAvailable",
    "PlanReady",
    "WorkersReady",
    "RouterReady",
    "Ready",
    "SLOMet",
    "QualityMet",
]
# Ready is true when all of these are, and else has the reason of the first that is not; SLOMet and QualityMet
# stay outside it.
READY_PARTS: tuple[ConditionType, ...] = (
    "Accepted",
    "WorkersReady",
    "ProfileReady",
    "RouterReady",
    "MetricsAvailable",
    "PlanReady",
)
#: What each condition tells when it is True.
CONDITIONS: dict[ConditionType, str] = {
    "Accepted": "The spec can be served: it holds every rule, and its deadline is not below the fastest image "
    "that the fleet's devices have been measured to make.",
    "ProfileReady": "A worker has measured how long its device takes for encoding, steps and decoding.",
    "MetricsAvailable": "The routers report load and latencies; without, the last plan stays.",
    "PlanReady": "There is a plan, and the routers have it. The reason is the plan's own.",
    "WorkersReady": "As many workers are ready as `spec.workers` asks for at least; where not, the reason is "
    "that of a pod that does not come up.",
    "RouterReady": "The routers answer.",
    "Ready": "Images are served: all of the conditions above are True. Where not, it has reason and message of "
    "the first that is not.",
    "SLOMet": "Over the last minute, `spec.slo.attainment` of the requests or more were served in time.",
    "QualityMet": "Over the last minute, the mean predicted relative quality was `spec.slo.minRelativeQuality` "
    "or more.",
}
PLAN_HISTORY = 5


class Condition(ApiModel):
    """One observation about the service, as Kubernetes conditions are."""

    type: ConditionType = Field(description="What is observed.")
    status: ConditionStatus = Field(description="`True`, `False` or `Unknown`; `True` is good.")
    reason: str = Field(
        pattern=r"^[A-Z][A-Za-z0-9]*$", description="The reason in CamelCase, for machines."
    )
    message: str = Field(default="", description="The reason in a sentence, for people.")
    last_transition_time: datetime = Field(description="When `status` last flipped.")
    observed_generation: int = Field(
        default=1, ge=0, description="`metadata.generation` that this was observed for."
    )


class SloStatus(ApiModel):
    """How the SLO is held."""

    attainment: Share | None = Field(
        default=None, description="Share of the requests served in time, over the last minute."
    )
    summary: str = Field(
        default="", description="The attainment as `98.7%`, for the column of `kubectl get`."
    )
    latency_p95_seconds: float | None = Field(
        default=None, ge=0, description="95th percentile of the latency over the last minute."
    )


class PlanStatus(ApiModel):
    """One plan, and why."""

    revision: int = Field(ge=0, description="Number of the plan; only grows.")
    made_at: datetime = Field(description="When it was made.")
    mix: str = Field(description="Workers by K, as `0:5,10:2`.")
    reason: str = Field(description="The reason in CamelCase, for machines.")
    message: str = Field(description="The reason in a sentence, for people.")
    price: float = Field(description="Relative quality that one more worker-second would buy.")
    objective: float = Field(
        description="Relative quality served per second, less sheds and switches."
    )
    switches: int = Field(ge=0, description="Workers whose level the plan changed.")
    solve_millis: float = Field(ge=0, description="Milliseconds that the solver took.")


class WorkerStatus(ApiModel):
    """One worker."""

    name: DnsLabel = Field(description="The worker's name.")
    address: str = Field(description="host:port of its gRPC server.")
    ready: bool = Field(description="Whether it answers and is warm.")
    skipped_steps: int | None = Field(
        default=None, ge=0, description="Its assigned level; absent until it answers."
    )
    restarts: int = Field(default=0, ge=0, description="How often it was started again.")


class WorkersStatus(ApiModel):
    """The fleet."""

    desired: int = Field(default=0, ge=0, description="Workers that should run.")
    ready: int = Field(default=0, ge=0, description="Workers that serve.")
    summary: str = Field(
        default="", description="Ready of desired as `2/3`, for the column of `kubectl get`."
    )
    start_seconds: float | None = Field(
        default=None,
        ge=0,
        description="Seconds from asking for a worker until it serves: the median of the last starts, which "
        "the planner reckons with; absent until one was seen.",
    )
    members: tuple[WorkerStatus, ...] = Field(
        default=(), description="The workers, where they are few (a local fleet)."
    )


class ServiceStatus(ApiModel):
    """What the operator sees."""

    observed_generation: int = Field(
        default=1, ge=0, description="`metadata.generation` that this status is about."
    )
    observed_at: datetime | None = Field(
        default=None, description="When it was observed (a local fleet's heartbeat)."
    )
    conditions: tuple[Condition, ...] = Field(default=(), description="Observations, by type.")
    mix: str = Field(default="", description="Ready workers by assigned K, as `0:5,10:2`.")
    desired_mix: str = Field(default="", description="The mix that the last plan wants.")
    slo: SloStatus = Field(default=SloStatus(), description="How the SLO is held.")
    quality: Share | None = Field(
        default=None, description="Mean predicted relative quality served, over the last minute."
    )
    plan: PlanStatus | None = Field(default=None, description="The plan in force.")
    plan_history: tuple[PlanStatus, ...] = Field(
        default=(), max_length=PLAN_HISTORY, description="The last plans, newest first."
    )
    workers: WorkersStatus = Field(default=WorkersStatus(), description="The fleet.")
    replicas: int = Field(
        default=0, ge=0, description="Worker pods that exist, for `kubectl scale`."
    )
    selector: str = Field(
        default="", description="Labels of the worker pods, for whoever scales by their metrics."
    )

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of that type, or None."""
        return next((c for c in self.conditions if c.type == kind), None)


def transition(
    old: Iterable[Condition],
    kind: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
    now: datetime,
    generation: int = 1,
) -> Condition:
    """A condition whose `lastTransitionTime` moves only when its status flips."""
    before = next((c for c in old if c.type == kind), None)
    since = before.last_transition_time if before and before.status == status else now
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=generation,
    )
