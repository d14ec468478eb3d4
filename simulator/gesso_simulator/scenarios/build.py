"""Resolves a scenario, or a user's files, into a run: every array and number that the engine needs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gesso.api import CacheSpec, DiffusionService
from gesso.profile import Profile
from gesso.profile_table import ProfileFit
from gesso_router.routing.predictors.thresholds import NIRVANA_STEPS
from gesso_simulator.data.sources import Sources, load_sources
from gesso_simulator.engine.cache import LCBFU, eviction_policy
from gesso_simulator.inputs.prompts import PromptLog
from gesso_simulator.inputs.quality_table import QualityTable
from gesso_simulator.inputs.trace import Trace
from gesso_simulator.scenarios import fleets
from gesso_simulator.scenarios.arrivals import arrival_times, scaled, trace_of
from gesso_simulator.scenarios.cached import cached_prompts, latent_bytes
from gesso_simulator.scenarios.calibrated import PUBLISHED_LADDER, calibrated_table, calibration
from gesso_simulator.scenarios.catalogue import Scenario, scenario
from gesso_simulator.scenarios.load import LoadCurve
from gesso_simulator.scenarios.prediction import BinnedPredictor, binned, threshold_edges
from gesso_simulator.scenarios.spec import (
    CacheModel,
    DataOrigin,
    Elastic,
    FleetEvent,
    History,
    QualityAt,
    ScenarioRun,
    Variant,
    Workload,
)

DEFAULT_SLO = "5x"
LOST_SECONDS = 20 * 60.0
_SLO = re.compile(r"(\d+\.?\d*|\.\d+)(x|s)?")

#: Unit vectors (p, d) of prompts.
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Wishes:
    """What a user sets over a scenario's own values; None: those.

    `slo` is a multiple of the K = 0 latency (`3x`) or seconds. `workers` sizes the fleet, of an elastic one
    the most. `embed` is used only for a log without similarities, where no table has them either.
    """

    slo: str | None = None
    workers: int | None = None
    load_scale: float = 1.0
    plan_interval_s: float | None = None
    log: PromptLog | None = None
    table: QualityTable | None = None
    profile: ProfileFit | None = None
    service: DiffusionService | None = None
    embed: Embed | None = None
    #: The sentence that the report gives for `embed`.
    embedded_by: str = ""
    #: Which policy evicts from a simulated cache.
    eviction: str = LCBFU

    def __post_init__(self) -> None:
        eviction_policy(self.eviction)
        if self.workers is not None and not 1 <= self.workers <= 4096:
            raise ValueError(f"workers: {self.workers} is not allowed: 1 to 4096")
        if not 0 < self.load_scale < math.inf:
            raise ValueError(
                f"load_scale: {self.load_scale} is not allowed: a finite number above 0"
            )
        if self.plan_interval_s is not None and not 0.1 <= self.plan_interval_s <= 3600:
            raise ValueError(
                f"plan_interval: {self.plan_interval_s} is not allowed: seconds, 0.1 to 3600"
            )


@dataclass(frozen=True)
class _Prompts:
    """A log with its true curves, over a ladder, and what predicts them.

    With a cache, its second half are the same prompts asked again.
    """

    rows: NDArray[np.int64]
    similarity: NDArray[np.float64]
    quality: NDArray[np.float64]
    predictor: BinnedPredictor
    notes: tuple[str, ...] = ()
    cache: Callable[[], CacheModel] | None = None
    quality_at: QualityAt | None = None
    #: By `similarity`, unless that is not known beforehand.
    predicted: NDArray[np.float64] | None = None


def build(
    name: str,
    *,
    day: int = 0,
    seed: int = 0,
    raw: bool = False,
    wishes: Wishes | None = None,
    sources: Sources | None = None,
) -> ScenarioRun:
    """A scenario by its name; `raw` leaves out the rolling mean over recorded days.

    Raises ValueError, naming the field, on an unknown scenario, a day that was not recorded, a ladder that
    the quality table lacks, and numbers out of range.
    """
    wish = wishes or Wishes()
    what = scenario(name)
    source = sources or load_sources()
    curve = what.load(source.minutes, day, raw)
    run = _resolve(what, wish, source, seed)
    trace = trace_of(curve, run.full_capacity, wish.load_scale, seed)
    # The log is recorded or made up as the load is, unless the user brings one.
    made_of = what.recorded or (wish.log is None and wish.table is None)
    origin: DataOrigin = source.origin if made_of else "given"
    events = _losses(curve, run) if what.loses else ()
    history = _history(curve, run.full_capacity * wish.load_scale)
    note = (f"no rolling mean over the recorded days of {name}",) if raw and what.recorded else ()
    return _with_arrivals(
        replace(
            run,
            name=name,
            origin=origin,
            day=day,
            events=events,
            history=history,
            elastic=_sized(run.elastic, curve.load[0] * wish.load_scale, len(run.workers)),
            notes=(*what.notes, *run.notes, *note),
        ),
        trace,
        seed,
    )


def build_given(
    trace: Trace,
    *,
    seed: int = 0,
    wishes: Wishes | None = None,
    sources: Sources | None = None,
) -> ScenarioRun:
    """A user's trace, with the prompts of `sources` unless they bring some. Raises ValueError as `build`."""
    wish = wishes or Wishes()
    what = Scenario("trace", "", lambda *_: LoadCurve(np.ones(1), np.ones(1), np.zeros(0)))
    source = sources or load_sources()
    run = _resolve(what, wish, source, seed)
    if wish.log is None and wish.table is None:
        run = replace(run, notes=(*run.notes, f"prompts: {source.origin}"))
    counts = scaled(trace, wish.load_scale, seed)
    first = float(counts.counts[0] / counts.step_seconds[0]) / run.full_capacity
    elastic = _sized(run.elastic, first, len(run.workers))
    return _with_arrivals(replace(run, origin="given", elastic=elastic), counts, seed)


