"""Tunes the backlog price: the router's own choice against simulated workers.

Over loads, fleets, deadlines and spreads of the quality curves. Discrete events, seeded. Workers
batch mixed steps as the engine does, with a profile of the tiny model's shape (FACTS: 10 ms a step
alone, 4.6 ms each in a batch of 8). Each prompt has a curve that the router knows; how much curves
differ is the spread. The score of a pair (c, p) is relative quality served in time per request
offered, averaged over all scenarios: a late or refused request counts 0. `fluid` is the bound of a
clairvoyant with divisible work and no waiting.

    python bench/bench_price.py [--full]
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import os
import platform
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gesso.profile import Profile
from gesso_router.routing.choose import Ask, Choice, ChoicePolicy, FleetView, WorkerView, choose
from gesso_router.routing.margin import Drift, Margin
from gesso_router.routing.pace import Pace
from gesso_router.routing.price import PricePolicy
from gesso_router.routing.quality import Match, Option

STEPS = 50
LADDER = (0, 5, 10, 15, 20, 25)
#: Mean loss at each K: as published for SD-XL, scaled by the spreads below.
LOSS = (0.0, 0.030, 0.042, 0.056, 0.068, 0.085)
PROFILE = Profile("tiny", STEPS, 0.004, 0.010, tuple(0.0063 + 0.0038 * b for b in range(1, 9)))
JITTER = 0.05
MISSES = 0.1  # share of prompts without an entry

SPREADS: dict[str, Callable[[random.Random], float]] = {
    "none": lambda _: 1.0,
    "published": lambda r: r.lognormvariate(-0.125, 0.5),
    "wide": lambda r: 0.2 if r.random() < 0.5 else r.uniform(1.0, 5.0),
}


@dataclass(eq=False)
class Request:
    """A prompt on a worker; times in seconds of the run."""

    deadline: float
    sent: float = 0.0
    estimated: float = 0.0
    quality: float = 1.0
    remaining: int = STEPS
    started: float = 0.0
    expected: float = 0.0


@dataclass
class SimulatedWorker:
    """Mixed-step batching, FIFO; a segment is a run of ticks during which the batch does not change."""

    name: str
    active: list[Request] = field(default_factory=list)
    queue: deque[Request] = field(default_factory=deque)
    start: float = 0.0
    tick: float = 0.0
    ticks: int = 0
    version: int = 0

    def remaining(self, now: float) -> tuple[int, ...]:
        """Steps left of each active request."""
        done = min(self.ticks, int((now - self.start) / self.tick)) if self.active else 0
        return tuple(max(1, r.remaining - max(0, done)) for r in self.active)


@dataclass(frozen=True)
class Result:
    """What became of the requests of a run; sums of relative quality."""

    offered: int
    served_in_time: int
    late: int
    refused: int
    quality_in_time: float
    quality_served: float
    decide_seconds: float

    @property
    def score(self) -> float:
        """Relative quality served in time per request offered."""
        return self.quality_in_time / self.offered

    @property
    def violations(self) -> float:
        """Share late or refused."""
        return (self.late + self.refused) / self.offered

    @property
    def mean_quality(self) -> float:
        """Relative quality of the average image served."""
        return self.quality_served / max(1, self.served_in_time + self.late)


def draw_options(rng: random.Random, spread: str) -> tuple[Option, ...]:
    scale = SPREADS[spread](rng)
    if rng.random() < MISSES:
        return (Option(0, 1.0),)
    match = Match("e", f"w{rng.randrange(8)}", 0.8, LADDER[1:])
    return tuple(
        Option(k, max(0.0, 1 - scale * loss), match if k else None)
        for k, loss in zip(LADDER, LOSS, strict=True)
    )


def simulate(
    policy: ChoicePolicy,
    workers: int,
    load: Callable[[float], float],
    spread: str,
    slo: float,
    seconds: float,
    seed: int,
    truth: float = 1.0,
) -> Result:
    """One run.

    Workers take `truth` times as long as their profile says; `load` gives arrivals in units of the
    fleet's K = 0 capacity at a share (0 to 1) of the run.
    """
    # Arrivals and prompts have a generator of their own: every policy meets the same.
    rng, jitter = random.Random(seed), random.Random(seed + 1)
    capacity = workers * PROFILE.throughput(0) / truth
    fleet = [SimulatedWorker(f"w{i}") for i in range(workers)]
    by_name = {w.name: w for w in fleet}
    events: list[tuple[float, int, int, int]] = []
    order = itertools.count()
    heapq.heappush(events, (0.0, next(order), -1, 0))
    margin, pace, drift = Margin(), Pace(), [Drift()] * workers
    offered = in_time = late = refused = 0
    quality_in_time = quality_served = decide = 0.0
    peak = max(load(x / 50) for x in range(51))

    def schedule(i: int, now: float) -> None:
        """The next segment of a worker that stands at a tick boundary."""
        w = fleet[i]
        start = now
        while w.queue and len(w.active) < PROFILE.max_batch:
            for r in w.active:
                r.expected += PROFILE.encode_seconds
            w.active.append(w.queue.popleft())
            start += PROFILE.encode_seconds
            w.active[-1].started = start
        w.version += 1
        if not w.active:
            return
        w.start = start
        w.tick = truth * PROFILE.tick_seconds(len(w.active)) * max(0.5, jitter.gauss(1, JITTER))
        w.ticks = min(r.remaining for r in w.active)
        heapq.heappush(events, (start + w.ticks * w.tick, next(order), i, w.version))

    while events:
        now, _, i, version = heapq.heappop(events)
        if i >= 0:
            w = fleet[i]
            if version != w.version:
                continue
            expected = w.ticks * drift[i].applied(PROFILE).tick_seconds(len(w.active))
            for r in w.active:
                r.remaining -= w.ticks
                r.expected += expected
            done = [r for r in w.active if r.remaining <= 0]
            w.active = [r for r in w.active if r.remaining > 0]
            stall = PROFILE.decode_seconds * len(done)
            now += stall
            for r in (*w.active, *done):
                r.expected += stall
            for r in done:
                margin = margin.observe(r.estimated, now - r.sent)
                drift[i] = drift[i].observe(r.expected, now - r.started, now)
                quality_served += r.quality
                if now <= r.deadline:
                    in_time += 1
                    quality_in_time += r.quality
                else:
                    late += 1
            schedule(i, now)
            continue
        if now > seconds:
            continue
        heapq.heappush(events, (now + rng.expovariate(capacity * peak), next(order), -1, 0))
        if rng.random() > load(now / seconds) / peak:
            continue
        offered += 1
        options = draw_options(rng, spread)
        view = FleetView(
            workers=tuple(
                WorkerView(
                    w.name,
                    drift[j].applied(PROFILE),
                    0,
                    w.remaining(now),
                    tuple(r.remaining for r in w.queue),
                )
                for j, w in enumerate(fleet)
            ),
            slo_seconds=slo,
            arrivals_per_second=pace.per_second(now),
            mean_steps=pace.mean_steps,
            fetch_seconds=0.002,
            margin=margin.factor,
        )
        began = time.perf_counter()
        decision = choose(Ask(options, STEPS, slo), view, policy)
        decide += time.perf_counter() - began
        if not isinstance(decision, Choice):
            refused += 1
            continue
        k = decision.skipped_steps
        pace = pace.arrived(now, STEPS - k)
        request = Request(
            now + slo, now, decision.finish_seconds, decision.option.quality, STEPS - k
        )
        w = by_name[decision.worker]
        w.queue.append(request)
        i = fleet.index(w)
        if not w.active:
            schedule(i, now)
        elif len(w.active) < PROFILE.max_batch:  # joins at the end of the tick in progress
            done_ticks = min(w.ticks, max(0, math.ceil((now - w.start) / w.tick)))
            if done_ticks < w.ticks:
                w.ticks = done_ticks
                w.version += 1
                heapq.heappush(events, (w.start + done_ticks * w.tick, next(order), i, w.version))
    return Result(offered, in_time, late, refused, quality_in_time, quality_served, decide)


def fluid_bound(load: Callable[[float], float], spread: str, seed: int) -> float:
    """Quality in time per request with divisible work, no waiting and known curves, minute by minute."""
    rng = random.Random(seed)
    prompts = [draw_options(rng, spread) for _ in range(2000)]
    work = {k: PROFILE.work_seconds(k) for k in LADDER}
    total = weight = 0.0
    for x in range(50):
        rho = load((x + 0.5) / 50)
        room = work[0] / rho

        def at(price: float, room: float = room) -> tuple[float, float]:
            """Mean quality and work when a worker-second costs this; who is not worth it is not served."""
            quality = used = 0.0
            for options in prompts:
                best = max(options, key=lambda o: o.quality - price * work[o.skipped_steps])
                if best.quality > price * work[best.skipped_steps]:
                    quality += best.quality
                    used += work[best.skipped_steps]
            return quality / len(prompts), used / len(prompts)

        low, high = 0.0, 2.0 / work[LADDER[-1]]
        quality, used = at(0.0)
        if used > room:
            for _ in range(18):
                middle = (low + high) / 2
                quality, used = at(middle)
                low, high = (middle, high) if used > room else (low, middle)
            (q0, u0), (q1, u1) = at(high), at(low)
            quality = q0 + (q1 - q0) * (room - u0) / (u1 - u0) if u1 > u0 else q0
        total += rho * quality
        weight += rho
    return total / weight


def constant(level: float) -> Callable[[float], float]:
    return lambda _: level


def swing(x: float) -> float:
    """0.3x to 1.6x and back, twice."""
    return 0.95 - 0.65 * math.cos(4 * math.pi * x)


LOADS: dict[str, Callable[[float], float]] = {
    **{f"{x:g}x": constant(x) for x in (0.3, 0.6, 0.9, 1.2, 1.5, 1.8)},
    "swing": swing,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the grid of c and p, two SLOs")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--slo", type=float, nargs="+", default=[3.0, 7.5], help="x latency alone")
    parser.add_argument("--out", type=Path, default=Path("bench/out/price.json"))
    args = parser.parse_args()
    chosen = PricePolicy()
    grid = [chosen]
    if args.full:
        grid = [PricePolicy(c, p) for c in (2, 4, 6, 8, 12) for p in (1, 2, 3)]
    slos = tuple(args.slo)
    alone = PROFILE.latency_seconds(0, 1)
    bounds = {
        (name, spread): fluid_bound(load, spread, 1)
        for name, load in LOADS.items()
        for spread in SPREADS
    }
    rows = []
    began = time.perf_counter()
    for price in grid:
        policy = replace(ChoicePolicy(), price=price)
        for workers, (name, load), spread, factor in itertools.product(
            (2, 8), LOADS.items(), SPREADS, slos
        ):
            # Long enough for about as many requests with 8 workers as with 2.
            seconds = args.seconds * (2 / workers) ** 0.5
            r = simulate(policy, workers, load, spread, factor * alone, seconds, seed=7)
            rows.append(
                {
                    "c": price.weight,
                    "p": price.exponent,
                    "workers": workers,
                    "load": name,
                    "spread": spread,
                    "slo_over_latency": factor,
                    "offered": r.offered,
                    "score": r.score,
                    "fluid": bounds[name, spread],
                    "violations": r.violations,
                    "late": r.late,
                    "refused": r.refused,
                    "quality": r.mean_quality,
                    "decide_us": 1e6 * r.decide_seconds / max(1, r.offered),
                }
            )
    print(
        f"{'c':>5} {'p':>3}  {'score':>7} {'violations':>10} {'quality':>8}   (mean of all scenarios)"
    )
    for price in grid:
        mine = [r for r in rows if (r["c"], r["p"]) == (price.weight, price.exponent)]
        mean = {
            key: sum(r[key] for r in mine) / len(mine) for key in ("score", "violations", "quality")
        }
        print(
            f"{price.weight:5g} {price.exponent:3g}  {mean['score']:7.4f} {mean['violations']:10.2%} "
            f"{mean['quality']:8.4f}"
        )
    print(f"\nc = {chosen.weight:g}, p = {chosen.exponent:g}:")
    print(
        "workers  load   spread     slo   violations  late  refused  quality   score   fluid  us/choice"
    )
    for r in rows:
        if (r["c"], r["p"]) == (chosen.weight, chosen.exponent):
            print(
                f"{r['workers']:7}  {r['load']:5}  {r['spread']:9}  {r['slo_over_latency']:g}x"
                f"   {r['violations']:9.2%} {r['late']:5} {r['refused']:8}  {r['quality']:7.4f} "
                f"{r['score']:7.4f} {r['fluid']:7.4f}  {r['decide_us']:7.0f}"
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps(
            {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                "seconds": time.perf_counter() - began,
                "rows": rows,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
