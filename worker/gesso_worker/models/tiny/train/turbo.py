"""Stage ``turbo``: a denoiser that takes four steps and no guidance, distilled from the exported tiny SD-XL.

The student starts as the teacher, walks its own four Euler steps from pure noise, and learns at each what the
teacher does over the same stretch with guidance: so the guidance is folded in (Meng et al. 2023), first step
for step, then against two of the teacher's steps for one of its own (progressive distillation, Salimans and Ho
2022). On its own walk it also learns to make good what it did wrong before. No images are needed, captions are.

Kept is the average that scored best on prompts held out from training and from the evaluation alike. A run can
be made longer (``--steps``): it goes on from the checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

from gesso.builtin import PARTS_NAME
from gesso_worker.models.tiny import architecture, captions, folders, scenes
from gesso_worker.models.tiny.checker import AttributeChecker
from gesso_worker.models.tiny.evaluate.floors import SEED, held_out
from gesso_worker.models.tiny.sampling import GUIDANCE, Parts, Prompts
from gesso_worker.models.tiny.train import common, optim
from gesso_worker.models.tiny.train.export import swap
from gesso_worker.models.tiny.train.unet import PlainAttention

STEPS: Final = 500
#: Share of the training that only folds the guidance in, one step of the teacher's for one of the student's.
FOLDING: Final = 0.6
#: Walks at once; each is four samples.
BATCH: Final = 32
RATE: Final = 5e-4
WARMUP: Final = 50
COOLDOWN: Final = 0.4
DECAY: Final = 0.998
EVERY: Final = 100
PROMPTS: Final = 20_000
#: Prompts by which the best average is chosen: held out, and not those of the evaluation.
CHOSEN_BY: Final = 200

#: What the turbo has of the tiny SD-XL.
SHARED: Final = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

Step = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Segment:
    """A stretch of a walk: from noise level ``sigmas[0]`` at timestep ``times[0]`` down to ``sigmas[-1]``."""

    times: tuple[float, ...]
    sigmas: tuple[float, ...]


def segments(substeps: int) -> list[Segment]:
    """The student's steps, each divided into so many of the teacher's."""
    scheduler = EulerDiscreteScheduler(**architecture.TURBO_SCHEDULE)
    scheduler.set_timesteps(architecture.TURBO_STEPS * substeps)
    times = [float(t) for t in scheduler.timesteps]
    sigmas = [float(s) for s in scheduler.sigmas]
    return [
        Segment(tuple(times[i : i + substeps]), tuple(sigmas[i : i + substeps + 1]))
        for i in range(0, len(times), substeps)
    ]


def euler(x: torch.Tensor, v: torch.Tensor, sigma: float, after: float) -> torch.Tensor:
    """One Euler step of a velocity prediction; x has variance ``sigma^2 + 1``."""
    clean = x / (sigma**2 + 1) - v * (sigma / math.sqrt(sigma**2 + 1))
    return x + (after - sigma) * (x - clean) / sigma


def velocity(x: torch.Tensor, reached: torch.Tensor, sigma: float, after: float) -> torch.Tensor:
    """The velocity with which :func:`euler` goes from x to ``reached``."""
    clean = x - sigma * (reached - x) / (after - sigma)
    return (x / (sigma**2 + 1) - clean) * (math.sqrt(sigma**2 + 1) / sigma)


def scaled(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """What the denoiser reads of x."""
    return x / math.sqrt(sigma**2 + 1)


def call(
    unet: UNet2DConditionModel,
    x: torch.Tensor,
    t: torch.Tensor,
    context: torch.Tensor,
    pooled: torch.Tensor,
) -> torch.Tensor:
    """Velocity prediction in bfloat16 arithmetic."""
    extra = {
        "text_embeds": pooled,
        "time_ids": torch.tensor([architecture.TIME_IDS]).expand(len(x), -1),
    }
    with torch.autocast("cpu", torch.bfloat16):
        out: torch.Tensor = unet(x, t, context, added_cond_kwargs=extra).sample
    return out.float()


class Teacher:
    """The tiny SD-XL's denoiser with guidance."""

    def __init__(self, unet: UNet2DConditionModel, compiled: bool) -> None:
        self.unet = unet
        self.unet.set_attn_processor(PlainAttention())
        self._call: Step = torch.compile(self._guided) if compiled else self._guided

    def _guided(
        self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        both = torch.cat([torch.zeros_like(context), context])
        pools = torch.cat([torch.zeros_like(pooled), pooled])
        without, with_ = call(self.unet, torch.cat([x, x]), t, both, pools).chunk(2)
        return without + GUIDANCE * (with_ - without)

    @torch.no_grad()
    def walk(self, x: torch.Tensor, over: Segment, prompts: Prompts) -> torch.Tensor:
        """Where the teacher gets from x over a segment."""
        for t, sigma, after in zip(over.times, over.sigmas, over.sigmas[1:], strict=False):
            at = torch.tensor(t)
            v = self._call(scaled(x, sigma), at, prompts.context, prompts.pooled)
            x = euler(x, v, sigma, after)
        return x


def prompts_of(work: Path, parts: Parts, seed: int) -> Prompts:
    """Encoded captions of training scenes, computed once and kept in the working folder."""
    path = work / "turbo_prompts.npz"
    if not path.exists():
        rng = np.random.default_rng((seed, 4))
        contexts, pools = [], []
        for _ in range(0, PROMPTS, 250):
            drawn = [scenes.sample_scene(rng, held_out=False) for _ in range(250)]
            found = parts.encode([captions.caption(scene, rng) for scene in drawn])
            contexts.append(found.context.half().numpy())
            pools.append(found.pooled.half().numpy())
        aside = path.with_name("turbo_prompts.tmp.npz")
        np.savez(aside, context=np.concatenate(contexts), pooled=np.concatenate(pools))
        aside.replace(path)
    arrays = np.load(path)
    return Prompts(torch.from_numpy(arrays["context"]), torch.from_numpy(arrays["pooled"]))


@torch.no_grad()
def walk(unet: UNet2DConditionModel, prompts: Prompts, noise: torch.Tensor) -> torch.Tensor:
    """Final latents of the student's four steps from unit noise (n, 16, 8, 8)."""
    grid = segments(1)
    x = noise * grid[0].sigmas[0]
    for part in grid:
        sigma, after = part.sigmas
        at = torch.tensor(part.times[0])
        v = call(unet, scaled(x, sigma), at, prompts.context, prompts.pooled)
        x = euler(x, v, sigma, after)
    return x


class Judge:
    """Scores a denoiser on held-out prompts."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.checker = AttributeChecker.load()
        self.drawn, texts = held_out(CHOSEN_BY, SEED + 7)
        self.prompts = parts.encode(texts)
        self.noise = parts.noise(range(CHOSEN_BY)) / float(parts.scheduler.init_noise_sigma)

    def __call__(self, unet: UNet2DConditionModel) -> tuple[float, float]:
        """Mean soft score and share of whole images right."""
        scores = self.checker.score(
            self.parts.decode(walk(unet, self.prompts, self.noise)), self.drawn
        )
        return float(scores.soft.mean()), float(scores.whole.mean())


def factor(step: int, steps: int) -> float:
    """Learning rate factor: warm-up, constant, then linearly to nothing."""
    left = (steps - step) / (COOLDOWN * steps)
    return min(1.0, (step + 1) / WARMUP, max(0.0, left))


def run(options: common.Options, compiled: bool = True) -> None:
    """Distil; the checkpoint holds the weights, their average, the best average and the optimizers."""
    torch.manual_seed(options.seed)
    parts = Parts.load()
    prompts, judge = prompts_of(options.work, parts, options.seed), Judge(parts)
    student = architecture.unet()
    student.load_state_dict(parts.unet.state_dict())
    student.set_attn_processor(PlainAttention())
    shown = architecture.unet().eval().requires_grad_(False)
    teacher = Teacher(parts.unet, compiled)
    optimizers = optim.build(student, RATE)
    average = common.Average(list(student.parameters()), DECAY)
    best: dict[str, Any] = {"score": -1.0}
    path = options.work / "turbo.pt"
    start, steps = 0, options.steps or STEPS
    if path.exists():
        state = common.load(path)
        student.load_state_dict(state["model"])
        average.restore(state["average"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        start, best = state["step"], state["best"]

    def predict(*inputs: torch.Tensor) -> torch.Tensor:
        return call(student, *inputs)

    student_call: Step = torch.compile(predict) if compiled else predict
    grid = segments(1)
    recent: list[float] = []
    for step, bar in common.loop("turbo", start, steps):
        rng = common.batch_rng(options.seed, step)
        rows = torch.from_numpy(rng.integers(0, len(prompts), BATCH))
        chosen = Prompts(prompts.context[rows].float(), prompts.pooled[rows].float())
        shape = (BATCH, architecture.LATENT_CHANNELS, *[architecture.LATENT_SIDE] * 2)
        x = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) * grid[0].sigmas[0]
        total = 0.0
        for mine, theirs in zip(grid, segments(1 if step < FOLDING * steps else 2), strict=True):
            sigma, after = mine.sigmas
            wanted = velocity(x, teacher.walk(x, theirs, chosen), sigma, after)
            at = torch.tensor(mine.times[0])
            v = student_call(scaled(x, sigma), at, chosen.context, chosen.pooled)
            loss = (v - wanted).square().mean() / len(grid)
            common.backward(loss)
            total += loss.item()
            x = euler(x, v.detach(), sigma, after)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for optimizer in optimizers:
            common.set_rate(optimizer, RATE * factor(step, steps))
            optimizer.step()
            optimizer.zero_grad()
        average.update()
        recent.append(total)
        if (step + 1) % EVERY == 0 or step == steps - 1:
            for p, shadow in zip(shown.parameters(), average.shadow, strict=True):
                p.copy_(shadow)
            soft, whole = judge(shown)
            bar.write(
                f"turbo {step + 1} loss {np.mean(recent[-EVERY:]):.5f} soft {soft:.4f} whole {whole:.3f}"
            )
            if soft > best["score"]:
                best = {
                    "score": soft,
                    "whole": whole,
                    "step": step + 1,
                    "model": {k: v.clone() for k, v in shown.state_dict().items()},
                }
            common.atomic_save(
                {
                    "model": student.state_dict(),
                    "average": average.state(),
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "step": step + 1,
                    "best": best,
                },
                path,
            )
    export(options.work)


def load(work: Path) -> UNet2DConditionModel:
    """The denoiser that scored best, with stock attention."""
    model = architecture.unet()
    model.load_state_dict(common.load(work / "turbo.pt")["best"]["model"])
    return model.eval().requires_grad_(False)


def export(work: Path) -> None:
    """Writes the folder that ships: the denoiser in float16 and its scheduler; the tiny SD-XL has the rest."""
    target = folders.TURBO
    aside = target.with_name(f".{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    load(work).half().save_pretrained(aside / "unet", safe_serialization=True, variant="fp16")
    EulerDiscreteScheduler(**architecture.TURBO_SCHEDULE).save_pretrained(aside / "scheduler")
    shutil.copy2(folders.SDXL / "model_index.json", aside)
    (aside / PARTS_NAME).write_text(
        json.dumps(dict.fromkeys(SHARED, folders.SDXL.name), indent=2) + "\n"
    )
    for name in ("README.md", "measured.json"):
        if (target / name).exists():
            shutil.copy2(target / name, aside / name)
    swap(aside, target)
