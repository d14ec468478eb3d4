"""The typed DiffusionService: what a user declares, and the source that the CRD is generated from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from gesso.api.base import ApiModel, DnsLabel, Share
from gesso.api.quantity import parse_bytes
from gesso.api.status import ServiceStatus
from gesso.builtin import TINY_CLIP, TINY_SDXL

DEFAULT_EMBEDDING = "hf-hub:laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
DEFAULT_LADDER = (0, 5, 10, 15, 20, 25)

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

Pixels = Annotated[int, Field(ge=16, le=4096, multiple_of=8)]


class ModelSpec(ApiModel):
    """The diffusion model that every worker holds, and how it is run."""

    source: str = Field(
        min_length=1,
        description="Where the model lies: `builtin://tiny-sdxl`, a folder in diffusers' layout, or a "
        "Hugging Face hub id such as `stabilityai/stable-diffusion-xl-base-1.0`.",
    )
    steps: int = Field(
        default=50, ge=1, le=1000, description="Denoising steps of a full generation (K = 0)."
    )
    width: Pixels = Field(
        default=1024, description="Width of the images in pixels, a multiple of 8."
    )
    height: Pixels = Field(
        default=1024, description="Height of the images in pixels, a multiple of 8."
    )
    guidance_scale: float = Field(
        default=5.0,
        ge=0,
        le=50,
        allow_inf_nan=False,
        description="Classifier-free guidance scale of requests that name none; 1 and below turn "
        "guidance off.",
    )
    scheduler: Literal["Euler", "DDIM"] = Field(
        default="Euler", description="Sampler: `Euler` (EulerDiscreteScheduler) or `DDIM`."
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float16",
        description="Number type of the weights in memory; `float32` on a CPU.",
    )


class VariantSpec(ApiModel):
    """One way to run the model: a ladder of skipped steps."""

    name: DnsLabel = Field(
        default="default", description="Name of the variant, a DNS label: a-z, 0-9 and `-`."
    )
    skipped_steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=DEFAULT_LADDER,
        min_length=1,
        max_length=32,
        description="The levels: how many denoising steps K may be skipped, ascending, starting with "
        "0 and each below `spec.model.steps`. Latents are cached at each of them.",
    )

    @field_validator("skipped_steps")
    @classmethod
    def _ladder(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if levels[0] != 0:
            raise _fault("the first level is 0 (full generation)", levels)
        if list(levels) != sorted(set(levels)):
            raise _fault("ascending, each level once", levels)
        return levels


class SloSpec(ApiModel):
    """What the service promises to the users of its images."""

    latency_seconds: float = Field(
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Deadline of a request in seconds, from arrival at the router to the last byte.",
    )
    attainment: float = Field(
        default=0.95,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="Share of the requests to be served within `latencySeconds`.",
    )
    min_relative_quality: Share = Field(
        default=0.9,
        description="Floor for a prompt's predicted quality relative to the same prompt at K = 0: a "
        "level that falls below it for a prompt is not used for that prompt.",
    )


class WorkersSpec(ApiModel):
    """The fleet."""

    min: int = Field(default=1, ge=1, le=4096, description="Fewest workers.")
    max: int = Field(ge=1, le=4096, description="Most workers; at least `min`.")
    max_batch: int = Field(
        default=8, ge=1, le=64, description="Most requests in one worker's denoising batch."
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


class CacheSpec(ApiModel):
    """The cache of intermediate latents."""

    capacity: str = Field(
        default="1Gi",
        description="Bytes of latents that each worker keeps, as a quantity: `256Mi`.",
    )
    isolation: Literal["Tenant", "Shared"] = Field(
        default="Tenant",
        description="`Tenant`: a prompt may start only from latents of the same tenant. `Shared`: from "
        "anyone's, which lets a tenant learn what others prompted.",
    )

    @field_validator("capacity", mode="before")
    @classmethod
    def _whole_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("capacity")
    @classmethod
    def _quantity(cls, value: str) -> str:
        try:
            parse_bytes(value)
        except ValueError as error:
            raise _fault(str(error), value) from None
        return value

    @property
    def capacity_bytes(self) -> int:
        """`capacity` in bytes."""
        return parse_bytes(self.capacity)


class RouterSpec(ApiModel):
    """The part that takes requests in."""

    replicas: int = Field(default=1, ge=1, le=64, description="Router processes.")
    max_queue: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Most accepted requests without an image yet, for each router; more are refused.",
    )
    embedding: str = Field(
        default="",
        description="open_clip model that embeds prompts: `builtin://tiny-clip`, a folder, or a hub id "
        "`hf-hub:...`. Empty: `builtin://tiny-clip` for `builtin://tiny-sdxl`, else "
        f"`{DEFAULT_EMBEDDING}`.",
    )


class ServiceSpec(ApiModel):
    """What the user wants."""

    model: ModelSpec = Field(description="The diffusion model and how it is run.")
    variants: tuple[VariantSpec, ...] = Field(
        default=(VariantSpec(),),
        min_length=1,
        max_length=1,
        description="The ways to run the model; exactly one for now.",
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

    @model_validator(mode="after")
    def _across_fields(self) -> Self:
        faults = [
            _detail(
                ("variants", v, "skippedSteps", i),
                f"0 or more and less than spec.model.steps ({self.model.steps})",
                level,
            )
            for v, variant in enumerate(self.variants)
            for i, level in enumerate(variant.skipped_steps)
            if level >= self.model.steps
        ]
        if self.workers.max < self.workers.min:
            allowed = f"at least spec.workers.min ({self.workers.min})"
            faults.append(_detail(("workers", "max"), allowed, self.workers.max))
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        if not self.router.embedding:
            tiny = self.model.source == TINY_SDXL
            filled = {"embedding": TINY_CLIP if tiny else DEFAULT_EMBEDDING}
            # The default of one field depends on another; the model is frozen from here on.
            self.__dict__["router"] = self.router.model_copy(update=filled)
        return self


class Metadata(ApiModel):
    """Kubernetes metadata, as far as a user writes it."""

    name: DnsLabel = Field(
        description="Name of the service, a DNS label: a-z, 0-9 and `-`, at most 63 characters."
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
        return self.spec.variants[0].skipped_steps


def _fault(allowed: str, value: object) -> PydanticCustomError:
    return PydanticCustomError(
        "not_allowed", "{allowed}", {"allowed": allowed, "value": str(value)}
    )


def _detail(loc: tuple[int | str, ...], allowed: str, value: object) -> InitErrorDetails:
    return InitErrorDetails(type=_fault(allowed, value), loc=loc, input=value)
