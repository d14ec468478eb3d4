"""Images per second of the engine against the stock pipeline behind a queue, by ones and batched, in one run.

All serve the same requests (prompts, seeds, K, latents to resume from) on the same model in the same process.
The batched pipeline takes whatever waits when it is free, up to the engine's largest batch, of one K, since a
call has one. Passes take turns, so that what else the machine does falls on all alike; CPU time is told beside
wall time, since it hardly suffers from that.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gesso_worker.engine import (
    Engine,
    EngineSettings,
    Failed,
    Finished,
    ImageRequest,
    Model,
    ModelSettings,
    Start,
    load_model,
    warm_up,
)
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import encode_prompt

LADDER = (0, 5, 10, 15, 20, 25)
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
#: Load of the Poisson arrivals, as a share of what the engine serves when it is never idle.
POISSON_SHARE = 0.8
SHAPES = ("circle", "square", "star", "triangle", "ring")


@dataclass(frozen=True)
class Ask:
    """One request: K of `skipped_steps` and when it arrives, in seconds from the start."""

    prompt: str
    seed: int
    skipped_steps: int
    arrives_s: float


@dataclass(frozen=True)
class Result:
    """One pass over all requests."""

    images_per_s: float
    images_per_cpu_s: float
    latency_p50_s: float
    latency_p95_s: float


def stock_pipeline(model: Model) -> Any:
    """The pipeline as diffusers ships it, with a scheduler of its own."""
    parts = {**model.pipeline.components, "scheduler": model.trajectory().scheduler}
    pipeline = type(model.pipeline)(**parts, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_images(
    model: Model, pipeline: Any, asks: Sequence[Ask], starts: dict[int, Tensor], **more: Any
) -> Any:
    """Images of one K by one call; K > 0 as the tail of the sigmas from the latent before step K."""
    s, skipped = model.settings, asks[0].skipped_steps
    kwargs: dict[str, Any] = {"num_inference_steps": s.steps}
    if skipped:
        sigmas = model.trajectory().scheduler.sigmas[skipped:]
        # The pipeline multiplies latents by what the schedule's first sigma asks for.
        scale = (float(sigmas[0]) ** 2 + 1) ** 0.5
        kwargs = {
            "num_inference_steps": len(sigmas) - 1,
            "sigmas": sigmas.tolist(),
            "latents": torch.cat([starts[skipped] / scale] * len(asks)),
        }
    return pipeline(
        prompt=[a.prompt for a in asks],
        guidance_scale=s.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(a.seed) for a in asks],
        height=s.height,
        width=s.width,
        return_dict=False,
        **kwargs,
        **more,
    )[0]


def one_by_one(model: Model, asks: Sequence[Ask], starts: dict[int, Tensor]) -> Result:
    """A queue, and the stock pipeline behind it."""
    pipeline = stock_pipeline(model)
    latencies = []
    began, cpu = time.perf_counter(), time.process_time()
    for ask in asks:
        now = time.perf_counter() - began
        if now < ask.arrives_s:
            time.sleep(ask.arrives_s - now)
        stock_images(model, pipeline, [ask], starts)
        latencies.append(time.perf_counter() - began - ask.arrives_s)
    return summary(latencies, time.perf_counter() - began, time.process_time() - cpu)


def batched(model: Model, asks: Sequence[Ask], starts: dict[int, Tensor], most: int) -> Result:
    """A queue, and the stock pipeline's own batches of what waits in it, of one K each."""
    pipeline = stock_pipeline(model)
    latencies, waiting = [], list(asks)
    began, cpu = time.perf_counter(), time.process_time()
    while waiting:
        now = time.perf_counter() - began
        if now < waiting[0].arrives_s:
            time.sleep(waiting[0].arrives_s - now)
            continue
        here = [a for a in waiting if a.arrives_s <= now]
        batch = [a for a in here if a.skipped_steps == here[0].skipped_steps][:most]
        stock_images(model, pipeline, batch, starts)
        done = time.perf_counter() - began
        latencies += [done - a.arrives_s for a in batch]
        waiting = [a for a in waiting if a not in batch]
    return summary(latencies, time.perf_counter() - began, time.process_time() - cpu)


