"""What the training stages share: the working folder, checkpoints, loops with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

DEFAULT_WORK: Final = Path("~/.cache/gesso/train")


@dataclass(frozen=True)
class Options:
    """Where a stage works and how long: ``steps`` overrides the stage's own number of steps."""

    work: Path
    steps: int | None = None
    seed: int = 0


def atomic_save(data: Any, path: Path) -> None:
    """``torch.save`` that a reader never sees half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    torch.save(data, aside)
    aside.replace(path)


def load(path: Path) -> Any:
    """Read back what :func:`atomic_save` wrote."""
    return torch.load(path, map_location="cpu", weights_only=True)


def batch_rng(seed: int, step: int) -> np.random.Generator:
    """Random numbers of one step: a resumed run draws what an uninterrupted one would have."""
    return np.random.default_rng((seed, step))


def cosine(step: int, steps: int, warmup: int = 100) -> float:
    """Learning rate factor: linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    at = (step - warmup) / max(1, steps - warmup)
    return float(0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(1.0, at))))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def loop(name: str, start: int, steps: int) -> Iterator[tuple[int, tqdm[Any]]]:
    """Step numbers with a progress bar."""
    with tqdm(total=steps, initial=start, desc=name, mininterval=5, maxinterval=30) as bar:
        for step in range(start, steps):
            yield step, bar
            bar.update()


def backward(loss: torch.Tensor) -> None:
    """Gradients of a loss."""
    loss.backward()  # type: ignore[no-untyped-call]


class Average:
    """Exponential moving average of parameters, with a decay that grows with the number of updates."""

    def __init__(self, params: Sequence[torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.params = list(params)
        self.shadow = [p.detach().clone() for p in params]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters' present values."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shadow, self.params, 1 - decay)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"updates": self.updates, "shadow": self.shadow}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.updates = state["updates"]
        for mine, theirs in zip(self.shadow, state["shadow"], strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def store(self) -> None:
        """Write the average into the parameters."""
        for p, shadow in zip(self.params, self.shadow, strict=True):
            p.copy_(shadow)
