"""Stage ``decoder``: the VAE's decoder alone, from the closed-form latents to pixels.

The latents get a little noise, so that the decoder forgives what the denoiser gets slightly wrong.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional

from gesso_worker.models.tiny import architecture
from gesso_worker.models.tiny.train import common, data

STEPS: Final = 3_000
BATCH: Final = 24
RATE: Final = 2e-3
NOISE: Final = 0.15


def initialise(model: AutoencoderKL) -> None:
    """Residual branches start at nothing and upsampling convolutions as the identity."""
    for name, module in model.decoder.named_modules():
        if isinstance(module, nn.Conv2d) and name.endswith("conv2"):
            nn.init.zeros_(module.weight)
        if isinstance(module, nn.Conv2d) and "upsamplers" in name:
            nn.init.dirac_(module.weight)
    nn.init.dirac_(model.post_quant_conv.weight)
    nn.init.zeros_(model.post_quant_conv.bias)


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels, along both axes."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def loss_of(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared, absolute and edge errors of images (n, 3, 64, 64) in -1..1."""
    edge = sum(functional.l1_loss(a, b) for a, b in zip(edges(out), edges(target), strict=True))
    return 3 * functional.mse_loss(out, target) + 0.5 * functional.l1_loss(out, target) + 0.3 * edge


def pixels(dataset: data.Dataset, rows: np.ndarray) -> torch.Tensor:
    """Images of the rows as (n, 3, 64, 64) in -1..1."""
    images = torch.from_numpy(dataset.images[rows].astype(np.float32))
    return images.permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def run(options: common.Options) -> None:
    """Train the decoder; the checkpoint holds the average of its weights as well."""
    torch.manual_seed(options.seed)
    dataset = data.load(options.work)
    latents = np.load(options.work / "data" / "latents.npy", mmap_mode="r")
    model = architecture.vae()
    initialise(model)
    parts = nn.ModuleList([model.post_quant_conv, model.decoder])
    optimizer = torch.optim.AdamW(
        parts.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    average = common.Average(list(parts.parameters()), 0.998)
    path = options.work / "decoder.pt"
    start, steps = 0, options.steps or STEPS
    if path.exists():
        state = common.load(path)
        parts.load_state_dict(state["parts"])
        optimizer.load_state_dict(state["optimizer"])
        average.restore(state["average"])
        start = state["step"]
    errors: list[float] = []
    for step, bar in common.loop("decoder", start, steps):
        rng = common.batch_rng(options.seed, step)
        rows = rng.integers(0, len(latents), BATCH)
        z = torch.from_numpy(latents[rows].astype(np.float32))
        amount = torch.from_numpy(rng.uniform(0, NOISE, (BATCH, 1, 1, 1)).astype(np.float32))
        z = z + amount * torch.from_numpy(rng.standard_normal(z.shape, dtype=np.float32))
        target = pixels(dataset, rows)
        with torch.autocast("cpu", torch.bfloat16):
            out = model.decode(z, return_dict=False)[0].float()
        loss = loss_of(out, target)
        optimizer.zero_grad()
        common.backward(loss)
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        common.set_rate(optimizer, RATE * common.cosine(step, steps))
        optimizer.step()
        average.update()
        errors.append(functional.mse_loss(out.detach(), target).item())
        if (step + 1) % 100 == 0:
            psnr = 10 * np.log10(4 / np.mean(errors[-100:]))
            bar.write(f"decoder {step + 1} psnr {psnr:.2f} dB")
        if (step + 1) % 250 == 0 or step == steps - 1:
            common.atomic_save(
                {
                    "parts": parts.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state(),
                    "step": step + 1,
                },
                path,
            )


def load_into(model: AutoencoderKL, options: common.Options) -> None:
    """Put the averaged decoder of the latest checkpoint into a VAE."""
    parts = nn.ModuleList([model.post_quant_conv, model.decoder])
    average = common.Average(list(parts.parameters()), 0.998)
    average.restore(common.load(options.work / "decoder.pt")["average"])
    average.store()