def slo_seconds(text: str, full_latency_s: float) -> float:
    """`3x` is a multiple of the K = 0 latency, `12` or `12.5s` are seconds; ValueError on anything else."""
    match = _SLO.fullmatch(text.strip())
    value = float(match[1]) * (full_latency_s if match[2] == "x" else 1.0) if match else 0.0
    if not 0 < value <= 3600:
        raise ValueError(
            f"slo: {text} is not allowed: a multiple of the K = 0 latency such as 3x, or seconds, up to 3600"
        )
    return value


def _resolve(what: Scenario, wish: Wishes, source: Sources, seed: int) -> ScenarioRun:
    """Everything but arrivals and what hangs on them."""
    spec = wish.service.spec if wish.service else None
    steps = spec.model.steps if spec else NIRVANA_STEPS
    own, notes = _profile(wish, steps)
    others, told = _others(what, wish, own)
    notes = (*notes, *told)
    own_load = wish.profile.load_seconds.get("") if wish.profile else None
    load_s = fleets.LOAD_SECONDS if own_load is None else own_load
    held = {o.name: (o.profile, o.load_seconds) for o in others}
    classes = [fleets.device_class(own, held, load_s)]
    if what.slow_class:
        slow = replace(
            own,
            device=f"{own.device}-slow",
            decode_seconds=own.decode_seconds + fleets.SLOW_FIXED_SECONDS,
            step_seconds=tuple(s / fleets.SLOW_SPEED for s in own.step_seconds),
        )
        held = {
            o.name: (o.on(slow, 1 / fleets.SLOW_SPEED, fleets.SLOW_FIXED_SECONDS), o.load_seconds)
            for o in others
        }
        classes.append(fleets.device_class(slow, held, load_s))
    count = wish.workers or (spec.workers.most if spec else what.workers)
    workers = fleets.fleet(count, tuple(classes))
    prompts = _prompts(wish, source, steps, seed)
    ladder = prompts.predictor.ladder
    predicted = prompts.predicted
    if predicted is None:
        predicted = prompts.predictor.predicted(prompts.similarity)
    quality = prompts.quality
    variants = [Variant("", k) for k in ladder]
    for other in others:
        variants.append(Variant(other.name, 0))
        same = np.full((len(quality), 1), other.quality)
        quality, predicted = np.hstack([quality, same]), np.hstack([predicted, same])
    elastic = None
    if what.elastic:
        least = spec.workers.least if spec else what.elastic.least
        elastic = Elastic(
            min(least, count),
            count,
            count,
            what.elastic.start_seconds,
            what.elastic.least_mean_quality,
        )
    elif spec and wish.workers is None and spec.workers.elastic:
        elastic = Elastic(
            spec.workers.least,
            count,
            count,
            spec.workers.start_seconds,
            spec.workers.target_relative_quality,
        )
    attainment = what.elastic.attainment if what.elastic else ScenarioRun.attainment
    default_slo = f"{spec.slo.latency_seconds}s" if spec else DEFAULT_SLO
    jitter = fleets.jitter_of(own.p95_ratio) if own.p95_ratio > 1 else fleets.JITTER
    interval = spec.scheduling.plan_interval_seconds if spec else what.plan_interval_s
    empty = np.zeros(0)
    nothing = np.zeros(0, dtype=np.int64)
    return ScenarioRun(
        name=what.name,
        origin=source.origin,
        notes=(*notes, *prompts.notes),
        seed=seed,
        day=0,
        workload=Workload(
            arrival_s=empty,
            prompt=nothing,
            prompt_rows=prompts.rows,
            similarity=prompts.similarity,
            quality=quality,
            predicted=predicted,
            step_starts=empty,
            offered=nothing,
            duration_s=0.0,
        ),
        variants=tuple(variants),
        steps=steps,
        predictor=prompts.predictor,
        workers=workers,
        slo_s=slo_seconds(wish.slo or default_slo, own.latency_seconds(0)),
        attainment=spec.slo.attainment if spec else attainment,
        min_quality=spec.slo.min_relative_quality if spec else ScenarioRun.min_quality,
        plan_interval_s=wish.plan_interval_s or interval,
        jitter=jitter,
        max_batch=min(own.max_batch, spec.workers.max_batch) if spec else own.max_batch,
        max_queue=spec.router.max_queue * spec.router.replicas if spec else ScenarioRun.max_queue,
        elastic=elastic,
        cache=prompts.cache,
        quality_at=prompts.quality_at,
    )


