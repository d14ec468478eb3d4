"""What is served: the model, and the levels at which it runs."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gesso.api.base import ApiModel, DnsLabel, Share, fault
from gesso.api.pods import SecretKey, Storage

DEFAULT_LADDER = (0, 5, 10, 15, 20, 25)
PVC_PATTERN = r"^pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?(/.*)?$"


def _claim(source: str) -> str:
    if source.startswith("pvc://") and not re.fullmatch(PVC_PATTERN, source):
        raise fault("pvc://CLAIM or pvc://CLAIM/FOLDER, the claim's name in lower case", source)
    return source


Pixels = Annotated[int, Field(ge=16, le=4096, multiple_of=8)]


class ModelSpec(ApiModel):
    """The diffusion model that every worker holds, and how it is run."""

    source: str = Field(
        min_length=1,
        max_length=1024,
        description="Where the model lies: `builtin://tiny-sdxl`, a folder in diffusers' layout, a Hugging "
        "Face hub id such as `stabilityai/stable-diffusion-xl-base-1.0`, or `pvc://CLAIM/FOLDER` in a "
        "volume of the namespace.",
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
    scheduler: Literal["Euler", "DDIM", "DPM++ 2M"] = Field(
        default="Euler",
        description="Sampler: `Euler` (EulerDiscreteScheduler), `DDIM`, or `DPM++ 2M` "
        "(DPMSolverMultistepScheduler), which needs fewer steps; a run that skips some takes its first one at "
        "first order.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float16",
        description="Number type of the weights in memory; `float32` on a CPU.",
    )
    vae: str = Field(
        default="",
        max_length=1024,
        description="Another VAE than the model's own: a folder with an AutoencoderKL, or a hub id such as "
        "`madebyollin/sdxl-vae-fp16-fix`, which decodes in float16, in half the memory. SD-XL's own overflows "
        "there and runs in float32.",
    )
    compile: bool = Field(
        default=False,
        description="Whether the UNet's blocks are compiled (torch.compile): faster steps, for starts that "
        "take minutes longer. Needs a C compiler in the worker's image: build its target `gpu-compile`.",
    )
    allow_replace: bool = Field(
        default=False,
        description="Whether `source` may change: every latent in the caches is of no use afterwards, so that "
        "the fleet serves in full until they fill again.",
    )
    token_secret: SecretKey | None = Field(
        default=None,
        description="Secret with a Hugging Face token, for models that ask for one; workers and routers get "
        "it as HF_TOKEN.",
    )
    storage: Storage | None = Field(
        default=None,
        description="A volume for each worker that keeps downloaded weights, so that a restarted pod need "
        "not fetch them again.",
    )

    _source = field_validator("source")(_claim)


class OtherModelSpec(ApiModel):
    """Another model that workers may change to: each image in full, none of the cache."""

    source: str = Field(
        min_length=1,
        max_length=1024,
        description="Where the model lies, as `spec.model.source`; its images have the size of those of "
        "`spec.model`.",
    )
    steps: int = Field(ge=1, le=1000, description="Denoising steps of an image.")
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        allow_inf_nan=False,
        description="Classifier-free guidance scale of all its images, whatever a request names: a distilled "
        "model wants 1 or 0, guidance off, and takes half the time so. Absent: that of the request, else "
        "`spec.model.guidanceScale`.",
    )
    quality: Share = Field(
        default=0.88,
        gt=0,
        description="Assumed quality relative to `spec.model` in full. The default is what SDXL-Lightning "
        "reaches by the published figures; measure it on prompts of your own.",
    )

    _source = field_validator("source")(_claim)


class VariantSpec(ApiModel):
    """One way to make an image: the ladder of the service's model, or another model."""

    name: DnsLabel = Field(
        default="default",
        description="Name of the variant, a DNS label: a-z, 0-9 and `-`; each has one of its own.",
    )
    skipped_steps: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="The levels of `spec.model`: how many denoising steps K may be skipped, ascending, "
        "starting with 0 and each below `spec.model.steps`. Latents are cached at each of them.",
    )
    model: OtherModelSpec | None = Field(
        default=None, description="Another model in place of levels of `spec.model`."
    )

    @field_validator("skipped_steps")
    @classmethod
    def _ladder(cls, levels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if levels is None:
            return None
        if levels[0] != 0:
            raise fault("the first level is 0 (full generation)", levels)
        if list(levels) != sorted(set(levels)):
            raise fault("ascending, each level once", levels)
        return levels

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.skipped_steps is None) == (self.model is None):
            raise fault(
                "a variant has either skippedSteps (levels of spec.model) or model (another model)",
                self.name,
            )
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels K, ascending from 0; another model has only K = 0."""
        return self.skipped_steps or (0,)
