"""`gesso demo`: brings the tiny service up, plays a swinging load under both policies and reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gesso.api import load_service
from gesso.outputs import OutputError, writing
from gesso_simulator.demo import pictures, quality
from gesso_simulator.demo.fleet import Fleet, FleetError, Watcher, kill_hard, write_service
from gesso_simulator.demo.live import Display
from gesso_simulator.demo.play import (
    Board,
    Outcome,
    measure_capacity,
    measure_latency,
    play,
)
from gesso_simulator.demo.report import QualityMeasurement, summarise
from gesso_simulator.scenarios.build import slo_seconds as slo_of
from gesso_simulator.workloads.arrivals import SWING, RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import PromptRequest, SessionMix, prompts, requests

SAMPLE = Path(__file__).parents[3] / "manifests" / "samples" / "tiny.yaml"
POLICIES = ("QualityAware", "ClipperHA")
#: Long enough for a steady figure, and for a history that fills the cache.
CAPACITY_SECONDS = 25.0
#: After the measurement: long enough for the planner to see that the load has gone.
SETTLE_SECONDS = 12.0
#: Full load before the run at K = 0, which fills no cache: until the workers' live profile has settled.
WARM_UP_SECONDS = 10.0
QUALITY_SAMPLES = 240
SHEET_COLUMNS = 4


@dataclass(frozen=True)
class Settings:
    """What a demo run is made of."""

    seconds: float
    out: Path
    kill_worker: bool
    service: Path
    seed: int
    slo: str


@dataclass(frozen=True)
class PolicyRun:
    """One policy's run."""

    outcomes: list[Outcome]
    watcher: Watcher
    capacity: float


