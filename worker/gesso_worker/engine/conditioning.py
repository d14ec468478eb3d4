"""A prompt as the UNet sees it: both text encoders' embeddings, the pooled one, SD-XL's size conditioning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gesso_worker.engine.model import Model


@dataclass(frozen=True, slots=True)
class Conditioning:
    """`embeds` (1, T, D), `pooled` (1, P), `time_ids` (1, 6) of one request; negatives if it is guided."""

    embeds: Tensor
    pooled: Tensor
    time_ids: Tensor
    negative_embeds: Tensor | None = None
    negative_pooled: Tensor | None = None


@torch.inference_mode()
def encode_prompt(
    model: Model,
    prompt: str,
    negative_prompt: str = "",
    guidance_scale: float = 1.0,
    width: int = 0,
    height: int = 0,
) -> Conditioning:
    """Runs both text encoders, as the stock pipeline does.

    An empty negative prompt is none: zeros where the model says `force_zeros_for_empty_prompt`, else the
    encoding of "". A `width` or `height` of 0 is the model's own. Prompts longer than the text encoders'
    context are cut there. One thread at a time.
    """
    embeds, negative, pooled, negative_pooled = model.pipeline.encode_prompt(
        prompt=prompt,
        negative_prompt=negative_prompt or None,
        device=model.device,
        do_classifier_free_guidance=guidance_scale > 1,
    )
    return Conditioning(
        embeds, pooled, model.size_conditioning(width, height), negative, negative_pooled
    )
