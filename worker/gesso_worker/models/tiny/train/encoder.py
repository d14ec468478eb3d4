"""Stage ``encoder``: the VAE's encoder, regressed to the closed-form latents.

Trained apart from the decoder, since training both together takes far longer to reach the same
images.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from gesso_worker.models.tiny import architecture
from gesso_worker.models.tiny.train import common, data, decoder

STEPS: Final = 700
BATCH: Final = 32
RATE: Final = 2e-3
#: Log variance of the encoder's output: the latents are as good as certain.
LOG_VARIANCE: Final = -12.0


def _parts(model: AutoencoderKL) -> nn.ModuleList:
    return nn.ModuleList([model.encoder, model.quant_conv])


def run(options: common.Options) -> None:
    """Train the encoder."""
    torch.manual_seed(options.seed)
    dataset = data.load(options.work)
    latents = np.load(options.work / "data" / "latents.npy", mmap_mode="r")
    model = architecture.vae()
    channels = architecture.LATENT_CHANNELS
    with torch.no_grad():
        nn.init.dirac_(model.quant_conv.weight)
        model.quant_conv.weight[channels:] = 0
        model.quant_conv.bias[:channels] = 0
        model.quant_conv.bias[channels:] = LOG_VARIANCE
    parts = _parts(model)
    optimizer = torch.optim.AdamW(parts.parameters(), RATE, betas=(0.9, 0.99), fused=True)
    path = options.work / "encoder.pt"
    start, steps = 0, options.steps or STEPS
    if path.exists():
        state = common.load(path)
        parts.load_state_dict(state["parts"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    for step, bar in common.loop("encoder", start, steps):
        rows = common.batch_rng(options.seed, step).integers(0, len(latents), BATCH)
        target = torch.from_numpy(latents[rows].astype(np.float32))
        with torch.autocast("cpu", torch.bfloat16):
            moments = model.quant_conv(model.encoder(decoder.pixels(dataset, rows))).float()
        mean, log_variance = moments.chunk(2, dim=1)
        loss = (mean - target).square().mean() + 0.01 * (
            log_variance - LOG_VARIANCE
        ).square().mean()
        optimizer.zero_grad()
        common.backward(loss)
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        common.set_rate(optimizer, RATE * common.cosine(step, steps))
        optimizer.step()
        if (step + 1) % 100 == 0:
            bar.write(f"encoder {step + 1} loss {loss.item():.4f}")
        if (step + 1) % 250 == 0 or step == steps - 1:
            common.atomic_save(
                {
                    "parts": parts.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
                path,
            )


def load_into(model: AutoencoderKL, options: common.Options) -> None:
    """Put the encoder of the latest checkpoint into a VAE."""
    _parts(model).load_state_dict(common.load(options.work / "encoder.pt")["parts"])
