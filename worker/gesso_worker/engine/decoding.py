"""Latents to pixels, by the VAE."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from gesso_worker.engine.model import Model


class BrokenLatentsError(Exception):
    """Latents or pixels that are not finite: the model or its number type is broken."""


@torch.inference_mode()
def decode_latents(model: Model, latents: Tensor) -> Image.Image:
    """The image of latents (1, C, H, W), as the stock pipeline decodes it. Raises BrokenLatentsError."""
    if not torch.isfinite(latents).all():
        raise BrokenLatentsError("the latents are not finite")
    vae = model.pipeline.vae
    latents = latents.to(vae.dtype)
    mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        latents = latents * latents.new_tensor(std).view(shape) / vae.config.scaling_factor
        latents = latents + latents.new_tensor(mean).view(shape)
    else:
        latents = latents / vae.config.scaling_factor
    pixels = vae.decode(latents, return_dict=False)[0]
    if not torch.isfinite(pixels).all():
        raise BrokenLatentsError("the decoded pixels are not finite")
    image: Image.Image = model.pipeline.image_processor.postprocess(pixels, output_type="pil")[0]
    return image