def _profile(wish: Wishes, steps: int) -> tuple[Profile, tuple[str, ...]]:
    if wish.profile is None:
        note = (
            f"service times: SD-XL on an A100 as published, variation {fleets.JITTER:.0%} (assumed)"
        )
        return fleets.published(steps), (note,)
    fit = wish.profile
    if fit.profile.steps != steps:
        raise ValueError(
            f"profile: {fit.profile.steps} steps are not allowed: the model has {steps}"
        )
    note = (
        f"service times: fitted to the profile, {fit.rms_residual:.1%} off it (root mean square), "
        f"{fit.most_residual:.1%} at most"
    )
    return fit.profile, (note,)


def _others(
    what: Scenario, wish: Wishes, own: Profile
) -> tuple[tuple[fleets.Other, ...], tuple[str, ...]]:
    """The other models: the service's, else of a family scenario its own; and what is told of their times."""
    spec = wish.service.spec if wish.service else None
    declared = [(v.name, v.model) for v in spec.variants if v.model is not None] if spec else []
    if not declared:
        return ((fleets.lightning(own),) if what.family else ()), ()
    others, notes = [], []
    for name, model in declared:
        profile = wish.profile.others.get(name) if wish.profile else None
        loads = wish.profile.load_seconds if wish.profile else {}
        times = "as measured" if profile else "a step as long as one of the own model (assumed)"
        profile = profile or replace(own, steps=model.steps)
        load_s = loads.get(name, fleets.LOAD_SECONDS)
        others.append(fleets.Other(name, model.quality, profile, load_s))
        notes.append(
            f"{name}: relative quality {model.quality:g} as the spec says, {model.steps} steps, {times}; "
            f"{load_s:g} s to load ({'measured' if name in loads else 'assumed'})"
        )
    return tuple(others), tuple(notes)


def _prompts(wish: Wishes, source: Sources, steps: int, seed: int) -> _Prompts:
    ladder = wish.service.ladder if wish.service else None
    if wish.table is not None:
        table = wish.table.at_levels(ladder) if ladder else wish.table
        return _tabled(wish, table)
    log = wish.log or source.log
    note = "quality: published means at each K; how losses divide between prompts is assumed"
    # Without similarities the means hold over the prompts that they were published for.
    known = log if log.similarity is not None else source.log
    table = calibrated_table(known, ladder or PUBLISHED_LADDER, seed, steps)
    predictor = binned(table, threshold_edges())
    if log.similarity is None:
        return _looked_up(log, known, wish, predictor, seed, steps, note)
    return _Prompts(log.rows, table.similarity, table.quality, predictor, (note,))