def by_engine(
    model: Model, asks: Sequence[Ask], starts: dict[int, Tensor], max_batch: int
) -> Result:
    """The same requests through the engine, PNG included."""
    engine = Engine(model, EngineSettings(max_batch=max_batch, max_accepted=len(asks)))
    engine.start()
    latencies: list[float] = []
    done = threading.Semaphore(0)
    began, cpu = time.perf_counter(), time.process_time()

    def sink_of(ask: Ask) -> Callable[[object], None]:
        def sink(event: object) -> None:
            if isinstance(event, Failed):
                raise AssertionError(event.message)
            if isinstance(event, Finished):
                latencies.append(time.perf_counter() - began - ask.arrives_s)
                done.release()

        return sink

    for number, ask in enumerate(asks):
        now = time.perf_counter() - began
        if now < ask.arrives_s:
            time.sleep(ask.arrives_s - now)
        request = ImageRequest(
            request_id=str(number),
            prompt=ask.prompt,
            seed=ask.seed,
            guidance_scale=model.settings.guidance_scale,
            skipped_steps=ask.skipped_steps,
        )
        job = engine.accept(request, sink_of(ask))
        engine.begin(job, Start(ask.skipped_steps, starts.get(ask.skipped_steps)))
    for _ in asks:
        assert done.acquire(timeout=300), "the engine lost a request"
    result = summary(latencies, time.perf_counter() - began, time.process_time() - cpu)
    engine.stop()
    return result


def summary(latencies: list[float], wall_s: float, cpu_s: float) -> Result:
    ordered = sorted(latencies)
    return Result(
        images_per_s=len(ordered) / wall_s,
        images_per_cpu_s=len(ordered) / cpu_s,
        latency_p50_s=statistics.median(ordered),
        latency_p95_s=ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
    )


def median_of(results: Sequence[Result]) -> Result:
    fields = [asdict(r) for r in results]
    return Result(**{name: statistics.median(f[name] for f in fields) for name in fields[0]})


def deep_over_full(serve: Callable[[Sequence[int]], Result], passes: int) -> float:
    """Images/s at the deepest level over those at K = 0, in turns: the machine's pace changes with time."""
    turns = [(serve((0,)), serve(LADDER[-1:])) for _ in range(passes)]
    return statistics.median(deep.images_per_s / full.images_per_s for full, deep in turns)


def intermediate_latents(model: Model) -> dict[int, Tensor]:
    """Latents before each level's step of one full run: what a cache would hold."""
    conditioning = encode_prompt(
        model, "a large red star above a small blue ring", "", model.settings.guidance_scale
    )
    trajectory = model.trajectory()
    member = Member(
        trajectory, conditioning, model.settings.guidance_scale, model.noise(0, trajectory)
    )
    batch = DenoisingBatch(model.unet, model.device, model.dtype)
    batch.replace([member])
    kept = {}
    while trajectory.remaining:
        if trajectory.step in LADDER[1:]:
            kept[trajectory.step] = batch.latents_of(member)
        batch.tick()
    return kept


def largest_difference(model: Model, asks: Sequence[Ask], starts: dict[int, Tensor]) -> float:
    """Of the latents of requests that join every four ticks from those of the stock pipeline, one by one."""
    guidance = model.settings.guidance_scale
    members = []
    for ask in asks:
        trajectory = model.trajectory(ask.skipped_steps)
        latents = starts.get(ask.skipped_steps)
        noise = model.noise(ask.seed, trajectory) if latents is None else latents
        members.append(
            Member(trajectory, encode_prompt(model, ask.prompt, "", guidance), guidance, noise)
        )
    batch = DenoisingBatch(model.unet, model.device, model.dtype)
    tick = 0
    while any(m.trajectory.remaining for m in members):
        here = [m for i, m in enumerate(members) if 4 * i <= tick and m.trajectory.remaining]
        if list(batch.members) != here:
            batch.replace(here)
        if here:
            batch.tick()
        tick += 1
    batch.replace([])
    pipeline = stock_pipeline(model)
    return max(
        float(
            (stock_images(model, pipeline, [a], starts, output_type="latent") - m.latents)
            .abs()
            .max()
        )
        for a, m in zip(asks, members, strict=True)
    )


def requests(count: int, levels: Sequence[int], arrivals: Sequence[float]) -> list[Ask]:
    """Each prompt once: what the engine remembers of a prompt would help it only."""
    pairs = [(c, s, d, t) for c in COLOURS for s in SHAPES for d in COLOURS for t in SHAPES]
    Random(0).shuffle(pairs)
    return [
        Ask("a {} {} above a {} {}".format(*pairs[i]), i, levels[i % len(levels)], arrivals[i])
        for i in range(count)
    ]


