"""A plain batch sampler for evaluation: Euler steps with guidance, and resumption at step K.

Follows the diffusers pipeline step by step (same scheduler class, same conditioning), for many
prompts at once.
"""

from __future__ import annotations

from gesso import torchvision_shim  # noqa: F401  isort: skip
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gesso_worker.models.tiny import folders

STEPS: Final = 50
GUIDANCE: Final = 2.0


@dataclass
class Prompts:
    """What the denoiser reads of n prompts: context (n, 32, 128) and pooled (n, 64)."""

    context: torch.Tensor
    pooled: torch.Tensor

    def __getitem__(self, rows: Any) -> Prompts:
        return Prompts(self.context[rows], self.pooled[rows])

    def __len__(self) -> int:
        return len(self.context)


@dataclass
class Run:
    """Final latents (n, 16, 8, 8), and those kept *before* the asked-for steps."""

    latents: torch.Tensor
    kept: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass
class Parts:
    """The pipeline's models, to be called in batches."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection]
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]
    scheduler: EulerDiscreteScheduler

    @classmethod
    def load(cls, folder: Path | str = folders.SDXL) -> Parts:
        """Read the parts of a pipeline folder, in float32."""
        root, how = (
            Path(folder),
            {"variant": "fp16", "use_safetensors": True, "torch_dtype": torch.float32},
        )
        first = CLIPTextModel.from_pretrained(root, subfolder="text_encoder", **how)
        second = CLIPTextModelWithProjection.from_pretrained(
            root, subfolder="text_encoder_2", **how
        )
        parts = cls(
            unet=UNet2DConditionModel.from_pretrained(root, subfolder="unet", **how),
            vae=AutoencoderKL.from_pretrained(root, subfolder="vae", **how),
            encoders=(first, second),
            tokenizers=(
                CLIPTokenizer.from_pretrained(root, subfolder="tokenizer"),
                CLIPTokenizer.from_pretrained(root, subfolder="tokenizer_2"),
            ),
            scheduler=EulerDiscreteScheduler.from_pretrained(root, subfolder="scheduler"),
        )
        for model in (parts.unet, parts.vae, *parts.encoders):
            model.eval().requires_grad_(False)
        return parts

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Prompts:
        """Context and pooled output of the prompts, as the pipeline computes them."""
        hidden = []
        pooled = torch.zeros(0)
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            tokens = tokenizer(
                list(texts),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            out = encoder(tokens.input_ids, output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
            pooled = out[0]
        return Prompts(torch.cat(hidden, dim=-1), pooled)

    @torch.inference_mode()
    def denoise(
        self,
        prompts: Prompts,
        latents: torch.Tensor,
        *,
        skip: int = 0,
        keep: Collection[int] = (),
        steps: int = STEPS,
        guidance: float = GUIDANCE,
    ) -> Run:
        """Run steps ``skip`` to ``steps`` from latents (n, 16, 8, 8) that were kept before step ``skip``.

        ``keep`` names steps before which the latents are kept.
        """
        scheduler = EulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        scheduler.set_begin_index(skip)
        n, guided = len(prompts), guidance > 1
        context, pooled = prompts.context, prompts.pooled
        if guided:
            context = torch.cat([torch.zeros_like(context), context])
            pooled = torch.cat([torch.zeros_like(pooled), pooled])
        side = float(self.unet.config["sample_size"] * 8)
        ids = torch.tensor([[side, side, 0.0, 0.0, side, side]]).expand(len(context), -1)
        extra = {"text_embeds": pooled, "time_ids": ids}
        run = Run(latents)
        for i, t in enumerate(scheduler.timesteps[skip:], start=skip):
            if i in keep:
                run.kept[i] = run.latents
            x = torch.cat([run.latents] * 2) if guided else run.latents
            x = scheduler.scale_model_input(x, t)
            v = self.unet(x, t, context, added_cond_kwargs=extra, return_dict=False)[0]
            if guided:
                v = v[:n] + guidance * (v[n:] - v[:n])
            run.latents = scheduler.step(v, t, run.latents, return_dict=False)[0]
        return run

    def noise(self, seeds: Sequence[int], steps: int = STEPS) -> torch.Tensor:
        """Initial latents (n, 16, 8, 8) scaled for the schedule, one generator a seed."""
        shape = (1, self.unet.config["in_channels"], *[self.unet.config["sample_size"]] * 2)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        scheduler = EulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        return torch.cat(rows) * float(scheduler.init_noise_sigma)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Final latents as uint8 images (n, 64, 64, 3)."""
        scale = self.vae.config["scaling_factor"]
        parts = [self.vae.decode(z / scale, return_dict=False)[0] for z in torch.split(latents, 64)]
        x = (torch.cat(parts) / 2 + 0.5).clamp(0, 1) * 255
        return x.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
