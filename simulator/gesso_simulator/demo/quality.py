"""Measured quality of what was served: each image against the same prompt and seed at K = 0."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gesso.builtin import TINY_CLIP, builtin_path
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso_simulator.demo.play import Outcome
from gesso_simulator.demo.report import QualityMeasurement, bootstrap_ratio

if TYPE_CHECKING:
    from gesso.rpc.v1.worker_pb2_grpc import WorkerAsyncStub

Pixels = NDArray[np.uint8]


def draw(outcomes: Sequence[Outcome], samples: int, seed: int) -> list[Outcome]:
    """Served outcomes drawn at random without replacement; all of them if there are fewer."""
    served = [o for o in outcomes if o.served]
    return random.Random(seed).sample(served, min(samples, len(served)))


def pixels(image: bytes) -> Pixels:
    """An encoded image as uint8 of shape (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), np.uint8)


async def references(
    workers: Sequence[str],
    drawn: Sequence[Outcome],
    on_done: Callable[[int], None] = lambda _: None,
    per_worker: int = 8,
    timeout_s: float = 120.0,
) -> list[bytes]:
    """The drawn prompts generated in full, same seeds, straight on the workers (`host:port` each).

    What was served at K = 0 is that already.
    """
    images = [outcome.image if outcome.skipped_steps == 0 else b"" for outcome in drawn]
    done = sum(map(bool, images))
    todo = iter([(i, outcome) for i, outcome in enumerate(drawn) if not images[i]])

    async def generate(stub: WorkerAsyncStub) -> None:
        nonlocal done
        for index, outcome in todo:
            call = stub.Generate(
                worker_pb2.WorkerGenerateRequest(
                    request_id=f"reference-{index}",
                    prompt=outcome.request.prompt,
                    seed=outcome.request.seed,
                    skipped_steps=0,
                ),
                timeout=timeout_s,
            )
            async for event in call:
                if event.WhichOneof("event") == "image":
                    images[index] = event.image.data
            done += 1
            on_done(done)

    channels = [grpc.aio.insecure_channel(address) for address in workers]
    try:
        stubs = cycle([worker_pb2_grpc.WorkerStub(channel) for channel in channels])
        await asyncio.gather(*(generate(next(stubs)) for _ in range(per_worker * len(workers))))
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
    if not all(images):
        raise RuntimeError("a worker ended a reference generation without an image")
    return images


def measure(drawn: Sequence[Outcome], reference: Sequence[bytes], seed: int) -> QualityMeasurement:
    """Scores served and reference images by attribute checker and CLIPScore; ratios of means."""
    from gesso_worker.models.tiny.checker import AttributeChecker

    scenes = [o.request.scene for o in drawn]
    served_px = np.stack([pixels(o.image) for o in drawn])
    reference_px = np.stack([pixels(image) for image in reference])
    checker = AttributeChecker.load()
    soft = checker.score(served_px, scenes).soft
    soft0 = checker.score(reference_px, scenes).soft
    prompts = [o.request.prompt for o in drawn]
    clip, clip0 = clip_scores(prompts, served_px), clip_scores(prompts, reference_px)
    rng = np.random.default_rng(seed)
    return QualityMeasurement(
        samples=len(drawn),
        attributes=bootstrap_ratio(soft.tolist(), soft0.tolist(), rng),
        clip_score=bootstrap_ratio(clip.tolist(), clip0.tolist(), rng),
        attributes_at_k0=float(np.mean(soft0)),
    )


def clip_scores(prompts: Sequence[str], images: Pixels) -> NDArray[np.float64]:
    """CLIPScore, 2.5 * max(cosine, 0) (Hessel et al., 2021), by the tiny open_clip; images (n, h, w, 3)."""
    from gesso import torchvision_shim

    torchvision_shim.install()  # before open_clip, which imports torchvision
    import open_clip
    import torch

    folder = builtin_path(TINY_CLIP)
    open_clip.add_model_config(folder / "gesso-tiny-clip.json")
    model, preprocess = open_clip.create_model_from_pretrained(
        "gesso-tiny-clip", pretrained=str(folder / "model.safetensors")
    )
    tokenizer = open_clip.SimpleTokenizer(
        bpe_path=str(folder / "bpe.txt.gz"), context_length=model.context_length
    )
    with torch.inference_mode():
        batch = torch.stack([preprocess(Image.fromarray(image)) for image in images])
        seen = model.encode_image(batch, normalize=True)
        read = model.encode_text(tokenizer(list(prompts)), normalize=True)
        cosine = (seen * read).sum(dim=-1).double().numpy()
    return np.asarray(2.5 * np.clip(cosine, 0.0, None), np.float64)
