"""Builds an SD-XL by diffusers' and transformers' stock classes, full-size or small, and saves it as a folder.

The full one has the configuration of stabilityai/stable-diffusion-xl-base-1.0: 2.57 billion parameters in the
UNet, 123 million and 695 million in the text encoders, 84 million in the VAE.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TOKENS: Final = 77
_VOCABULARY: Final = 49408

FULL: Final[dict[str, Any]] = {
    "unet": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {"block_out_channels": (128, 256, 512, 512), "sample_size": 1024},
    "text": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "text_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    },
}
#: The same blocks, narrow: runs anywhere, and says nothing about speed.
SMALL: Final[dict[str, Any]] = {
    "unet": {
        "sample_size": 8,
        "block_out_channels": (32, 32, 64),
        "attention_head_dim": (1, 1, 2),
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": 64,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 8 * 6 + 32,
    },
    "vae": {"block_out_channels": (32, 32, 32, 32), "sample_size": 64},
    "text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 32,
    },
    "text_2": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 32,
    },
}


def save(parts: dict[str, Any], folder: Path, dtype: torch.dtype) -> None:
    """Makes the model with random weights and saves it in diffusers' layout, as safetensors."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        pipeline = _pipeline(parts)
    finally:
        torch.set_default_dtype(before)
    pipeline.save_pretrained(folder, safe_serialization=True)


def _pipeline(parts: dict[str, Any]) -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        **parts["unet"],
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.13025,
        # Random weights do not overflow; decoding in float16 is what `spec.model.vae` is for.
        force_upcast=False,
        **parts["vae"],
    )
    # A token a character: prompts are padded to the full length either way.
    words = [*map(chr, range(33, 127)), *(chr(c) + "</w>" for c in range(33, 127))]
    vocabulary = {w: i for i, w in enumerate(words)}
    vocabulary |= {"<|startoftext|>": _VOCABULARY - 2, "<|endoftext|>": _VOCABULARY - 1}
    tokenizers = [
        CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS) for _ in range(2)
    ]
    texts = [
        CLIPTextConfig(
            vocab_size=_VOCABULARY,
            max_position_embeddings=TOKENS,
            hidden_act=act,
            bos_token_id=_VOCABULARY - 2,
            eos_token_id=_VOCABULARY - 1,
            pad_token_id=_VOCABULARY - 1,
            **parts[name],
        )
        for name, act in (("text", "quick_gelu"), ("text_2", "gelu"))
    ]
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(texts[0]),
        text_encoder_2=CLIPTextModelWithProjection(texts[1]),
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
