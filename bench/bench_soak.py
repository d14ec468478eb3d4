"""Workers for half an hour at twice their capacity, with cancels, and a peer that is killed over and over.

Looked at: memory (last third over first third of the run), requests that never end or bring two images, and
places in the batch that stay taken. Real processes, real gRPC on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from gesso.profile import Profile
from gesso.rpc.v1 import worker_pb2, worker_pb2_grpc
from gesso.vectors import packed

SERVICE = """\
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: soak}
spec:
  model: {source: "builtin://tiny-sdxl", steps: 50, width: 64, height: 64, guidanceScale: 2, dtype: float32}
  variants: [{name: default, skippedSteps: [0, 5, 10, 15, 20, 25]}]
  slo: {latencySeconds: 10}
  workers: {min: 1, max: 4, maxBatch: 8}
  cache: {capacity: 4Mi}
"""
LADDER = (0, 5, 10, 15, 20, 25)
START_S = 600.0
#: A call that has not ended so long past its deadline is lost.
GRACE_S = 60.0
#: Shares of requests: that are cancelled, that ask for two images, that want another size.
CANCELLED, TWICE, SMALL = 0.15, 0.05, 0.05
WORDS = (
    ("red", "blue", "green", "yellow", "purple", "orange"),
    ("circle", "square", "star", "triangle", "ring", "cross"),
)


@dataclass
class Worker:
    """A process, restarted when `peer`."""

    name: str
    folder: Path
    peer: bool
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    channel: grpc.aio.Channel | None = None
    lives: int = 0
    rss: list[tuple[float, int]] = field(default_factory=list)

    async def start(self) -> None:
        """Starts it and waits until it serves."""
        self._spawn()
        if self.channel is None:
            self.channel = grpc.aio.insecure_channel(self.address)
        self.lives += 1
        await self.ready()

    async def ready(self) -> None:
        """Waits until it serves."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended"
            try:
                if (await self.stub.Stats(worker_pb2.StatsRequest(), timeout=5)).ready:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.5)
        raise SystemExit(f"{self.name} did not become ready")

    def _spawn(self) -> None:
        self.port = self.port or free_port()
        log = (self.folder / f"{self.name}.log").open("ab")
        command = [sys.executable, "-m", "gesso_worker.server", "--name", self.name]
        command += ["--listen", self.address, "--service", str(self.folder / "service.yaml")]
        self.process = subprocess.Popen(command, stderr=log)
        log.close()

    def kill(self) -> None:
        """At once, as when a node is lost."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(120)

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def stub(self) -> Any:
        """To call it by."""
        return worker_pb2_grpc.WorkerStub(self.channel)


@dataclass
class Tally:
    """What came of the requests."""

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    duplicated: int = 0
    lost: int = 0
    skipped_steps: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def embedding_of(text: str) -> bytes:
    """A unit vector that only this text has: what matters here is that latents come and go."""
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    vector = rng.standard_normal(64)
    return packed(vector / np.linalg.norm(vector))


async def one_request(
    number: int, workers: list[Worker], rng: random.Random, deadline_s: float, tally: Tally
) -> None:
    """Looks up, generates, and sees how it ends."""
    at = workers[number % len(workers)]
    prompt = " ".join(rng.choice(w) for w in (*WORDS, *WORDS))
    vector = embedding_of(prompt)
    request = worker_pb2.WorkerGenerateRequest(
        request_id=f"r{number}",
        prompt=prompt,
        seed=number,
        embedding=vector,
        keep_latents=True,
        images=2 if rng.random() < TWICE else 1,
        width=32 if rng.random() < SMALL else 0,
        preview_steps=10 if rng.random() < SMALL else 0,
    )
    owner = rng.choice(workers)
    try:
        query = worker_pb2.LookupQuery(embedding=vector)
        lookup = worker_pb2.LookupRequest(queries=[query])
        found = await owner.stub.Lookup(lookup, timeout=0.5)
        (answer,) = found.answers
        if answer.matches and answer.matches[0].similarity > 0.9:
            match = answer.matches[0]
            request.skipped_steps = rng.choice(match.held_levels)
            request.source.entry_id = match.entry_id
            request.source.worker, request.source.address = owner.name, owner.address
    except grpc.aio.AioRpcError:
        pass  # the owner was killed: in full, then
    tally.sent += 1
    call = at.stub.Generate(request, timeout=deadline_s)
    cancel_s = rng.uniform(0, deadline_s / 2) if rng.random() < CANCELLED else None
    timer = asyncio.get_running_loop().call_later(cancel_s, call.cancel) if cancel_s else None
    images: Counter[int] = Counter()
    began = time.monotonic()
    try:
        async with asyncio.timeout(deadline_s + GRACE_S):
            async for event in call:
                if event.WhichOneof("event") == "image":
                    images[event.image_index] += 1
                    tally.skipped_steps[event.image.skipped_steps] += 1
        outcome = "image" if len(images) == request.images else "ended without its images"
        tally.latencies.append(time.monotonic() - began)
    except grpc.aio.AioRpcError as error:
        outcome = error.code().name
    except TimeoutError:
        outcome = "never ended"
    except asyncio.CancelledError:
        outcome = "CANCELLED"
    finally:
        if timer is not None:
            timer.cancel()
    tally.outcomes[outcome] += 1
    tally.lost += outcome in ("never ended", "ended without its images")
    tally.duplicated += any(n > 1 for n in images.values())


async def watch_memory(workers: list[Worker], began: float) -> None:
    """A sample of each process every second."""
    while True:
        for worker in workers:
            try:
                assert worker.process is not None
                rss = psutil.Process(worker.process.pid).memory_info().rss
                worker.rss.append((time.monotonic() - began, rss))
            except psutil.NoSuchProcess:
                pass
        await asyncio.sleep(1.0)


async def kill_peer(peer: Worker, every_s: float) -> None:
    """Over and over; it comes back at the same address, knowing nothing."""
    while True:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(peer.kill)
        await peer.start()


async def stuck(workers: list[Worker], patience_s: float) -> int:
    """Places that are still taken when nobody asks for anything any more."""
    until = time.monotonic() + patience_s
    while True:
        taken = 0
        for worker in workers:
            stats = await worker.stub.Stats(worker_pb2.StatsRequest(), timeout=10)
            taken += len(stats.active) + len(stats.queued)
        if not taken or time.monotonic() > until:
            return taken
        await asyncio.sleep(0.5)


def growth(samples: list[tuple[float, int]], seconds: float) -> float:
    """Mean of the last third over that of the first."""
    first = [rss for at, rss in samples if at < seconds / 3]
    last = [rss for at, rss in samples if at >= seconds * 2 / 3]
    return statistics.fmean(last) / statistics.fmean(first)


async def soak(
    minutes: float, load: float, kill_every_s: float, console: Console
) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="gesso-soak-"))
    (folder / "service.yaml").write_text(SERVICE)
    workers = [Worker(name, folder, name == "peer") for name in ("stays", "peer")]
    rng, tally = random.Random(0), Tally()
    tasks: set[asyncio.Task[None]] = set()
    background: list[asyncio.Task[None]] = []
    try:
        await asyncio.gather(*(w.start() for w in workers))
        stats = await workers[0].stub.Stats(worker_pb2.StatsRequest(), timeout=10)
        p = stats.profile
        profile = Profile(
            p.device, p.steps, p.encode_seconds, p.decode_seconds, tuple(p.step_seconds)
        )
        rate = load * len(workers) * profile.throughput(0)
        deadline_s = 5 * profile.latency_seconds(0, profile.best_batch())
        console.print(f"{rate:.2f} requests/s for {minutes:g} min, deadline {deadline_s:.1f} s")
        began = time.monotonic()
        background.append(asyncio.create_task(watch_memory(workers, began)))
        background.append(asyncio.create_task(kill_peer(workers[1], kill_every_s)))
        number, next_s, told_s = 0, began, began
        while time.monotonic() - began < 60 * minutes:
            for task in background:
                if task.done():
                    task.result()
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            next_s += rng.expovariate(rate)
            task = asyncio.create_task(one_request(number, workers, rng, deadline_s, tally))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
            if time.monotonic() - told_s > 60:
                told_s = time.monotonic()
                console.print(
                    f"{(told_s - began) / 60:.0f} min: {tally.sent} sent, {dict(tally.outcomes)}"
                )
        seconds = time.monotonic() - began
        background[1].cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=deadline_s + 2 * GRACE_S)
        tally.lost += len(tasks)
        # The last kill may have just happened.
        if workers[1].process is not None and workers[1].process.poll() is not None:
            await workers[1].start()
        await workers[1].ready()
        taken = await stuck(workers, 30.0)
        last = await workers[0].stub.Stats(worker_pb2.StatsRequest(), timeout=10)
        image = (
            await workers[0]
            .stub.Generate(worker_pb2.WorkerGenerateRequest(prompt="a red circle"), timeout=60)
            .read()
        )
        assert image is not None
    finally:
        for task in background:
            task.cancel()
        for worker in workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.kill()
            if worker.channel is not None:
                await worker.channel.close()
    ordered = sorted(tally.latencies)
    return {
        "minutes": seconds / 60,
        "load": load,
        "rate_per_s": rate,
        "deadline_s": deadline_s,
        "sent": tally.sent,
        "outcomes": dict(tally.outcomes),
        "images_by_level": {str(k): n for k, n in sorted(tally.skipped_steps.items())},
        "latency_p50_s": statistics.median(ordered) if ordered else None,
        "latency_p95_s": ordered[int(0.95 * (len(ordered) - 1))] if ordered else None,
        "peer_lives": workers[1].lives,
        "memory_last_over_first_third": growth(workers[0].rss, seconds),
        "memory_bytes_end": workers[0].rss[-1][1],
        "cache_bytes": last.cache_bytes,
        "cache_capacity_bytes": last.cache_capacity_bytes,
        "out_of_memory": last.out_of_memory,
        "lost": tally.lost,
        "duplicated": tally.duplicated,
        "stuck_places": taken,
        "profile": asdict(profile),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=2.0, help="of the workers' capacity at K = 0")
    parser.add_argument("--kill-every", type=float, default=90, metavar="S")
    given = parser.parse_args()
    console = Console(stderr=True)
    found = asyncio.run(soak(given.minutes, given.load, given.kill_every, console))
    report = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        **found,
    }
    table = Table(title=f"{found['minutes']:.1f} min at {given.load:g}x capacity")
    table.add_column("")
    table.add_column("found", justify="right")
    table.add_column("allowed", justify="right")
    rows = (
        ("memory, last third over first", f"{found['memory_last_over_first_third']:.3f}", "1.05"),
        ("requests lost", str(found["lost"]), "0"),
        ("requests with an image twice", str(found["duplicated"]), "0"),
        ("places that stayed taken", str(found["stuck_places"]), "0"),
        ("requests sent", str(found["sent"]), ""),
        *((f"ended as {name}", str(n), "") for name, n in sorted(found["outcomes"].items())),
        ("lives of the peer", str(found["peer_lives"]), ""),
    )
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    out = Path(__file__).parent / "out" / "soak.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written: {out}")
    if found["memory_last_over_first_third"] > 1.05 or found["lost"] or found["duplicated"]:
        raise SystemExit(1)
    if found["stuck_places"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
