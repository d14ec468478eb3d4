"""Full-size SD-XL on a GPU: ms per step by batch, encoding, decoding, K = 0 to 25, eager against compiled.

    python bench/bench_sdxl.py [--size full|small] [--batches 1,2,4,8]

The architecture is SD-XL's with random weights, loaded and run as a worker does. Beside it, in one process,
the stock pipeline, called for one image and for a batch. Without CUDA a small model of the same blocks runs:
that shows that the bench works, and says nothing about speed. Writes bench/out/sdxl.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from rich.console import Console
from rich.table import Table
from sdxl.architecture import FULL, SMALL, save

from gesso_worker.engine import Model, ModelSettings, load_model, warm_up
from gesso_worker.engine.profiling import synchronise
from gesso_worker.profiler.stages import measure

LADDER = (0, 5, 10, 15, 20, 25)
PROMPT = "a photograph of a red bicycle in front of a white house"
#: Seconds of an image of 1024 x 1024 at batch 1, as others have published them.
PUBLISHED = {
    "A100, 50 steps, diffusers eager": 5.93,
    "A100, 50 steps, compiled": 5.13,
    "A100, 50 steps, TensorRT": 4.10,
    "H800, 50 steps, eager": 2.88,
    "H100, 30 steps, TensorRT": 1.47,
}
#: Milliseconds of a step on an H200: at batch 1, and an image's share at the best batch.
GOALS_MS = {"step at batch 1": 40.0, "step of an image at the best batch": 30.0}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--size", choices=("full", "small"), default="full" if cuda else "small")
    parser.add_argument("--batches", default="1,2,4,8")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled run out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "sdxl.json")
    given = parser.parse_args(arguments)
    batches = [int(b) for b in given.batches.split(",")]
    if min(batches) != 1 or max(batches) > 64 or sorted(set(batches)) != batches:
        parser.error(f"--batches: {given.batches} is not allowed: ascending, from 1, at most 64")
    ladder = [k for k in LADDER if k < given.steps]
    console = Console(stderr=True)
    side = 1024 if given.size == "full" else 64
    report: dict[str, Any] = {
        "size": given.size,
        "side": side,
        "steps": given.steps,
        "dtype": given.dtype if cuda else "float32",
        "machine": machine(),
        "runs": {},
        "published_seconds": PUBLISHED,
        "goals_ms_on_h200": GOALS_MS,
    }
    with tempfile.TemporaryDirectory() as folder:
        console.print(f"making a {given.size} model")
        parts = FULL if given.size == "full" else SMALL
        save(parts, Path(folder), getattr(torch, given.dtype) if cuda else torch.float32)
        settings = ModelSettings(folder, given.steps, side, side, 5.0, "Euler", given.dtype)
        for name, compiled in (("eager", False), ("compiled", True)):
            if compiled and given.no_compile:
                continue
            console.print(f"{name}: loading")
            report["runs"][name] = one_run(
                replace(settings, compile=compiled), ladder, batches, given.repeats, console
            )
    tell(report)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"written: {given.out}")
    return 0


def one_run(
    settings: ModelSettings, ladder: list[int], batches: list[int], repeats: int, console: Console
) -> dict[str, Any]:
    """Loads, warms up, measures, and lets go of everything."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    model = load_model(settings)
    loaded = time.perf_counter()
    warm_up(model, max(batches), budget_s=10.0)
    warm = time.perf_counter()
    held = torch.cuda.memory_allocated() if cuda else 0

    def say(what: str, done: int, total: int) -> None:
        console.print(f"  {done + 1}/{total} {what}", end="\r")

    found = measure(model, ladder, batches, repeats, say)
    steps = {s.batch: 1000 * s.mean for s in found.steps}
    best = min(steps, key=lambda b: steps[b] / b)
    made = {
        "load_s": loaded - began,
        "warm_up_s": warm - loaded,
        "memory_held_gb": held / 1e9,
        "memory_peak_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
        "encode_ms": 1000 * found.encode.mean,
        "decode_ms": 1000 * found.decode.mean,
        "step_ms": steps,
        "best_batch": best,
        "step_ms_of_an_image_at_best_batch": steps[best] / best,
        "image_s": {
            f"K={lat.skipped_steps}, batch {lat.batch}": lat.mean for lat in found.latencies
        },
        "stock_pipeline_s": {f"batch {b}": stock(model, b) for b in sorted({1, best})},
    }
    del model
    if cuda:
        torch.cuda.empty_cache()
    return made


@torch.inference_mode()
def stock(model: Model, batch: int) -> float:
    """Seconds of one call of diffusers' own pipeline, of two the faster."""
    parts = {**model.pipeline.components, "scheduler": model.trajectory().scheduler}
    pipeline = type(model.pipeline)(**parts, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        pipeline(
            [PROMPT] * batch,
            num_inference_steps=model.settings.steps,
            guidance_scale=model.settings.guidance_scale,
            width=model.settings.width,
            height=model.settings.height,
        )
        synchronise(model)
        took.append(time.perf_counter() - began)
    return min(took)


def machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def tell(report: dict[str, Any]) -> None:
    size = f"{report['size']} SD-XL, {report['side']} x {report['side']}, {report['steps']} steps"
    table = Table(title=f"{size}, {report['dtype']}, on {report['machine']['device']}")
    table.add_column("figure")
    for name in report["runs"]:
        table.add_column(name, justify="right")
    runs = list(report["runs"].values())
    figures = ("load_s", "warm_up_s", "memory_held_gb", "memory_peak_gb", "encode_ms", "decode_ms")
    for figure in figures:
        table.add_row(figure, *(f"{run[figure]:.3g}" for run in runs))
    for part in ("step_ms", "image_s", "stock_pipeline_s"):
        for key in runs[0][part]:
            shown = f"batch {key}" if isinstance(key, int) else key
            values = (run[part].get(key) for run in runs)
            table.add_row(f"{part}, {shown}", *("" if v is None else f"{v:.3g}" for v in values))
    shares = (run["step_ms_of_an_image_at_best_batch"] for run in runs)
    table.add_row("step_ms of an image at the best batch", *(f"{s:.3g}" for s in shares))
    Console().print(table)
    if report["size"] == "full":
        for name, seconds in PUBLISHED.items():
            Console().print(f"published: {name}: {seconds} s an image")


if __name__ == "__main__":
    raise SystemExit(main())
