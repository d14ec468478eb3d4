"""Loads an SD-XL with diffusers' stock classes and says exactly why it cannot."""

from __future__ import annotations

from gesso import torchvision_shim  # noqa: F401  isort: skip
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import huggingface_hub
import torch
import transformers
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from gesso.builtin import builtin_path, is_builtin
from gesso_worker.engine.acceleration import Acceleration, accelerate
from gesso_worker.engine.schedule import Trajectory, make_scheduler

_CLASS: Final = "StableDiffusionXLPipeline"
_PARTS: Final = ("unet", "vae", "text_encoder", "text_encoder_2")
_TOKENIZERS: Final = ("tokenizer", "tokenizer_2")
_VARIANT: Final = "fp16"
_DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")


class ModelLoadError(Exception):
    """The model cannot be served; the message is one line that names the source and the reason."""


@dataclass(frozen=True)
class ModelSettings:
    """What of a DiffusionService makes the model: see `gesso.api.ModelSpec`."""

    source: str
    steps: int
    width: int
    height: int
    guidance_scale: float
    scheduler: str = "Euler"
    dtype: str = "float32"
    #: Another VAE, as a source; empty: the model's own.
    vae: str = ""
    compile: bool = False


@dataclass(frozen=True)
class Model:
    """A loaded SD-XL. Components may run in several threads, each component in one at a time."""

    settings: ModelSettings
    pipeline: Any
    scheduler: Any
    device: torch.device
    dtype: torch.dtype
    weights_digest: str
    time_ids: Tensor

    @property
    def unet(self) -> Any:
        """The UNet2DConditionModel."""
        return self.pipeline.unet

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(1, channels, height, width) of one request's latents."""
        factor = self.pipeline.vae_scale_factor
        height, width = self.settings.height // factor, self.settings.width // factor
        return (1, int(self.unet.config.in_channels), height, width)

    def shape_of(self, width: int = 0, height: int = 0) -> tuple[int, int, int, int]:
        """That of the latents of an image of so many pixels; 0 stands for the model's own size."""
        _, channels, rows, columns = self.latent_shape
        factor = self.pipeline.vae_scale_factor
        return (1, channels, height // factor or rows, width // factor or columns)

    @property
    def pixel_step(self) -> int:
        """What width and height of an image are multiples of: the VAE's factor."""
        factor: int = self.pipeline.vae_scale_factor
        return factor

    @property
    def least_side(self) -> int:
        """Pixels of the shortest side: the UNet's deepest blocks have one latent left of it."""
        halvings: int = len(self.unet.config.down_block_types) - 1
        return self.pixel_step << halvings

    def size_conditioning(self, width: int = 0, height: int = 0) -> Tensor:
        """SD-XL's size conditioning (1, 6) of an image of so many pixels; 0 stands for the model's own size."""
        width, height = width or self.settings.width, height or self.settings.height
        if (width, height) == (self.settings.width, self.settings.height):
            return self.time_ids
        return _time_ids(self.pipeline, width, height, self.dtype).to(self.device)

    @property
    def device_name(self) -> str:
        """The device as profiles name it: `cpu`, or the GPU's name."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def scheduler_named(self, name: str = "") -> Any:
        """A scheduler on the model's own noise schedule: one of SCHEDULERS; empty: the model's own."""
        if name in ("", self.settings.scheduler):
            return self.scheduler
        return make_scheduler(name, dict(self.pipeline.scheduler.config))

    def trajectory(self, skipped_steps: int = 0, scheduler: str = "") -> Trajectory:
        """A new run from step K, with a scheduler of its own of the named kind; empty: the model's."""
        return Trajectory(self.scheduler_named(scheduler), self.settings.steps, skipped_steps)

    def noise(
        self, seed: int, trajectory: Trajectory, shape: tuple[int, int, int, int] | None = None
    ) -> Tensor:
        """The latent before step 0, from a CPU generator, so that a seed means the same on every device."""
        generator = torch.Generator("cpu").manual_seed(seed)
        wanted = shape or self.latent_shape
        noise = randn_tensor(wanted, generator, device=self.device, dtype=self.dtype)
        return torch.as_tensor(noise) * trajectory.init_noise_sigma


def find_weights(source: str, vae: str = "") -> tuple[Path, ...]:
    """The weights files of a model, and of its VAE if that is another. What the hub has of them is downloaded:
    loading takes no network afterwards. Raises ModelLoadError.
    """
    folder = _folder(source)
    files = _weights(folder, _check_folder(source, folder))
    if not vae:
        return files
    others = tuple(sorted(_check_vae(vae).glob("*.safetensors")))
    return (*(f for f in files if f.parent.name != "vae"), *others)


def load_model(settings: ModelSettings, device: str | None = None) -> Model:
    """Loads from a `builtin://` source, a folder in diffusers' layout or a hub id; safetensors only.

    `device` defaults to CUDA where there is one. On a CPU the weights are float32, whatever the settings say.
    Raises ModelLoadError for a source that is missing, is not an SD-XL, or has torn weights.
    """
    # diffusers logs the prompt's cut-off text as a warning: prompts stay out of the logs.
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = _DTYPES[settings.dtype] if target.type == "cuda" else torch.float32
    folder = _folder(settings.source)
    variant = _check_folder(settings.source, folder)
    other_vae = _check_vae(settings.vae) if settings.vae else None
    try:
        parts = {}
        if other_vae is not None:
            parts["vae"] = diffusers.AutoencoderKL.from_pretrained(
                other_vae, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(
            folder,
            variant=variant,
            dtype=dtype,
            use_safetensors=True,
            add_watermarker=False,
            local_files_only=True,
            **parts,
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(target)
        for part in _PARTS:
            getattr(pipeline, part).requires_grad_(False).eval()
        if pipeline.vae.dtype == torch.float16 and pipeline.vae.config.force_upcast:
            pipeline.vae.to(torch.float32)  # SD-XL's VAE overflows in float16
        accelerate(pipeline, Acceleration.of(target, settings.compile))
        scheduler = make_scheduler(settings.scheduler, dict(pipeline.scheduler.config))
        Trajectory(scheduler, settings.steps)
        time_ids = _time_ids(pipeline, settings.width, settings.height, dtype).to(target)
    except torch.OutOfMemoryError as error:
        raise _refused(settings.source, f"it does not fit into memory: {_line(error)}") from error
    except Exception as error:  # whatever a torn file makes the readers of five libraries raise
        raise _refused(settings.source, _line(error)) from error
    factor = pipeline.vae_scale_factor
    for field, value in (("width", settings.width), ("height", settings.height)):
        if value % factor:
            message = f"spec.model.{field}: {value} is not allowed: a multiple of {factor}"
            raise ModelLoadError(message)
    digest = _digest(folder, variant)
    return Model(settings, pipeline, scheduler, target, dtype, digest, time_ids)


def _time_ids(pipeline: Any, width: int, height: int, dtype: torch.dtype) -> Tensor:
    """By diffusers' own method, so that its conventions hold whatever its version."""
    size = (height, width)
    projection = pipeline.text_encoder_2.config.projection_dim
    made = pipeline._get_add_time_ids(
        size, (0, 0), size, dtype=dtype, text_encoder_projection_dim=projection
    )
    return torch.as_tensor(made)


def _folder(source: str) -> Path:
    if is_builtin(source):
        try:
            return builtin_path(source)
        except ValueError as error:
            raise _refused(source, _line(error)) from None
    folder = Path(source).expanduser()
    if folder.exists() or not _HUB_ID.fullmatch(source):
        return folder
    for variant in (_VARIANT, None):
        try:
            path = diffusers.DiffusionPipeline.download(
                source, variant=variant, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            if variant is None:
                reason = f"no such folder, and the hub gives: {_line(error)}"
                raise _refused(source, reason) from error
        else:
            return Path(path)
    raise AssertionError("unreachable")


def _check_vae(source: str) -> Path:
    """The folder of a VAE of its own. Raises ModelLoadError unless it holds one in safetensors."""
    folder = Path(source).expanduser()
    if not folder.exists() and _HUB_ID.fullmatch(source):
        try:
            files = ["config.json", "*.safetensors"]
            folder = Path(huggingface_hub.snapshot_download(source, allow_patterns=files))
        except (OSError, ValueError) as error:
            reason = f"no such folder, and the hub gives: {_line(error)}"
            raise _refused(source, reason, "vae") from error
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(source, f"config.json cannot be read: {_line(error)}", "vae") from None
    if name != "AutoencoderKL":
        raise _refused(source, f"config.json says {name!r}: AutoencoderKL is needed", "vae")
    if not any(folder.glob("*.safetensors")):
        raise _refused(source, "no safetensors file in it", "vae")
    return folder


def _check_folder(source: str, folder: Path) -> str | None:
    """The weights' variant to load. Raises ModelLoadError unless the folder holds an SD-XL in safetensors."""
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise _refused(source, "no such folder")
    try:
        name = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except FileNotFoundError:
        raise _refused(
            source, "no model_index.json: a folder in diffusers' layout is needed"
        ) from None
    except (OSError, ValueError, AttributeError) as error:
        raise _refused(source, f"model_index.json cannot be read: {_line(error)}") from None
    if name != _CLASS:
        raise _refused(source, f"model_index.json says {name!r}: {_CLASS} is needed")
    for part in _PARTS:
        if not any((folder / part).glob("*.safetensors")):
            raise _refused(source, f"no safetensors file in {part}/")
    for part in _TOKENIZERS:
        if not any((folder / part).glob("*.json")):
            raise _refused(source, f"no tokenizer in {part}/")
    has_variant = all(any((folder / part).glob(f"*.{_VARIANT}*.safetensors")) for part in _PARTS)
    return _VARIANT if has_variant else None


def _weights(folder: Path, variant: str | None) -> tuple[Path, ...]:
    """The weights files of a folder that are loaded."""
    return tuple(
        file
        for part in _PARTS
        for file in sorted((folder / part).glob("*.safetensors"))
        if (f".{_VARIANT}" in file.name) == (variant is not None)
    )


def _digest(folder: Path, variant: str | None) -> str:
    """SHA-256 over the weights files that were loaded, with their names."""
    total = hashlib.sha256()
    for file in _weights(folder, variant):
        with file.open("rb") as stream:
            total.update(f"{file.parent.name}/{file.name}".encode())
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _refused(source: str, reason: str, field: str = "source") -> ModelLoadError:
    return ModelLoadError(f"spec.model.{field}: {source!r} cannot be loaded: {reason}")


def _line(error: BaseException) -> str:
    """What an error says, and what lies at its root, on one line."""
    root = error
    while (cause := root.__cause__ or root.__context__) is not None:
        root = cause
    told = [error] if root is error else [error, root]
    return "; ".join(_short(" ".join(str(e).split()) or type(e).__name__) for e in told)


def _short(text: str, longest: int = 250) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