def run(
    seconds: float = SWING.seconds,
    out: Path | str = "demo",
    kill_worker: bool = False,
    service: Path | str = SAMPLE,
    seed: int = 7,
    slo: str = "5x",
) -> int:
    """Runs the demo; 0 when it ended by itself with nothing lost, 1 when not, 130 on Ctrl-C and SIGTERM.

    `slo` is seconds, or a multiple of what one image in full takes here (see `slo_seconds`).
    """
    settings = Settings(seconds, Path(out), kill_worker, Path(service), seed, slo)
    console = Console()
    try:
        return asyncio.run(_demo(settings, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped; nothing is left running")
        return 130
    except (FleetError, OutputError, RuntimeError) as error:
        console.print(f"the demo failed: {error}", style="red", markup=False, highlight=False)
        return 1


async def _demo(settings: Settings, console: Console) -> int:
    whole = asyncio.current_task()
    assert whole is not None
    # As on Ctrl-C: whoever ends the demo must not be left with its fleet.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, whole.cancel)
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    service = load_service(settings.service)
    workers = service.spec.workers.least
    rng = np.random.default_rng(settings.seed)
    stream = prompts(SessionMix(), rng)
    history = requests([0.0] * 2000, stream, rng)
    concurrency = 8 * workers

    full_latency, slo_seconds = await _slo(settings, workers, history, console)
    files = {policy: out / f"service-{policy}.yaml" for policy in POLICIES}
    for policy, file in files.items():
        with writing("--out", file):
            write_service(settings.service, file, policy, slo_seconds)
    drawn: list[Outcome] = []
    reference: list[bytes] = []
    with Fleet(files["QualityAware"], out / "state") as fleet:
        _say(
            console,
            f"[2/5] up again; measuring the fleet's capacity at K = 0 ({CAPACITY_SECONDS:.0f} s)",
        )
        capacity = await measure_capacity(fleet.target, history, concurrency, CAPACITY_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        offered = SWING.scaled(settings.seconds, capacity)
        load = requests(poisson_arrivals(offered, rng), stream, rng)
        _say(
            console,
            f"      {capacity:.2f} images/s. Playing {len(load)} prompts of user sessions in "
            f"{settings.seconds:.0f} s, load from 0.3x to 1.6x of that, SLO {slo_seconds:g} s",
        )
        _say(console, "[3/5] QualityAware")
        aware = await _play(
            fleet, "QualityAware", load, offered, capacity, slo_seconds, settings, console
        )
        _say(console, "[4/5] measuring quality: the same prompts and seeds at K = 0")
        drawn = quality.draw(aware.outcomes, QUALITY_SAMPLES, settings.seed)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("reference images", total=len(drawn))
            reference = await quality.references(
                [address for _, address in fleet.workers().values()],
                drawn,
                lambda done: progress.update(task, completed=done),
            )
    measured = quality.measure(drawn, reference, settings.seed)

    _say(console, "[5/5] ClipperHA: the same arrivals, everything at K = 0")
    with Fleet(files["ClipperHA"], out / "state") as fleet:
        await measure_capacity(fleet.target, history, concurrency, WARM_UP_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        clipper = await _play(
            fleet, "ClipperHA", load, offered, capacity, slo_seconds, settings, console
        )
    measured_clipper = _measure_same(drawn, reference, clipper.outcomes, settings.seed)

    report = {
        "about": {
            "service": service.metadata.name,
            "seconds": settings.seconds,
            "seed": settings.seed,
            "workers": workers,
            "latency_at_k0_seconds": full_latency,
            "slo": settings.slo,
            "capacity_at_k0_images_per_s": capacity,
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "killed": settings.kill_worker,
        },
        "QualityAware": summarise(
            aware.outcomes,
            slo_seconds,
            settings.seconds,
            aware.watcher.samples,
            measured,
            aware.watcher.restarts,
        ),
        "ClipperHA": summarise(
            clipper.outcomes,
            slo_seconds,
            settings.seconds,
            clipper.watcher.samples,
            measured_clipper,
            clipper.watcher.restarts,
        ),
    }
    _summary(console, report)
    with writing("--out", out):
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        pictures.plot(
            out / "timeline.png",
            [
                pictures.Run("QualityAware", aware.outcomes, aware.watcher.samples),
                pictures.Run("ClipperHA", clipper.outcomes, clipper.watcher.samples),
            ],
            offered, capacity, slo_seconds,
        )  # fmt: skip
        pictures.contact_sheet(out / "images.png", _sheet_rows(drawn, reference))
    _say(console, f"written: {out}/report.json, {out}/timeline.png, {out}/images.png")
    return 0 if all(report[policy]["lost"] == 0 for policy in POLICIES) else 1


async def _slo(
    settings: Settings, workers: int, history: Sequence[PromptRequest], console: Console
) -> tuple[float, float]:
    """What an image in full takes on this machine, one on each worker, and the SLO made of it; seconds."""
    _say(console, f"[1/5] bringing up the service: router, {workers} workers, planner")
    with Fleet(settings.service, settings.out / "state") as fleet:
        latency = await measure_latency(fleet.target, history, workers)
    slo_seconds = round(slo_of(settings.slo, latency), 2)
    _say(
        console,
        f"      an image in full takes {latency:.2f} s here: the SLO is {slo_seconds:g} s "
        f"({settings.slo}; --slo sets another)",
    )
    return latency, slo_seconds


async def _play(
    fleet: Fleet,
    policy: str,
    load: Sequence[PromptRequest],
    offered: RateShape,
    capacity: float,
    slo_seconds: float,
    settings: Settings,
    console: Console,
) -> PolicyRun:
    board, watcher = Board(), Watcher(fleet)
    with Display(console, policy, offered, capacity) as display:
        background: list[asyncio.Task[None]] = []

        async def show(start: float) -> None:
            while True:
                display.update(start, board, watcher)
                await asyncio.sleep(1.0)

        async def kill() -> None:
            await asyncio.sleep(0.4 * settings.seconds)
            name = kill_hard(fleet)
            _say(console, f"      kill -9 of {name}")

        def started(start: float) -> None:
            background.append(asyncio.create_task(watcher.run(start)))
            background.append(asyncio.create_task(show(start)))
            if settings.kill_worker:
                background.append(asyncio.create_task(kill()))

        try:
            outcomes = await play(fleet.target, load, slo_seconds, board, started)
        finally:
            for task in background:
                task.cancel()
        for task in background:
            # A watcher that failed must not pass for one that saw nothing.
            with contextlib.suppress(asyncio.CancelledError):
                await task
    return PolicyRun(outcomes, watcher, capacity)


def _measure_same(
    drawn: Sequence[Outcome], reference: Sequence[bytes], outcomes: Sequence[Outcome], seed: int
) -> QualityMeasurement | None:
    """Quality of another run on those of the drawn prompts that it served, against the same references."""
    by_index = {o.request.index: o for o in outcomes if o.served}
    pairs = [
        (by_index[o.request.index], image)
        for o, image in zip(drawn, reference, strict=True)
        if o.request.index in by_index
    ]
    if not pairs:
        return None
    return quality.measure([o for o, _ in pairs], [image for _, image in pairs], seed)


def _sheet_rows(
    drawn: Sequence[Outcome], reference: Sequence[bytes]
) -> dict[int, list[tuple[Outcome, bytes]]]:
    pairs = list(zip(drawn, reference, strict=True))
    return {
        k: list(islice((p for p in pairs if p[0].skipped_steps == k), SHEET_COLUMNS))
        for k in sorted({o.skipped_steps for o in drawn})
    }


ROWS: tuple[tuple[str, str, str], ...] = (
    ("offered", "offered", "{:d}"),
    ("served in SLO", "served_in_slo", "{:d}"),
    ("late", "late", "{:d}"),
    ("dropped", "dropped", "{:d}"),
    ("shed", "shed", "{:d}"),
    ("lost", "lost", "{:d}"),
    ("SLO violations", "slo_violations", "{:.1%}"),
    ("relative quality, measured", "relative_quality", "{:.1%}"),
    ("mean skipped steps", "mean_skipped_steps", "{:.1f}"),
    ("cache hit rate", "cache_hit_rate", "{:.0%}"),
    ("latency p95, s", "latency_p95_seconds", "{:.2f}"),
    ("images/s", "images_per_s", "{:.2f}"),
    ("mix changes", "mix_changes", "{:d}"),
)


def _summary(console: Console, report: dict[str, Any]) -> None:
    table = Table(title="The same arrivals, served twice", title_justify="left")
    table.add_column("")
    for policy in POLICIES:
        table.add_column(policy, justify="right")
    for title, key, text in ROWS:
        values = [report[policy][key] for policy in POLICIES]
        table.add_row(title, *(text.format(v) if v is not None else "-" for v in values))
    console.print(table)
    measured = report["QualityAware"]["quality"]
    if measured:
        for name, key in (("attribute checker", "attributes"), ("CLIPScore", "clip_score")):
            interval = measured[key]
            _say(
                console,
                f"quality by {name}: {interval['value']:.3f} of K = 0 "
                f"(95 %: {interval['low']:.3f} to {interval['high']:.3f}, n = {measured['samples']})",
            )
    for policy in POLICIES:
        restarts, lost = report[policy]["worker_restarts"], report[policy]["lost"]
        for restart in restarts:
            _say(console, f"{policy}: {restart}")
        if restarts:
            _say(console, f"{policy}: {lost or 'nothing'} lost")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
