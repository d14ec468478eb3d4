"""What the planner settles for at a rate that is known and stays: the answer behind `gesso plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gesso.plan import PromptClass
from gesso.profile import Profile
from gesso_operator.planning import Settings
from gesso_operator.planning.capacity import blend_of, late_share, level_bound, working_batch
from gesso_operator.planning.forecast import curve_of
from gesso_operator.planning.instance import Instance, Member, change_costs, instance_of
from gesso_operator.planning.models import easy, refuses
from gesso_operator.planning.pooled import Pooled, pooled
from gesso_operator.planning.problem import Problem
from gesso_operator.planning.solve import solve

#: Workers by (model, K); the service's own model has the empty name.
Mix = Mapping[tuple[str, int], int]


@dataclass(frozen=True)
class Row:
    """One planned rate: the mix as `K:workers`, other models by name; expected mean relative quality of what is
    served, share served in time, images/s refused, price of a worker-second in relative quality.
    """

    rate: float
    mix: str
    workers: int
    quality: float
    attainment: float
    shed: float
    price: float
    reason: str


@dataclass(frozen=True)
class OtherModel:
    """A model that workers may hold instead of the service's own: relative quality of its images, the same for
    every prompt, and seconds for one. `profile` says more than seconds, where there is one.
    """

    name: str
    quality: float
    seconds: float
    profile: Profile | None = None


@dataclass(frozen=True)
class Fleet:
    """`least` to `most` workers of one device class, and the prompts that they serve.

    `classes` have curves along `settings.variants`; `profiles` are by model, the own one by the empty name.
    """

    settings: Settings
    profiles: Mapping[str, Profile]
    classes: tuple[PromptClass, ...]
    least: int
    most: int

    @property
    def own(self) -> Profile:
        """The profile of the service's own model."""
        return self.profiles[""]


def fleet_of(
    settings: Settings,
    profile: Profile,
    classes: tuple[PromptClass, ...],
    others: tuple[OtherModel, ...],
    least: int,
    most: int,
) -> Fleet:
    """The fleet of a service; `settings.models` are `others`, `classes` have curves over the ladder alone."""
    worth = tuple(o.quality for o in others)
    curves = [curve_of((*c.curve.quality, *worth), settings) for c in classes]
    profiles = {"": profile} | {o.name: _profile(o, profile) for o in others}
    return Fleet(
        settings=settings,
        profiles=profiles,
        classes=tuple(replace(c, curve=q) for c, q in zip(classes, curves, strict=True)),
        least=least,
        most=most,
    )


def plan_at(fleet: Fleet, rate: float, mix: Mix | None = None) -> Row:
    """The best mix for a rate that stays; `mix` is what there is now (None: the most workers, at K = 0).

    Between `least` and `most` workers the fewest that serve everything in full are taken, or all. Other
    models come in as the live planner brings them: where the load would be refused, or where quality asks
    for it with workers as busy as can be.
    """
    settings = fleet.settings
    now = mix or {("", 0): _workers(fleet, rate)}
    instance = _instance(fleet, rate, now)
    # Without load no model is better than another.
    if len(instance.problem.models) > 1 and rate > 0:
        instance = _instance(fleet, rate, _with_models(instance.problem, settings))
    pool = pooled(instance.problem)
    level_cost, load_cost = change_costs(instance.problem, pool.price, settings)
    problem = replace(
        instance.problem, keep_models=True, level_cost=level_cost, load_cost=load_cost
    )
    counts = solve(problem).workers[0]
    return Row(
        rate=rate,
        mix=_mix_text({v: n for v, n in zip(problem.variants, counts, strict=True) if n}),
        workers=problem.workers,
        quality=pool.quality if rate > 0 else 1.0,
        attainment=_attainment(problem, pool, fleet),
        shed=pool.shed,
        price=pool.price,
        reason=_reason(problem, pool, instance.unreachable, fleet),
    )


def _profile(other: OtherModel, own: Profile) -> Profile:
    return other.profile or Profile(own.device, 1, 0.0, 0.0, (other.seconds,), own.p95_ratio)


def _workers(fleet: Fleet, rate: float) -> int:
    if rate <= 0:
        return fleet.least
    full = fleet.own.throughput(0, working_batch(fleet.own, fleet.settings))
    sizes = range(fleet.least, fleet.most + 1)
    enough = (n for n in sizes if n * full * level_bound(fleet.own, 0, n, fleet.settings) >= rate)
    return next(enough, fleet.most)


def _instance(fleet: Fleet, rate: float, mix: Mix) -> Instance:
    device = fleet.own.device
    held = [variant for variant, n in mix.items() for _ in range(n)]
    members = [Member(f"worker-{i}", device, model, k) for i, (model, k) in enumerate(held)]
    profiles = {(device, model): profile for model, profile in fleet.profiles.items()}
    return instance_of(rate, fleet.classes, None, members, profiles, fleet.settings)


def _with_models(problem: Problem, settings: Settings) -> Mix:
    """The best workers by variant where each may hold any model; loading costs nothing at a rate that stays."""
    if not refuses(problem):
        problem = easy(problem, problem.rate, settings)
    goal = solve(replace(problem, mismatch_cost=0.0))
    return {v: n for v, n in zip(problem.variants, goal.workers[0], strict=True) if n}


def _mix_text(mix: Mix) -> str:
    return ",".join(f"{model or k}:{n}" for (model, k), n in mix.items())


def _attainment(problem: Problem, pool: Pooled, fleet: Fleet) -> float:
    """Share of the offered images that are served in time, waiting included."""
    if problem.rate <= 0:
        return 1.0
    in_time = 0.0
    for m, model in enumerate(problem.models):
        places = [v for v, of in enumerate(problem.model_of) if of == m]
        served = [pool.served[0][v] for v in places]
        workers, total = problem.held[0][m], sum(served)
        if total <= 0:
            continue
        profile = fleet.profiles[model]
        levels = [problem.variants[v][1] for v in places]
        blend = blend_of(profile, levels, served, working_batch(profile, fleet.settings))
        use = total * blend.mean_s / workers
        in_time += total * (1.0 - late_share(use, workers, blend, fleet.settings.latency_s))
    return in_time / problem.rate


def _reason(problem: Problem, pool: Pooled, unreachable: bool, fleet: Fleet) -> str:
    if unreachable:
        latency_s = fleet.settings.latency_s
        return f"SLOUnreachable: no level is done within {latency_s:g} s on an idle worker"
    bound = level_bound(fleet.own, 0, problem.workers, fleet.settings)
    full = problem.workers * bound / problem.work_s[0][0]
    in_full = f"in full the fleet serves {full:.2f} images/s in time"
    if pool.shed > 0:
        most = problem.rate - pool.shed
        return f"Overloaded: at its fastest the fleet serves {most:.2f} images/s in time"
    others = sum(problem.held[0][1:])
    if others:
        return f"LoadRose: {in_full}, so {others} of {problem.workers} workers hold another model"
    if pool.price > 0:
        return f"LoadRose: {in_full}, so steps are skipped"
    return f"Steady: {in_full}"
