"""Stage ``text``: both text encoders, trained by attribute probes and then frozen.

The probes ask what the denoiser will want to know: the value of every attribute, and what stands at
each anchor of a 3x3 grid. They read the hidden states by cross-attention with learned queries, just
as the denoiser does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from gesso_worker.models.tiny import architecture, scenes
from gesso_worker.models.tiny.train import common, data

STEPS: Final = 1200
BATCH: Final = 160
RATE: Final = 2e-3
SIZES: Final = tuple(len(v) + 1 for v in scenes.SLOTS.values())
CELL_SIZES: Final = (len(scenes.SHAPES) + 1, len(scenes.COLOURS) + 1)
IGNORED: Final = -100


class Probes(nn.Module):
    """Heads on hidden states (batch, 32, 128) and on the pooled output (batch, 64)."""

    def __init__(self) -> None:
        super().__init__()
        width = architecture.TEXT_WIDTH
        self.queries = nn.Parameter(torch.randn(len(SIZES) + 9, width) * 0.3)
        self.attention = nn.MultiheadAttention(
            width, 4, kdim=2 * width, vdim=2 * width, batch_first=True
        )
        self.slots = nn.ModuleList(nn.Linear(width, n) for n in SIZES)
        self.cells = nn.ModuleList(nn.Linear(width, n) for n in CELL_SIZES)
        self.pooled = nn.ModuleList(nn.Linear(width, n) for n in SIZES)

    def forward(self, hidden: torch.Tensor, pooled: torch.Tensor) -> list[torch.Tensor]:
        """Logits: 11 slots from hidden states, 11 from pooled, then shape and colour of 9 cells."""
        queries = self.queries.expand(len(hidden), -1, -1)
        read = self.attention(queries, hidden, hidden, need_weights=False)[0]
        n = len(SIZES)
        out = [head(read[:, i]) for i, head in enumerate(self.slots)]
        out += [head(pooled) for head in self.pooled]
        out += [head(read[:, n:]).transpose(1, 2) for head in self.cells]
        return out


def encode(
    encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection], tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What SD-XL's pipeline hands to the denoiser: context (batch, 32, 128) and pooled (batch, 64).

    ``tokens`` are padded with 0.
    """
    first = encoders[0](data.first_pad(tokens), output_hidden_states=True)
    second = encoders[1](tokens, output_hidden_states=True)
    hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return hidden, second.text_embeds


def targets(dataset: data.Dataset, rows: np.ndarray) -> list[torch.Tensor]:
    """Targets in the order of :class:`Probes`: an unstated slot is a class of its own."""
    labels, stated = dataset.labels[rows].astype(np.int64), dataset.stated[rows]
    slots = [
        torch.from_numpy(np.where(stated[:, i], labels[:, i], SIZES[i] - 1))
        for i in range(len(SIZES))
    ]
    cells = dataset.cells[rows].astype(np.int64)
    shapes, colours = labels[:, [0, 4]], labels[:, [1, 5]]
    known = stated[:, data.SLOT_NAMES.index("layout")][:, None]
    out = []
    for of_things in (shapes, colours):
        which = np.take_along_axis(of_things, np.maximum(cells - 1, 0), axis=1)
        out.append(torch.from_numpy(np.where(known, np.where(cells > 0, which + 1, 0), IGNORED)))
    return slots + slots + out


def run(options: common.Options) -> None:
    """Train the encoders, then keep what they make of every caption."""
    dataset = data.load(options.work)
    path = options.work / "text.pt"
    torch.manual_seed(options.seed)
    encoders, probes = architecture.text_encoders(), Probes()
    modules = nn.ModuleList([*encoders, probes])
    optimizer = torch.optim.AdamW(modules.parameters(), RATE, weight_decay=0.01)
    start, steps = 0, options.steps or STEPS
    if path.exists():
        state = common.load(path)
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    for step, bar in common.loop("text", start, steps):
        rng = common.batch_rng(options.seed, step)
        rows = rng.integers(0, len(dataset.tokens), BATCH)
        tokens = dataset.tokens[rows, rng.integers(0, data.WORDINGS, BATCH)].astype(np.int64)
        logits = probes(*encode(encoders, torch.from_numpy(tokens)))
        wanted = targets(dataset, rows)
        loss = torch.stack(
            [
                functional.cross_entropy(a, b, ignore_index=IGNORED)
                for a, b in zip(logits, wanted, strict=True)
            ]
        ).sum()
        optimizer.zero_grad()
        common.backward(loss)
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        common.set_rate(optimizer, RATE * common.cosine(step, steps))
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            right = [
                (a.argmax(1) == b)[b != IGNORED].float().mean().item()
                for a, b in zip(logits, wanted, strict=True)
            ]
            n = len(SIZES)
            parts = (right[:n], right[n : 2 * n], right[2 * n :])
            shown = "  ".join(
                f"{name} {min(p):.3f}"
                for name, p in zip(("hidden", "pooled", "cells"), parts, strict=True)
            )
            bar.write(f"text {step} loss {loss.item():.3f}  worst: {shown}")
        if (step + 1) % 500 == 0 or step == steps - 1:
            common.atomic_save(
                {
                    "modules": modules.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
                path,
            )
    embed(options, dataset)


def load_encoders(work: Path) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The trained encoders, frozen."""
    encoders = architecture.text_encoders()
    modules = nn.ModuleList([*encoders, Probes()])
    modules.load_state_dict(common.load(work / "text.pt")["modules"])
    return encoders[0].eval().requires_grad_(False), encoders[1].eval().requires_grad_(False)


@torch.inference_mode()
def embed(options: common.Options, dataset: data.Dataset) -> None:
    """Context and pooled output of every caption, as float16 arrays on disk."""
    encoders = load_encoders(options.work)
    tokens = dataset.tokens.reshape(-1, dataset.tokens.shape[-1])
    folder = options.work / "data"
    hidden = np.lib.format.open_memmap(
        folder / "context.npy",
        mode="w+",
        dtype=np.float16,
        shape=(*tokens.shape, architecture.CONTEXT_WIDTH),
    )
    pooled = np.zeros((len(tokens), architecture.TEXT_WIDTH), np.float16)
    size = 500
    for step, _ in common.loop("embed", 0, -(-len(tokens) // size)):
        part = slice(step * size, (step + 1) * size)
        a, b = encode(encoders, torch.from_numpy(tokens[part].astype(np.int64)))
        hidden[part], pooled[part] = a.numpy(), b.numpy()
    hidden.flush()
    np.save(folder / "pooled.npy", pooled)
