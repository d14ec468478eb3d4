"""Who serves: workers and routers, how many, and what their pods are like."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from gesso.api.base import ApiModel, Share, fault
from gesso.api.pods import INT_OR_STRING, PodTemplate, Resources, Toleration, whole_as_text
from gesso.api.quantity import parse_bytes

DEFAULT_EMBEDDING = "hf-hub:laion/CLIP-ViT-L-14-laion2B-s32B-b82K"
PullPolicy = Literal["Always", "IfNotPresent", "Never"]


class WorkersSpec(ApiModel):
    """The fleet."""

    min: int = Field(default=1, ge=1, le=4096, description="Fewest workers.")
    max: int = Field(ge=1, le=4096, description="Most workers; at least `min`.")
    replicas: int | None = Field(
        default=None,
        ge=0,
        le=4096,
        description="Exactly so many workers, at most `max`, whatever the load: what `kubectl scale` sets. 0 "
        "stops the fleet. Absent: between `min` and `max`, as the load asks for. A local fleet has `replicas`, "
        "else `min`.",
    )
    cost_per_hour: float = Field(
        default=0.0,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="What an hour of a worker must earn for the planner to ask for it, in images of full "
        "quality: 0.01 more relative quality for each of 1,000 images earns 10. At 0 "
        "`targetRelativeQuality` rules instead.",
    )
    target_relative_quality: Share = Field(
        default=0.97,
        gt=0,
        description="Mean relative quality that the planner holds with the fewest worker-hours between `min` "
        "and `max`.",
    )
    start_seconds: float = Field(
        default=180.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds from asking for a worker until it serves; used until starts have been measured.",
    )
    max_batch: int = Field(
        default=8, ge=1, le=64, description="Most requests in one worker's denoising batch."
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="CPU threads of a worker; they count where there is no GPU.",
    )
    model_memory: str | None = Field(
        default=None,
        max_length=64,
        json_schema_extra=INT_OR_STRING,
        description="Most bytes that the weights of the models of `spec.variants` may take together in a "
        "worker's memory, a quantity: `16Gi`. A model that a worker changes from stays there where it fits, so "
        "that the way back costs next to nothing; where two do not fit, the one before is let go of first. "
        "Absent: half of the device's memory.",
    )
    image: str = Field(
        default="",
        max_length=1024,
        description="Container image; empty: the one that the operator was installed with.",
    )
    image_pull_policy: PullPolicy | None = Field(
        default=None, description="When the image is pulled; absent: Kubernetes' own rule."
    )
    resources: Resources = Field(
        default=Resources(),
        description="What the container asks for and may use: `limits: {nvidia.com/gpu: 1}`.",
    )
    node_selector: dict[str, str] = Field(
        default={}, max_length=64, description="Labels of the nodes that workers may run on."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=32, description="Taints of nodes that workers put up with."
    )
    pod_template: PodTemplate = Field(
        default=PodTemplate(), description="What else the workers' pods are to have."
    )

    @field_validator("model_memory", mode="before")
    @classmethod
    def _whole_number(cls, value: object) -> object:
        return whole_as_text(value)

    @field_validator("model_memory")
    @classmethod
    def _quantity(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parse_bytes(value)
        except ValueError as error:
            raise fault(str(error), value) from None
        return value

    @property
    def model_memory_bytes(self) -> int | None:
        """`model_memory` in bytes; None where it is not given."""
        return None if self.model_memory is None else parse_bytes(self.model_memory)

    @property
    def least(self) -> int:
        """Fewest workers that there are to be: `replicas` where it pins the fleet."""
        return self.min if self.replicas is None else self.replicas

    @property
    def most(self) -> int:
        """Most workers that there are to be: `replicas` where it pins the fleet."""
        return self.max if self.replicas is None else self.replicas

    @property
    def elastic(self) -> bool:
        """Whether the planner chooses how many workers there are."""
        return self.least < self.most


#: What the router's page shows, see `RouterSpec.console`.
ConsoleMode = Literal["Off", "Private", "Full"]


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
    console: ConsoleMode = Field(
        default="Private",
        description="The page at `/` of the router's HTTP port. `Private`: a prompt box and the live fleet; "
        "an image is seen by who asked for it only. `Full`: recent images and their prompts, too, whoever "
        "asked for them. `Off`: no page. Unless it is off, requests may name the K that they are to be served "
        "at.",
    )
    image: str = Field(
        default="",
        max_length=1024,
        description="Container image; empty: the one that the operator was installed with.",
    )
    image_pull_policy: PullPolicy | None = Field(
        default=None, description="When the image is pulled; absent: Kubernetes' own rule."
    )
    resources: Resources = Field(
        default=Resources(),
        description="What the container asks for and may use: `requests: {cpu: 1}`.",
    )
    pod_template: PodTemplate = Field(
        default=PodTemplate(), description="What else the routers' pods are to have."
    )
