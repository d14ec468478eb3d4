"""From what is known to the solver's instance: the fleet by pools, capacity, demand, and what a backlog
takes away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from gesso.plan import PromptClass
from gesso.profile import Profile, mean_profile
from gesso_operator.planning.capacity import level_bound, working_batch
from gesso_operator.planning.forecast import curve_of
from gesso_operator.planning.observation import RouterReport, WorkerView
from gesso_operator.planning.problem import Counts, Problem
from gesso_operator.planning.settings import Settings

_LEAST_SLACK = 0.1

#: (device class, model) to its profile.
Profiles = Mapping[tuple[str, str], Profile]


class Member(NamedTuple):
    """A worker that is planned for: it serves (`ready`), or is on its way to another model.

    `level` is the K that it was last given, None for one that has none; 0 for another model than the own.
    """

    name: str
    device: str
    model: str
    level: int | None
    ready: bool = True


def learned_profiles(
    known: Profiles, workers: Sequence[WorkerView], settings: Settings
) -> dict[tuple[str, str], Profile]:
    """What is known with what the ready workers now report; what the settings give stands above both.

    Of a pool the mean profile, of those with the most common number of steps, if they differ.
    """
    found: dict[tuple[str, str], dict[int, Profile]] = {}
    for worker in workers:
        profile = worker.profile
        if worker.ready and profile is not None:
            if not worker.model and profile.steps <= settings.ladder[-1]:
                continue
            found.setdefault((profile.device, worker.model), {})[id(profile)] = profile
    profiles = dict(known)
    for pool, mine in found.items():
        distinct = list(mine.values())
        steps = [p.steps for p in distinct]
        common = max(sorted(set(steps)), key=steps.count)
        alike = [p for p in distinct if p.steps == common]
        profiles[pool] = alike[0] if len(alike) == 1 else mean_profile(alike)
    profiles.update(settings.profiles)
    return profiles


def own_profile(profiles: Profiles, devices: Sequence[str]) -> Profile | None:
    """A profile of the service's own model: of the first of these device classes that has one, else any."""
    for device in devices:
        if (device, "") in profiles:
            return profiles[device, ""]
    return next((p for (_, model), p in sorted(profiles.items()) if not model), None)


#: How many members are alike: by device class, model, level, and whether they serve. Thousands of workers are
#: of a few kinds.
Kinds = Mapping[tuple[str, str, int | None, bool], int]


def kinds_of(members: Sequence[Member]) -> Kinds:
    """How many members there are of each kind."""
    return Counter(map(attrgetter("device", "model", "level", "ready"), members))


def devices_of(kinds: Kinds) -> tuple[str, ...]:
    """The device classes, the most common first."""
    counts: Counter[str] = Counter()
    for (device, _, _, _), n in kinds.items():
        counts[device] += n
    return tuple(sorted(counts, key=lambda d: (-counts[d], d)))


def held_of(
    kinds: Kinds, devices: Sequence[str], models: Sequence[str], ready: bool = False
) -> Counts:
    """Workers by [device][model]; with `ready` those that serve."""
    counts: Counter[tuple[str, str]] = Counter()
    for (device, model, _, serves), n in kinds.items():
        if serves or not ready:
            counts[device, model] += n
    return tuple(tuple(counts[d, m] for m in models) for d in devices)


def current_of(kinds: Kinds, devices: Sequence[str], settings: Settings) -> Counts:
    """Workers with a level by [device][variant]."""
    counts: Counter[tuple[str, str, int | None]] = Counter()
    for (device, model, level, _), n in kinds.items():
        counts[device, model, level] += n
    return tuple(tuple(counts[d, m, k] for m, k in settings.variants) for d in devices)


@dataclass(frozen=True)
class Instance:
    """The solver's instance, and what went into it: whether no level meets the deadline (then planned as if all
    did), and the working batch of the first device class.
    """

    problem: Problem
    unreachable: bool
    batch: int


def instance_of(
    rate: float,
    classes: tuple[PromptClass, ...],
    report: RouterReport | None,
    members: Sequence[Member],
    profiles: Profiles,
    settings: Settings,
) -> Instance:
    """The instance at a rate, without costs of change (see `priced_changes`). Raises ValueError without any
    profile of the service's own model.
    """
    kinds = kinds_of(members)
    devices = devices_of(kinds)
    base = own_profile(profiles, devices)
    if base is None:
        raise ValueError("profiles: none of the service's own model")
    models = tuple(dict.fromkeys(m for m, _ in settings.variants))
    held = held_of(kinds, devices, models)
    work, bound = [], []
    for d, device in enumerate(devices):
        times, bounds = [], []
        for model, k in settings.variants:
            profile = profiles.get((device, model), None if model else base)
            if profile is None:
                times.append(math.inf)
                bounds.append(0.0)
                continue
            count = max(1, held[d][models.index(model)])
            times.append(profile.work_seconds(k, working_batch(profile, settings)))
            bounds.append(level_bound(profile, k, count, settings))
        work.append(tuple(times))
        bound.append(tuple(bounds))
    unreachable = max(map(max, bound)) <= 0
    if unreachable:
        bound = [
            tuple(settings.max_utilisation if math.isfinite(w) else 0.0 for w in row)
            for row in work
        ]
    batch = working_batch(base, settings)
    # A full batch in hand is how a busy worker should be; what is more is a backlog.
    backlog = report.backlog_s if report and math.isfinite(report.backlog_s) else 0.0
    excess = max(0.0, backlog - batch * work[0][0])
    sizes = tuple(map(sum, held))
    problem = Problem(
        devices=devices,
        variants=settings.variants,
        work_s=tuple(work),
        bound=tuple(bound),
        rate=rate,
        # Without curves only full generation is known to be good.
        classes=classes or (PromptClass("unknown", 1.0, curve_of((), settings)),),
        held=held,
        current=current_of(kinds, devices, settings),
        least=sizes,
        most=sizes,
        min_quality=settings.min_quality,
        shed_penalty=settings.shed_penalty,
        mismatch_cost=settings.mismatch_share / work[0][0],
        stray_share=settings.stray_share,
        slack=max(_LEAST_SLACK, 1.0 - excess / settings.drain_s),
    )
    return Instance(problem, unreachable, batch)


def change_costs(
    problem: Problem, price: float, settings: Settings
) -> tuple[float, tuple[tuple[float, ...], ...]]:
    """What a worker's change of level, and its change to each [device][model], cost over the pay-back.

    A change of level loses nothing, since a worker serves every level: it counts as one image in full of
    capacity that is plenty, so that no move is free. A change of model loses the worker-seconds of loading,
    at the price, and at no less than the same little.
    """
    full = problem.work_s[0][0]
    least = settings.least_price_share / full
    value = max(price, least) / settings.payback_s
    load = tuple(
        tuple(settings.load_s(device, model) * value for model in problem.models)
        for device in problem.devices
    )
    return full * least / settings.payback_s, load
