"""Warm-up: one image, then how long each stage and each batch size takes on this device."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image

from gesso.profile import Profile
from gesso_worker.engine.at_rest import Sample
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import Conditioning, encode_prompt
from gesso_worker.engine.decoding import decode_latents
from gesso_worker.engine.images import Provenance, encode_image
from gesso_worker.engine.model import Model, ModelLoadError
from gesso_worker.engine.preview import LatentProjection

_PROMPT = "a photograph of a red bicycle in front of a white house"
_ROUNDS = 12
_REPEATS = 3


@dataclass(frozen=True)
class WarmUp:
    """`profile` spans the batches that fit into memory; `image` is the PNG that was made.

    `projection` makes previews, as far as that one image teaches how; `sample` is what to measure with later.
    """

    profile: Profile
    image: bytes
    projection: LatentProjection
    sample: Sample | None = None


def warm_up(model: Model, max_batch: int, budget_s: float = 3.0) -> WarmUp:
    """Makes one image, then measures. Call it before the engine starts.

    Each batch size from 1 to `max_batch` gets a tick to warm up and up to twelve timed ones, whose median
    counts; once `budget_s` is spent, one. Sizes that do not fit into memory are left out.
    Raises ModelLoadError if not even one image can be made, or is not finite.
    """
    scale = model.settings.guidance_scale
    try:
        conditioning = encode_prompt(model, _PROMPT, guidance_scale=scale)
        image, latents = _first_image(model, conditioning)
        if model.settings.compile:
            _compile(model, conditioning)
        projection = LatentProjection()
        projection.observe(latents, Image.open(io.BytesIO(image)))
        encode = _median(model, lambda: encode_prompt(model, _PROMPT, guidance_scale=scale))
        decode = _median(model, lambda: _decode(model, latents))
        steps = _step_seconds(model, conditioning, max_batch, budget_s)
    except torch.OutOfMemoryError as error:
        raise _refused(model, "one image does not fit into memory") from error
    except Exception as error:  # whatever parts that do not fit together make four libraries raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise _refused(model, f"the warm-up image failed: {reason}") from error
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    profile = Profile(
        device=model.device_name,
        steps=model.settings.steps,
        encode_seconds=encode,
        decode_seconds=decode,
        step_seconds=tuple(steps),
    )
    return WarmUp(profile, image, projection, Sample(_PROMPT, conditioning, latents))


def _first_image(model: Model, conditioning: Conditioning) -> tuple[bytes, torch.Tensor]:
    batch = DenoisingBatch(model.unet, model.device, model.dtype)
    member = _member(model, conditioning, 0)
    batch.replace([member])
    while member.trajectory.remaining:
        batch.tick()
    batch.replace([])
    return _decode(model, member.latents), member.latents


def _compile(model: Model, conditioning: Conditioning) -> None:
    """Ticks batches of unlike shape, so that none has to be compiled for while requests wait."""
    plain = encode_prompt(model, _PROMPT)
    guided, unguided = (conditioning, max(2.0, model.settings.guidance_scale)), (plain, 1.0)
    if conditioning.negative_embeds is None:
        guided = (encode_prompt(model, _PROMPT, guidance_scale=guided[1]), guided[1])
    for kinds in ((guided,), (unguided,), (unguided, guided), (guided, guided)):
        batch = DenoisingBatch(model.unet, model.device, model.dtype)
        members = []
        for prompt, scale in kinds:
            trajectory = model.trajectory()
            members.append(Member(trajectory, prompt, scale, model.noise(0, trajectory)))
        batch.replace(members)
        batch.tick()


def _decode(model: Model, latents: torch.Tensor) -> bytes:
    s = model.settings
    image = decode_latents(model, latents)
    provenance = Provenance(s.source, s.scheduler, s.steps, 0, 0, s.guidance_scale)
    return encode_image(image, "png", provenance)


def _member(model: Model, conditioning: Conditioning, seed: int) -> Member:
    trajectory = model.trajectory()
    noise = model.noise(seed, trajectory)
    return Member(trajectory, conditioning, model.settings.guidance_scale, noise)


def _step_seconds(
    model: Model, conditioning: Conditioning, max_batch: int, budget_s: float
) -> list[float]:
    """Medians over rounds that tick each batch size in turn, so that a disturbance falls on all sizes alike."""
    batches: list[DenoisingBatch] = []
    times: list[list[float]] = [[] for _ in range(max_batch)]
    deadline = time.perf_counter() + budget_s
    for size in range(1, max_batch + 1):
        batch = DenoisingBatch(model.unet, model.device, model.dtype)
        batch.replace([_member(model, conditioning, seed) for seed in range(size)])
        try:
            # The first tick of a size pays for choosing kernels.
            _timed_tick(model, batch)
        except torch.OutOfMemoryError:
            if not batches:
                raise
            break
        batches.append(batch)
    for _ in range(_ROUNDS):
        for batch, measured in zip(batches, times, strict=False):
            measured.append(_timed_tick(model, batch))
        if time.perf_counter() > deadline:
            break
    return [statistics.median(measured) for measured in times if measured]


def _timed_tick(model: Model, batch: DenoisingBatch) -> float:
    for member in batch.members:
        member.trajectory.step = 0
    began = time.perf_counter()
    batch.tick()
    synchronise(model)
    return time.perf_counter() - began


def _median(model: Model, work: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        synchronise(model)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def synchronise(model: Model) -> None:
    """Waits until the device has done what it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def _refused(model: Model, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"spec.model.source: {model.settings.source!r} cannot be served: {reason}"
    )