def _looked_up(
    log: PromptLog,
    known: PromptLog,
    wish: Wishes,
    predictor: BinnedPredictor,
    seed: int,
    steps: int,
    note: str,
) -> _Prompts:
    """Prompts whose similarity is that of what a simulated cache holds when they come."""
    if wish.embed is None:
        raise ValueError(
            "similarity: missing is not allowed: a column of the prompts or a quality table, where nothing "
            "embeds prompts"
        )
    spec = wish.service.spec if wish.service else None
    made = cached_prompts(
        wish.embed(log.prompts),
        calibration(known, predictor.ladder, seed, steps),
        seed,
        (spec.cache if spec else CacheSpec()).capacity_bytes,
        latent_bytes(spec.model if spec else None),
        wish.eviction,
    )
    return _Prompts(
        np.tile(log.rows, 2),
        np.full(2 * len(log), np.nan),
        made.quality_at_best,
        predictor,
        (f"{made.note}; prompts {wish.embedded_by}", note),
        made.cache,
        made.quality_at,
        predictor.predicted(made.best_similarity),
    )


def _tabled(wish: Wishes, table: QualityTable) -> _Prompts:
    predictor = binned(table)
    if wish.log is None:
        asked = np.arange(len(table))
        notes: tuple[str, ...] = ()
        if table.heldout is not None and table.heldout.any():
            asked = np.flatnonzero(table.heldout)
            notes = (
                "prompts: the quality table's held-out rows, the predictor learned from others",
            )
        return _Prompts(
            table.rows[asked], table.similarity[asked], table.quality[asked], predictor, notes
        )
    places = {row: i for i, row in enumerate(table.rows.tolist())}
    lacking = [row for row in wish.log.rows.tolist() if row not in places]
    if lacking:
        raise ValueError(
            f"prompt_row: {lacking[0]} is not allowed: one of the quality table's rows"
            + (f" ({len(lacking)} prompts of the log have none)" if len(lacking) > 1 else "")
        )
    at = np.array([places[row] for row in wish.log.rows.tolist()])
    given = wish.log.similarity
    similarity = table.similarity[at] if given is None else given
    note = () if given is not None else ("similarity: the quality table's",)
    return _Prompts(wish.log.rows, similarity, table.quality[at], predictor, note)


def _losses(curve: LoadCurve, run: ScenarioRun) -> tuple[FleetEvent, ...]:
    at_s = float(curve.step_starts[int(curve.load.argmax())])
    lost = [w.name for w in run.workers[-max(1, len(run.workers) // 4) :]]
    gone = tuple(FleetEvent(at_s, name, "lost") for name in lost)
    return gone + tuple(FleetEvent(at_s + LOST_SECONDS, name, "back") for name in lost)


def _history(curve: LoadCurve, unit_per_s: float) -> History | None:
    if not len(curve.before):
        return None
    return History(curve.before_seconds, curve.before * curve.before_seconds * unit_per_s)


def _sized(elastic: Elastic | None, load: float, most: int) -> Elastic | None:
    """An elastic fleet that begins with the workers that the first step's load takes at K = 0, and one more."""
    if elastic is None:
        return None
    wanted = math.ceil(load * most) + 1
    return replace(elastic, initial=min(elastic.most, max(elastic.least, wanted)))


def _with_arrivals(run: ScenarioRun, trace: Trace, seed: int) -> ScenarioRun:
    arrivals = arrival_times(trace, seed)
    asked = np.arange(len(arrivals))
    known = len(run.workload.prompt_rows)
    if run.cache is not None:  # prompts asked again are the second half
        known //= 2
        asked = np.where(asked < known, asked, known + asked % known)
    workload = replace(
        run.workload,
        arrival_s=arrivals,
        prompt=asked if run.cache is not None else asked % known,
        step_starts=trace.step_starts,
        offered=trace.counts,
        duration_s=trace.duration_s,
    )
    return replace(run, workload=workload)
