"""The typed DiffusionService: what a user declares, and the source that the CRD is generated from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from gesso.api.base import SERVICE_NAME, ApiModel, DnsLabel, Share, detail, fault
from gesso.api.fleet import DEFAULT_EMBEDDING, RouterSpec, WorkersSpec
from gesso.api.model import DEFAULT_LADDER, ModelSpec, VariantSpec
from gesso.api.pods import INT_OR_STRING, whole_as_text
from gesso.api.quantity import parse_bytes
from gesso.api.security import SecuritySpec
from gesso.api.status import ServiceStatus
from gesso.api.tracing import TracingSpec
from gesso.builtin import TINY_CLIP, TINY_SDXL

#: No device known takes less for a denoising step: a deadline below it is a slip of the pen.
LEAST_STEP_SECONDS = 0.001

#: How levels and workers are chosen, see `SchedulingSpec.policy`.
Policy = Literal[
    "QualityAware",
    "PromptAgnostic",
    "BacklogPrice",
    "Argus",
    "Nirvana",
    "Proteus",
    "ClipperHA",
    "ClipperHT",
    "RoundRobin",
    "LeastOutstanding",
]


class SloSpec(ApiModel):
    """What the service promises to the users of its images."""

    latency_seconds: float = Field(
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Deadline of a request in seconds, from arrival at the router to the last byte. Three "
        "times what an image takes in full is usual: below that little room is left for waiting. Below the "
        "fastest possible image nothing can be served in time.",
    )
    attainment: float = Field(
        default=0.95,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="Share of the requests to be served within `latencySeconds`; the condition SLOMet tells "
        "whether it is.",
    )
    min_relative_quality: Share = Field(
        default=0.9,
        description="Floor for a prompt's predicted quality relative to the same prompt at K = 0: a "
        "level that falls below it for a prompt is not used for that prompt. Lower: more images in time at "
        "the peak. 0.95 would mean that an image may be worth 5 % less than in full.",
    )


class SchedulingSpec(ApiModel):
    """How levels are chosen."""

    policy: Policy = Field(
        default="QualityAware",
        description="`QualityAware` trades quality for time by predicted loss and load. The others are "
        "there to be compared with. `PromptAgnostic`: the same for the average prompt, whichever prompt "
        "it is. `BacklogPrice`: the same by the live backlog alone, without a planner. `Argus`: optimal K "
        "by similarity, redirected at random to workers that serve one level each. `Nirvana`: K by "
        "similarity, whatever the load. `Proteus`: the most accurate levels that carry the load, "
        "whichever prompt it is. `ClipperHA`: always in full (K = 0), in one queue; `ClipperHT`: always at the "
        "largest K. `RoundRobin` and `LeastOutstanding`: always in full, behind a plain load balancer.",
    )
    mode: Literal["Auto", "Recommend", "Off"] = Field(
        default="Auto",
        description="`Auto` acts on plans; `Recommend` only writes them into the status; `Off` makes "
        "none: workers keep their levels.",
    )
    plan_interval_seconds: float = Field(
        default=10.0,
        ge=0.1,
        le=3600,
        allow_inf_nan=False,
        description="Seconds between two plans.",
    )


class DiskSpec(ApiModel):
    """A tier of the cache on disk."""

    size: str = Field(
        max_length=64,
        json_schema_extra=INT_OR_STRING,
        description="Bytes that each worker's cache takes of its disk at most, as a quantity: `100Gi`.",
    )
    storage_class_name: str | None = Field(
        default=None,
        max_length=253,
        description="StorageClass of the volume that each worker gets; absent: the cluster's default. Best is "
        "a local NVMe's: a latent is read whenever an image starts from it. Means nothing outside a cluster.",
    )

    @field_validator("size", mode="before")
    @classmethod
    def _whole_number(cls, value: object) -> object:
        return whole_as_text(value)

    @field_validator("size")
    @classmethod
    def _quantity(cls, value: str) -> str:
        return _checked(value)

    @property
    def size_bytes(self) -> int:
        """`size` in bytes."""
        return parse_bytes(self.size)


def _checked(quantity: str) -> str:
    try:
        parse_bytes(quantity)
    except ValueError as error:
        raise fault(str(error), quantity) from None
    return quantity


class CacheSpec(ApiModel):
    """The cache of intermediate latents."""

    capacity: str = Field(
        default="1Gi",
        max_length=64,
        json_schema_extra=INT_OR_STRING,
        description="Bytes of latents that each worker keeps in memory, as a quantity: `256Mi`.",
    )
    disk: DiskSpec | None = Field(
        default=None,
        description="A disk beside the memory, which outlives restarts: latents that memory has no room for "
        "are served from there, and a worker that comes back holds what it held. Absent: memory only.",
    )
    isolation: Literal["Tenant", "Shared"] = Field(
        default="Tenant",
        description="`Tenant`: a prompt may start only from latents of the same tenant. `Shared`: from "
        "anyone's, which lets a tenant learn what others prompted.",
    )

    @field_validator("capacity", mode="before")
    @classmethod
    def _whole_number(cls, value: object) -> object:
        return whole_as_text(value)

    @field_validator("capacity")
    @classmethod
    def _quantity(cls, value: str) -> str:
        return _checked(value)

    @property
    def capacity_bytes(self) -> int:
        """`capacity` in bytes."""
        return parse_bytes(self.capacity)


class ServiceSpec(ApiModel):
    """What the user wants."""

    model: ModelSpec = Field(description="The diffusion model and how it is run.")
    variants: tuple[VariantSpec, ...] = Field(
        default=(VariantSpec(skipped_steps=DEFAULT_LADDER),),
        min_length=1,
        max_length=8,
        description="What an image can be made by. The first is the ladder of `spec.model`: the numbers of "
        "steps that may be skipped. Each further one is another model, a distilled one say, always run in "
        "full; a worker holds one model at a time and changes it where the plan says so.",
    )
    slo: SloSpec = Field(description="Latency, attainment and quality to be held.")
    workers: WorkersSpec = Field(description="The fleet's size and batch.")
    scheduling: SchedulingSpec = Field(
        default=SchedulingSpec(), description="How levels are chosen, and how often."
    )
    cache: CacheSpec = Field(
        default=CacheSpec(), description="The cache of intermediate latents in each worker."
    )
    router: RouterSpec = Field(default=RouterSpec(), description="The part that takes requests in.")
    security: SecuritySpec = Field(
        default=SecuritySpec(), description="TLS between the parts, API keys of clients."
    )
    tracing: TracingSpec | None = Field(
        default=None,
        description="OpenTelemetry traces of requests, across router and workers. Absent: none.",
    )
    network_policy: bool = Field(
        default=False,
        description="Whether a NetworkPolicy lets only the service's own pods and the operator talk to "
        "workers. Needs a network plugin that enforces it.",
    )

    @model_validator(mode="after")
    def _across_fields(self) -> Self:
        faults = self._variant_faults()
        if self.workers.max < self.workers.min:
            allowed = f"at least spec.workers.min ({self.workers.min})"
            faults.append(detail(("workers", "max"), allowed, self.workers.max))
        replicas = self.workers.replicas
        if replicas is not None and replicas > self.workers.max:
            allowed = f"at most spec.workers.max ({self.workers.max})"
            faults.append(detail(("workers", "replicas"), allowed, replicas))
        left = min(
            self.model.steps - v.levels[-1] if v.model is None else v.model.steps
            for v in self.variants
        )
        fastest = LEAST_STEP_SECONDS * left
        if left > 0 and self.slo.latency_seconds < fastest:
            allowed = (
                f"at least {fastest:g}, a millisecond for each of the {left} steps that the fastest "
                "possible image takes"
            )
            faults.append(detail(("slo", "latencySeconds"), allowed, self.slo.latency_seconds))
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        if not self.router.embedding:
            tiny = self.model.source == TINY_SDXL
            filled = {"embedding": TINY_CLIP if tiny else DEFAULT_EMBEDDING}
            # The default of one field depends on another; the model is frozen from here on.
            self.__dict__["router"] = self.router.model_copy(update=filled)
        return self

    def _variant_faults(self) -> list[InitErrorDetails]:
        """What is wrong with the variants together."""
        faults = []
        for v, variant in enumerate(self.variants):
            if (v == 0) == (variant.model is not None):
                allowed = (
                    "the first variant is the ladder of spec.model (skippedSteps), each further one another "
                    "model (model)"
                )
                faults.append(detail(("variants", v), allowed, variant.name))
            if any(variant.name == other.name for other in self.variants[:v]):
                allowed = "each variant has a name of its own"
                faults.append(detail(("variants", v, "name"), allowed, variant.name))
            allowed = f"0 or more and less than spec.model.steps ({self.model.steps})"
            faults += [
                detail(("variants", v, "skippedSteps", i), allowed, level)
                for i, level in enumerate(variant.skipped_steps or ())
                if level >= self.model.steps
            ]
        return faults


class Metadata(ApiModel):
    """Kubernetes metadata, as far as a user writes it."""

    name: str = Field(
        pattern=SERVICE_NAME,
        description="Name of the service: a-z, 0-9 and `-`, a letter first, at most 45 characters.",
    )
    namespace: DnsLabel | None = Field(default=None, description="Kubernetes namespace.")
    labels: dict[str, str] = Field(default={}, description="Kubernetes labels.")
    annotations: dict[str, str] = Field(default={}, description="Kubernetes annotations.")
    generation: int = Field(
        default=1, ge=1, description="Counts changes of the spec; set by Kubernetes."
    )


class DiffusionService(ApiModel):
    """A text-to-image model served by a fleet, in time and at the best quality the fleet can give."""

    api_version: Literal["gesso.dev/v1alpha1"] = Field(
        default="gesso.dev/v1alpha1", description="Version of this API."
    )
    kind: Literal["DiffusionService"] = Field(
        default="DiffusionService", description="DiffusionService."
    )
    metadata: Metadata = Field(description="Name and labels.")
    spec: ServiceSpec = Field(description="What the user wants.")
    status: ServiceStatus | None = Field(
        default=None, description="What the operator sees; users do not write it."
    )

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def ladder(self) -> tuple[int, ...]:
        """The levels K of the default variant, ascending from 0."""
        return self.spec.variants[0].levels
