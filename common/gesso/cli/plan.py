"""`gesso plan`: what the planner would do at a rate, without a cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from gesso.api import DiffusionService
from gesso.cli.console import CliError, note, say
from gesso.plan import PromptClass, QualityCurve
from gesso.profile import Profile
from gesso_operator.planning import Settings
from gesso_operator.planning.capacity import blend_of, late_share, level_bound, working_batch
from gesso_operator.planning.instance import Member, change_costs, instance_of
from gesso_operator.planning.pooled import Pooled, pooled
from gesso_operator.planning.problem import Problem
from gesso_operator.planning.solve import solve

#: Published mean relative quality of SD-XL by skipped steps of 50, and its seconds for an image on an A100.
PUBLISHED_QUALITY = (
    (0, 1.0),
    (5, 0.97046),
    (10, 0.95808),
    (15, 0.94378),
    (20, 0.93235),
    (25, 0.9152),
)
PUBLISHED_SECONDS = 4.20
PUBLISHED_STEPS = 50
_SWEEP_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5)


@dataclass(frozen=True)
class Row:
    """One planned rate: the mix as `K:workers`, expected mean relative quality of what is served, share
    served in time, images/s refused, price of a worker-second in relative quality.
    """

    rate: float
    mix: str
    workers: int
    quality: float
    attainment: float
    shed: float
    price: float
    reason: str


def published_profile(steps: int) -> Profile:
    """SD-XL on an A100 as published: no fixed cost, batch 1."""
    return Profile("A100", steps, 0.0, 0.0, (PUBLISHED_SECONDS / PUBLISHED_STEPS,))


def published_classes(ladder: Sequence[int], steps: int) -> tuple[PromptClass, ...]:
    """The published means as one class; between and beyond the published levels on straight lines, by the
    share of the steps skipped.
    """
    quality = tuple(_published_at(k / steps * PUBLISHED_STEPS) for k in ladder)
    return (PromptClass("published mean", 1.0, QualityCurve(tuple(ladder), quality)),)


def parse_mix(text: str, ladder: Sequence[int]) -> dict[int, int]:
    """`0:5,10:2` as workers by level. Raises CliError on anything else."""
    allowed = f"like 0:5,25:1, with levels of the ladder ({', '.join(map(str, ladder))})"
    mix: dict[int, int] = {}
    for part in text.split(","):
        level, _, count = part.partition(":")
        try:
            k, n = int(level), int(count)
        except ValueError:
            raise CliError(f"--current: {text} is not allowed: {allowed}", 2) from None
        if k not in ladder or n < 0 or k in mix:
            raise CliError(f"--current: {text} is not allowed: {allowed}", 2)
        mix[k] = n
    if not any(mix.values()):
        raise CliError(f"--current: {text} is not allowed: {allowed}", 2)
    return mix


def plan_at(
    service: DiffusionService, rate: float, profile: Profile, mix: dict[int, int] | None = None
) -> Row:
    """The best mix for a rate that is known and stays; `mix` is what there is now (None: the most workers,
    at K = 0).

    Between `workers.min` and `workers.max` the fewest that serve everything at full quality are taken, or all.
    """
    settings = Settings.of(service)
    classes = published_classes(settings.ladder, profile.steps)
    least, most = service.spec.workers.min, service.spec.workers.max
    sizes = [sum(mix.values())] if mix else [least, most]
    if not mix and rate > 0:
        fewest = range(least, most + 1)
        full = profile.throughput(0, working_batch(profile, settings))
        enough = (n for n in fewest if n * full * level_bound(profile, 0, n, settings) >= rate)
        sizes = [next(enough, most)]
    levels = [k for k, n in (mix or {0: sizes[0]}).items() for _ in range(n)]
    members = [Member(f"worker-{i}", profile.device, "", k) for i, k in enumerate(levels)]
    instance = instance_of(rate, classes, None, members, {(profile.device, ""): profile}, settings)
    pool = pooled(instance.problem)
    level_cost, load_cost = change_costs(instance.problem, pool.price, settings)
    problem = replace(
        instance.problem, keep_models=True, level_cost=level_cost, load_cost=load_cost
    )
    counts = solve(problem).workers[0]
    shed = pool.shed
    chosen = ",".join(f"{k}:{n}" for (_, k), n in zip(problem.variants, counts, strict=True) if n)
    return Row(
        rate=rate,
        mix=chosen,
        workers=len(members),
        quality=pool.quality if rate > 0 else 1.0,
        attainment=_attainment(problem, pool, profile, settings),
        shed=shed,
        price=pool.price,
        reason=_reason(problem, pool, instance.unreachable, settings),
    )


def run(
    service: DiffusionService,
    rate: float | None,
    current: str | None,
    sweep: bool,
    profile_file: Path | None,
    as_json: bool,
) -> None:
    """Prints the plan at a rate, or the curve from idle to overload. Raises CliError on input that is not
    allowed.
    """
    if rate is not None and (not math.isfinite(rate) or rate < 0):
        raise CliError(f"--rate: {rate} is not allowed: images per second, 0 or more, finite", 2)
    if rate is None and not sweep:
        raise CliError("--rate: missing: a rate in images per second, or --sweep", 2)
    steps = service.spec.model.steps
    profile = _profile(profile_file, steps)
    mix = parse_mix(current, service.ladder) if current is not None else None
    if not sweep:
        rates = [rate or 0.0]
    else:
        workers = sum(mix.values()) if mix else service.spec.workers.max
        full = workers * profile.throughput(0)
        rates = [share * full for share in _SWEEP_SHARES]
    rows = [plan_at(service, r, profile, mix) for r in rates]
    if as_json:
        say(json.dumps([asdict(r) for r in rows] if sweep else asdict(rows[0]), indent=2))
        return
    note("quality: the published means of SD-XL, as if every prompt were the average one")
    if profile_file is None:
        note(
            f"profile: SD-XL on an A100 as published ({PUBLISHED_SECONDS} s at K = 0); --profile gives another"
        )
    if not sweep:
        row = rows[0]
        say(f"mix         {row.mix}  ({row.workers} workers)")
        say(f"quality     {row.quality:.3f} expected, relative to K = 0")
        say(f"in time     {row.attainment:.1%} within {service.spec.slo.latency_seconds:g} s")
        say(f"refused     {row.shed:.2f} of {row.rate:.2f} images/s")
        say(f"reason      {row.reason}")
        return
    say(
        f"{'images/s':>9} {'workers':>7} {'quality':>7} {'in time':>7} {'refused':>8} {'price':>7}  mix"
    )
    for row in rows:
        say(
            f"{row.rate:9.2f} {row.workers:7d} {row.quality:7.3f} {row.attainment:7.1%} {row.shed:8.2f} "
            f"{row.price:7.4f}  {row.mix}"
        )


def _profile(path: Path | None, steps: int) -> Profile:
    if path is None:
        return published_profile(steps)
    # Only here, since it loads numpy's linear algebra.
    from gesso.csv_input import InputError
    from gesso.profile_table import read_profile

    try:
        return read_profile(path, steps).profile
    except InputError as error:
        raise CliError(str(error), 2) from None


def _published_at(k: float) -> float:
    points = PUBLISHED_QUALITY
    for (k0, q0), (k1, q1) in pairwise(points):
        if k <= k1 or (k1, q1) == points[-1]:
            return max(0.0, q0 + (q1 - q0) * (k - k0) / (k1 - k0))
    return points[-1][1]


def _attainment(problem: Problem, pool: Pooled, profile: Profile, settings: Settings) -> float:
    """Share of the offered images that are served in time, waiting included."""
    if problem.rate <= 0:
        return 1.0
    served = pool.served[0]
    total = sum(served)
    if total <= 0:
        return 0.0
    batch = working_batch(profile, settings)
    blend = blend_of(profile, [k for _, k in problem.variants], served, batch)
    use = total * blend.mean_s / problem.workers
    late = late_share(use, problem.workers, blend, settings.latency_s)
    return (1.0 - late) * total / problem.rate


def _reason(problem: Problem, pool: Pooled, unreachable: bool, settings: Settings) -> str:
    if unreachable:
        return f"SLOUnreachable: no level is done within {settings.latency_s:g} s on an idle worker"
    full = problem.workers * problem.bound[0][0] / problem.work_s[0][0]
    if pool.shed > 0:
        most = problem.rate - pool.shed
        return f"Overloaded: at its fastest the fleet serves {most:.2f} images/s in time"
    if pool.price > 0:
        return (
            f"LoadRose: in full the fleet serves {full:.2f} images/s in time, so steps are skipped"
        )
    return f"Steady: in full the fleet serves {full:.2f} images/s in time"
