"""Shapes of the tiny SD-XL's parts: stock classes of diffusers and transformers, small configurations."""

from __future__ import annotations

from gesso import torchvision_shim  # noqa: F401  isort: skip
from typing import Any, Final

from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from gesso_worker.models.tiny import tokenizer

#: Pixels of an image's side; the VAE divides it by 8.
IMAGE_SIDE: Final = 64
LATENT_SIDE: Final = 8
LATENT_CHANNELS: Final = 16
TEXT_WIDTH: Final = 64
#: Two encoders side by side.
CONTEXT_WIDTH: Final = 2 * TEXT_WIDTH
#: original size, crop, target size: SD-XL's micro-conditioning, here always the same.
TIME_IDS: Final = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)
#: Weaker noise than SD-XL's own (0.00085, 0.012): so small a picture is else decided within a few steps.
SCHEDULE: Final[dict[str, Any]] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0003,
    "beta_end": 0.0072,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
#: The turbo's steps; they start at pure noise, as few steps must.
TURBO_STEPS: Final = 4
TURBO_SCHEDULE: Final[dict[str, Any]] = {
    **SCHEDULE,
    "timestep_spacing": "trailing",
    "steps_offset": 0,
}


def text_config(first: bool) -> CLIPTextConfig:
    """Configuration of the first or of the second text encoder."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer.VOCABULARY),
        hidden_size=TEXT_WIDTH,
        intermediate_size=3 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.POSITIONS,
        projection_dim=TEXT_WIDTH,
        hidden_act="quick_gelu" if first else "gelu",
        bos_token_id=tokenizer.BOS,
        eos_token_id=tokenizer.EOS,
        pad_token_id=tokenizer.PAD_1 if first else tokenizer.PAD_2,
    )


def text_encoders() -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two text encoders with fresh weights."""
    return CLIPTextModel(text_config(True)), CLIPTextModelWithProjection(text_config(False))


def unet() -> UNet2DConditionModel:
    """The denoiser with fresh weights: SD-XL's text-time conditioning on 8x8 latents."""
    channels = (64, 128)
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        transformer_layers_per_block=(1, 1),
        attention_head_dim=tuple(width // 32 for width in channels),
        cross_attention_dim=CONTEXT_WIDTH,
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 16,
    )


def vae() -> AutoencoderKL:
    """The autoencoder with fresh weights: 64x64x3 to 8x8x16 and back."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=IMAGE_SIDE,
        scaling_factor=1.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )


def scheduler() -> EulerDiscreteScheduler:
    """The scheduler that the pipeline is exported with."""
    return EulerDiscreteScheduler(**SCHEDULE)
