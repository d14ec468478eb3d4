"""Stage ``checker``: the attribute checker, on rendered scenes, noisy, blurred and pale."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch.nn import functional

from gesso_worker.models.tiny.checker import SLOT_NAMES, CheckerNet
from gesso_worker.models.tiny.train import common, data, decoder

STEPS: Final = 1_200
BATCH: Final = 128
RATE: Final = 2e-3


def augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Images (n, 3, 64, 64) as a decoder might have made them: a little blurred, noisy, pale."""
    n = len(x)

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, 1, 1, 1)).astype(np.float32))

    mix = draw(-0.5, 1).clamp(min=0)
    x = (
        x * (1 - mix)
        + functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) * mix
    )
    x = x * draw(0.9, 1.08) + draw(-0.06, 0.06)
    noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    return (x + draw(-0.05, 0.12).clamp(min=0) * noise).clamp(-1, 1)


def run(options: common.Options) -> None:
    """Train the checker; the checkpoint holds the averaged weights."""
    torch.manual_seed(options.seed)
    dataset = data.load(options.work)
    net = CheckerNet()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.02, fused=True)
    average = common.Average(list(net.parameters()), 0.995)
    path = options.work / "checker.pt"
    start, steps = 0, options.steps or STEPS
    if path.exists():
        state = common.load(path)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        average.restore(state["average"])
        start = state["step"]
    for step, bar in common.loop("checker", start, steps):
        rng = common.batch_rng(options.seed, step)
        rows = rng.integers(0, len(dataset.images), BATCH)
        labels = torch.from_numpy(dataset.labels[rows].astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(augment(decoder.pixels(dataset, rows), rng))
        losses = [
            functional.cross_entropy(logits[name].float(), labels[:, i], ignore_index=-1)
            for i, name in enumerate(SLOT_NAMES)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        common.backward(loss)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        common.set_rate(optimizer, RATE * common.cosine(step, steps))
        optimizer.step()
        average.update()
        if (step + 1) % 100 == 0:
            right = {
                name: (logits[name].argmax(1) == labels[:, i])[labels[:, i] >= 0]
                .float()
                .mean()
                .item()
                for i, name in enumerate(SLOT_NAMES)
            }
            worst = min(right, key=lambda name: right[name])
            bar.write(f"checker {step + 1} loss {loss.item():.3f} worst {worst} {right[worst]:.3f}")
        if (step + 1) % 200 == 0 or step == steps - 1:
            common.atomic_save(
                {
                    "net": net.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state(),
                    "step": step + 1,
                },
                path,
            )


def load(options: common.Options) -> CheckerNet:
    """The averaged checker of the latest checkpoint."""
    net = CheckerNet()
    average = common.Average(list(net.parameters()), 0.995)
    average.restore(common.load(options.work / "checker.pt")["average"])
    average.store()
    return net
