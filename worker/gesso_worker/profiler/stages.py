"""Times one loaded model: encoding, decoding, each tick, and whole images from each K at several batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gesso.profile_file import MeasuredLatency, MeasuredStep, Times
from gesso_worker.engine import Model
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import Conditioning, encode_prompt
from gesso_worker.engine.decoding import decode_latents
from gesso_worker.engine.images import Provenance, encode_image
from gesso_worker.engine.profiling import synchronise

PROMPT = "a photograph of a red bicycle in front of a white house"
_STAGE_REPEATS = 12

#: Told before each piece of work: what it is, and how many there are of how many.
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Stages:
    """What was measured of one model."""

    encode: Times
    decode: Times
    steps: tuple[MeasuredStep, ...]
    latencies: tuple[MeasuredLatency, ...]


def batches_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, 8 and so on below `most`, then `most`."""
    doubled = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return (*doubled, most)


def measure(
    model: Model, ladder: Sequence[int], batches: Sequence[int], repeats: int, say: Say
) -> Stages:
    """Runs every batch from every K of the ladder `repeats` times, each time in another order of K.

    A batch starts together and stays together; its latency is that of one image of it: one encoding, the ticks
    that are left, one decoding. Batches that do not fit into memory are left out, all beyond them too. Raises
    torch.OutOfMemoryError where not even one image fits.
    """
    scale = model.settings.guidance_scale
    conditioning = encode_prompt(model, PROMPT, guidance_scale=scale)
    kept = _latents_by_level(model, conditioning, ladder)
    encode = _times(model, lambda: encode_prompt(model, PROMPT, guidance_scale=scale))
    decode = _times(model, lambda: _decoded(model, kept[-1]))
    ticks: dict[int, list[float]] = {}
    runs: dict[tuple[int, int], list[float]] = {}
    sizes = _that_fit(model, conditioning, kept, ladder[-1], batches)
    total, done = repeats * len(sizes) * len(ladder), 0
    # In turns, so that a disturbance falls on all of them alike.
    for turn in range(repeats):
        for i in range(len(ladder)):
            level = ladder[(i + turn) % len(ladder)]
            for size in sizes:
                say(f"K={level}, batch {size}", done, total)
                took = _run(model, conditioning, kept, level, size)
                ticks.setdefault(size, []).extend(took)
                runs.setdefault((level, size), []).append(encode.mean + sum(took) + decode.mean)
                done += 1
    return Stages(
        encode,
        decode,
        tuple(MeasuredStep(batch=b, **_summary(t).model_dump()) for b, t in sorted(ticks.items())),
        tuple(
            MeasuredLatency(skipped_steps=k, batch=b, **_summary(t).model_dump())
            for (k, b), t in sorted(runs.items())
        ),
    )


def _that_fit(
    model: Model,
    conditioning: Conditioning,
    kept: dict[int, torch.Tensor],
    level: int,
    batches: Sequence[int],
) -> list[int]:
    """The batches that fit into memory. A size's first run pays for choosing kernels, or for compiling."""
    fit: list[int] = []
    for size in batches:
        try:
            _run(model, conditioning, kept, level, size)
        except torch.OutOfMemoryError:
            if not fit:
                raise
            break
        fit.append(size)
    return fit


def _latents_by_level(
    model: Model, conditioning: Conditioning, ladder: Sequence[int]
) -> dict[int, torch.Tensor]:
    """One image's latents before each K, and under -1 at the end."""
    batch, member = _batch(model), _member(model, conditioning, None, 0)
    batch.replace([member])
    kept = {}
    while member.trajectory.remaining:
        if member.trajectory.step in ladder:
            kept[member.trajectory.step] = batch.latents_of(member)
        batch.tick()
    kept[-1] = batch.latents_of(member)
    return kept


def _run(
    model: Model,
    conditioning: Conditioning,
    kept: dict[int, torch.Tensor],
    level: int,
    size: int,
) -> list[float]:
    """Seconds of each tick of a batch from K to the end."""
    batch = _batch(model)
    batch.replace([_member(model, conditioning, kept[level], level) for _ in range(size)])
    took = []
    for _ in range(model.settings.steps - level):
        began = time.perf_counter()
        batch.tick()
        synchronise(model)
        took.append(time.perf_counter() - began)
    return took


def _batch(model: Model) -> DenoisingBatch:
    return DenoisingBatch(model.unet, model.device, model.dtype)


def _member(
    model: Model, conditioning: Conditioning, latents: torch.Tensor | None, level: int
) -> Member:
    trajectory = model.trajectory(level)
    start = model.noise(0, trajectory) if latents is None else latents
    return Member(trajectory, conditioning, model.settings.guidance_scale, start)


def _decoded(model: Model, latents: torch.Tensor) -> bytes:
    s = model.settings
    made = Provenance(s.source, s.scheduler, s.steps, 0, 0, s.guidance_scale)
    return encode_image(decode_latents(model, latents), "png", made)


def _times(model: Model, work: Callable[[], object]) -> Times:
    took = []
    for _ in range(_STAGE_REPEATS):
        began = time.perf_counter()
        work()
        synchronise(model)
        took.append(time.perf_counter() - began)
    # The first one warms up.
    return _summary(took[1:])


def _summary(seconds: Sequence[float]) -> Times:
    ordered = sorted(seconds)
    # Of few, the worst stands for the 95th percentile.
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    mean = statistics.fmean(ordered)
    return Times(mean=mean, p95=max(mean, p95))
