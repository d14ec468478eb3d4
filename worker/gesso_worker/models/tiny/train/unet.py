"""Stage ``unet``: the denoiser, by velocity prediction on the closed-form latents.

Runs in bfloat16 autocast, compiled, with plain attention: on a CPU the backward pass of fused
attention takes half the time of a step in bfloat16. The learning rate is constant, then falls
linearly over the last quarter, so a run can be made longer or shorter (``--steps``) while it is on
its way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from gesso_worker.models.tiny import architecture
from gesso_worker.models.tiny.train import common, optim

STEPS: Final = 5_500
BATCH: Final = 96
RATE: Final = 2e-3
WARMUP: Final = 200
COOLDOWN: Final = 0.25
DROPPED: Final = 0.1
EVERY: Final = 500


class PlainAttention:
    """Attention by two batched products, for diffusers' ``Attention``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states (batch, positions, width) attend to the context or to themselves."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.reshape(*x.shape[:2], attn.heads, -1).transpose(1, 2)

        q = heads(attn.to_q(hidden_states) * attn.scale)
        k, v = heads(attn.to_k(context)), heads(attn.to_v(context))
        weights = torch.softmax((q @ k.transpose(-1, -2)).float(), -1).to(v.dtype)
        out = (weights @ v).transpose(1, 2).flatten(2)
        result: torch.Tensor = attn.to_out[0](out)
        return result


def schedule() -> tuple[torch.Tensor, torch.Tensor]:
    """Signal and noise factors by timestep, each of shape (1000,)."""
    alphas = architecture.scheduler().alphas_cumprod
    return alphas.sqrt(), (1 - alphas).sqrt()


class Batches:
    """Random batches of latents with their captions' context."""

    def __init__(self, work: Path, seed: int, size: int = BATCH) -> None:
        folder = work / "data"
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        self.context = np.load(folder / "context.npy", mmap_mode="r")
        self.pooled = np.load(folder / "pooled.npy", mmap_mode="r")
        self.wordings = len(self.context) // len(self.latents)
        self.seed, self.size = seed, size

    def __call__(self, step: int) -> tuple[torch.Tensor, ...]:
        """Latents, context, pooled, timesteps (stratified) and noise of one step."""
        rng = common.batch_rng(self.seed, step)
        rows = rng.integers(0, len(self.latents), self.size)
        texts = rows * self.wordings + rng.integers(0, self.wordings, self.size)
        kept = rng.random(self.size) >= DROPPED
        x = torch.from_numpy(self.latents[rows].astype(np.float32))
        context = torch.from_numpy(self.context[texts].astype(np.float32) * kept[:, None, None])
        pooled = torch.from_numpy(self.pooled[texts].astype(np.float32) * kept[:, None])
        strata = (np.arange(self.size) + rng.random(self.size)) / self.size
        t = torch.from_numpy((strata * 1000).astype(np.int64).clip(0, 999))
        noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
        return x, context.float(), pooled.float(), t, noise


def factor(step: int, steps: int) -> float:
    """Learning rate factor: warm-up, constant, then linearly to nothing."""
    left = (steps - step) / (COOLDOWN * steps)
    return min(1.0, (step + 1) / WARMUP, max(0.0, left))


def run(options: common.Options, compiled: bool = True, muon: bool = True) -> None:
    """Train the denoiser; the checkpoint holds the weights, their average and the optimizers."""
    torch.manual_seed(options.seed)
    model = architecture.unet()
    model.set_attn_processor(PlainAttention())
    optimizers = optim.build(model, RATE, muon)
    average = common.Average(list(model.parameters()), 0.9995)
    batches = Batches(options.work, options.seed)
    signal, sigma = schedule()
    ids = torch.tensor([architecture.TIME_IDS] * BATCH)

    def loss_of(
        x: torch.Tensor,
        context: torch.Tensor,
        pooled: torch.Tensor,
        t: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        a, s = signal[t].view(-1, 1, 1, 1), sigma[t].view(-1, 1, 1, 1)
        extra = {"text_embeds": pooled, "time_ids": ids}
        with torch.autocast("cpu", torch.bfloat16):
            v = model(a * x + s * noise, t, context, added_cond_kwargs=extra).sample
        error: torch.Tensor = v.float() - (a * noise - s * x)
        return error.square().mean()

    call = torch.compile(loss_of) if compiled else loss_of
    path = options.work / "unet.pt"
    start, steps = 0, options.steps or STEPS
    if path.exists():
        state = common.load(path)
        model.load_state_dict(state["model"])
        average.restore(state["average"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        start = state["step"]
    recent: list[float] = []
    for step, bar in common.loop("unet", start, steps):
        loss = call(*batches(step))
        common.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            common.set_rate(optimizer, RATE * factor(step, steps))
            optimizer.step()
            optimizer.zero_grad()
        average.update()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            bar.write(f"unet {step + 1} loss {np.mean(recent[-100:]):.4f}")
        if (step + 1) % EVERY == 0 or step == steps - 1:
            common.atomic_save(
                {
                    "model": model.state_dict(),
                    "average": average.state(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "step": step + 1,
                },
                path,
            )


def load(work: Path) -> UNet2DConditionModel:
    """The averaged denoiser of the latest checkpoint, with stock attention."""
    model = architecture.unet()
    average = common.Average(list(model.parameters()), 0.9995)
    average.restore(common.load(work / "unet.pt")["average"])
    average.store()
    return model.eval().requires_grad_(False)
