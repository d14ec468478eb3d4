"""Stage ``clip``: the tiny open_clip model, on scenes rendered as training goes.

A batch holds groups of scenes that differ in one attribute, as hard negatives, so that the model
must see layout and size, not colours alone. Attribute heads on both towers, dropped afterwards,
make it learn many times faster.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from gesso_worker.models.tiny import captions, clip_model, renderer, scenes, tokenizer
from gesso_worker.models.tiny.train import common, data, text
from gesso_worker.models.tiny.train.checker import augment

STEPS: Final = 1_200
GROUPS: Final = 36
GROUP: Final = 4
RATE: Final = 1e-3


def group(rng: np.random.Generator) -> list[scenes.Scene]:
    """A scene and variants that each differ from it in one attribute; none of them held out."""
    out = [scenes.sample_scene(rng, held_out=False)]
    while len(out) < GROUP:
        other = scenes.mutate(out[0], rng)
        if not scenes.is_held_out(other):
            out.append(other)
    return out


def batch(
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised images (n, 3, 64, 64), tokens (n, 32), labels (n, 11; -1 none) and labels of the caption."""
    drawn = [scene for _ in range(GROUPS) for scene in group(rng)]
    images = np.stack([renderer.render(scene, rng) for scene in drawn])
    tokens = torch.tensor([tokenizer.encode(captions.caption(scene, rng)) for scene in drawn])
    both = [data.labels_of(scene) for scene in drawn]
    labels = torch.tensor([labels for labels, _ in both])
    stated = torch.tensor([stated for _, stated in both])
    none = torch.tensor(text.SIZES) - 1
    pixels = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    return (
        clip_model.normalise(augment(pixels, rng)),
        tokens,
        labels,
        torch.where(stated, labels, none),
    )


def run(options: common.Options) -> None:
    """Train the model; the checkpoint holds the averaged weights."""
    torch.manual_seed(options.seed)
    model = clip_model.fresh()
    width = clip_model.CONFIG["embed_dim"]
    of_image = nn.ModuleList(nn.Linear(width, n - 1) for n in text.SIZES)
    of_text = nn.ModuleList(nn.Linear(width, n) for n in text.SIZES)
    everything = nn.ModuleList([model, of_image, of_text])
    optimizer = torch.optim.AdamW(
        everything.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    average = common.Average(list(model.parameters()), 0.995)
    path = options.work / "clip.pt"
    start, steps = 0, options.steps or STEPS
    if path.exists():
        state = common.load(path)
        everything.load_state_dict(state["everything"])
        optimizer.load_state_dict(state["optimizer"])
        average.restore(state["average"])
        start = state["step"]
    for step, bar in common.loop("clip", start, steps):
        pixels, tokens, labels, told = batch(common.batch_rng(options.seed, step))
        # Fused attention's backward pass is many times slower in bfloat16 on a CPU.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
            images, texts = model.encode_image(pixels).float(), model.encode_text(tokens).float()
        scale = model.logit_scale.exp().clamp(max=100)
        logits = (
            scale * functional.normalize(images, dim=-1) @ functional.normalize(texts, dim=-1).T
        )
        same = torch.arange(len(logits))
        contrast = functional.cross_entropy(logits, same) + functional.cross_entropy(logits.T, same)
        extra = torch.stack(
            [
                functional.cross_entropy(head(images), labels[:, i], ignore_index=-1)
                for i, head in enumerate(of_image)
            ]
            + [functional.cross_entropy(head(texts), told[:, i]) for i, head in enumerate(of_text)]
        ).sum()
        # The heads lead at first; in the end only the contrast counts.
        loss = contrast + 0.3 * max(0.1, 1 - step / (0.8 * steps)) * extra
        optimizer.zero_grad()
        common.backward(loss)
        nn.utils.clip_grad_norm_(everything.parameters(), 1.0)
        common.set_rate(optimizer, RATE * common.cosine(step, steps))
        optimizer.step()
        average.update()
        if (step + 1) % 50 == 0:
            right = (logits.argmax(1) == same).float().mean().item()
            bar.write(
                f"clip {step + 1} contrast {contrast.item():.3f} extra {extra.item():.3f} right {right:.3f}"
            )
        if (step + 1) % 200 == 0 or step == steps - 1:
            common.atomic_save(
                {
                    "everything": everything.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state(),
                    "step": step + 1,
                },
                path,
            )


def load(options: common.Options) -> Any:
    """The averaged model of the latest checkpoint."""
    model = clip_model.fresh()
    average = common.Average(list(model.parameters()), 0.995)
    average.restore(common.load(options.work / "clip.pt")["average"])
    average.store()
    return model.eval().requires_grad_(False)