def poisson(count: int, rate: float) -> list[float]:
    """Arrivals in seconds from the start."""
    random = Random(1)
    return list(accumulate(random.expovariate(rate) for _ in range(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="builtin://tiny-sdxl", help="source of an SD-XL")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--side", type=int, default=64, help="pixels of an image's side")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--count", type=int, default=24, help="requests of each pass")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console(stderr=True)
    console.print(f"loading and warming up {given.model}")
    settings = ModelSettings(
        given.model, given.steps, given.side, given.side, given.guidance, "Euler", given.dtype
    )
    model = load_model(settings)
    profile = warm_up(model, given.max_batch).profile
    starts = intermediate_latents(model)
    difference = largest_difference(model, requests(12, LADDER, [0.0] * 12), starts)
    console.print(f"largest difference of latents from the stock pipeline: {difference:.2g}")
    count, most = given.count, profile.best_batch()
    at_once, deep = [0.0] * count, LADDER[-1:]
    # What the engine serves when it is never idle: the rate of the Poisson arrivals is a share of it.
    capacity = by_engine(model, requests(count, (0,), at_once), starts, most).images_per_s
    arrivals = poisson(count, POISSON_SHARE * capacity)
    scenarios = {
        "K = 0, all at once": requests(count, (0,), at_once),
        "K = 0, Poisson": requests(count, (0,), arrivals),
        "K mixed, all at once": requests(count, LADDER, at_once),
        "K mixed, Poisson": requests(count, LADDER, arrivals),
        f"K = {deep[0]}, all at once": requests(count, deep, at_once),
    }
    table = Table(title=f"{given.model} on {model.device_name}, batch up to {given.max_batch}")
    for column in ("requests", "", "images/s", "images/CPU-s", "p50 s", "p95 s"):
        table.add_column(column, justify="left" if column in ("requests", "") else "right")
    report: dict[str, Any] = {
        "model": given.model,
        "steps": given.steps,
        "max_batch": given.max_batch,
        "threads": given.threads,
        "requests": given.count,
        "passes": given.passes,
        "poisson_share_of_capacity": POISSON_SHARE,
        "machine": {
            "device": model.device_name,
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
        "largest_latent_difference": difference,
        "profile": asdict(profile),
        "scenarios": {},
    }
    for name, asks in scenarios.items():
        passes: dict[str, list[Result]] = {}
        for number in range(given.passes):
            console.print(f"{name}: pass {number + 1} of {given.passes}")
            for label, result in (
                ("one by one", one_by_one(model, asks, starts)),
                ("batched", batched(model, asks, starts, most)),
                ("engine", by_engine(model, asks, starts, most)),
            ):
                passes.setdefault(label, []).append(result)
        found = {label: median_of(results) for label, results in passes.items()}
        for label, r in found.items():
            numbers = (r.images_per_s, r.images_per_cpu_s, r.latency_p50_s, r.latency_p95_s)
            table.add_row(name, label, *(f"{n:.2f}" for n in numbers))
        ours, ratios = found["engine"], {}
        for label in ("one by one", "batched"):
            r = found[label]
            ratios[label] = Result(
                ours.images_per_s / r.images_per_s,
                ours.images_per_cpu_s / r.images_per_cpu_s,
                ours.latency_p50_s / r.latency_p50_s,
                ours.latency_p95_s / r.latency_p95_s,
            )
            numbers = tuple(asdict(ratios[label]).values())
            last = label == "batched"
            table.add_row(
                name, f"engine / {label}", *(f"{n:.2f}" for n in numbers), end_section=last
            )
        report["scenarios"][name] = {
            **{label: asdict(r) for label, r in found.items()},
            "ratios": {label: asdict(r) for label, r in ratios.items()},
        }
    report["deepest_level_over_full"] = ratio = deep_over_full(
        lambda levels: by_engine(model, requests(count, levels, at_once), starts, most),
        given.passes,
    )
    console.print(f"images/s at K = {deep[0]} over K = 0: {ratio:.2f}")
    Console().print(table)
    out = Path(__file__).parent / "out" / "engine.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written: {out}")


if __name__ == "__main__":
    main()
