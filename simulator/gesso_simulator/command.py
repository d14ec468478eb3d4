"""What `gesso simulate` does: reads, builds the run, plays each policy on it, and writes the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gesso.api import DiffusionService, load_service
from gesso.builtin import TINY_CLIP
from gesso.outputs import check_file, writing
from gesso.profile_table import read_profile
from gesso_router.routing.predictors.thresholds import NIRVANA_STEPS
from gesso_simulator.baselines.static import is_static, play, with_mix
from gesso_simulator.engine.bounding import bounds_of
from gesso_simulator.engine.cache import LCBFU
from gesso_simulator.engine.systems import AUTOSCALED, LIVE
from gesso_simulator.inputs.prompts import read_prompts
from gesso_simulator.inputs.quality_table import MEASURED_NAME, measured_table, read_quality_table
from gesso_simulator.inputs.trace import read_trace
from gesso_simulator.reports.document import document, write_document
from gesso_simulator.reports.figures import Bounds, Figures, summarise
from gesso_simulator.reports.plot import write_plot
from gesso_simulator.reports.requests import write_requests
from gesso_simulator.reports.result import PolicyResult
from gesso_simulator.reports.table import heading, policy_table
from gesso_simulator.scenarios.build import Embed, Wishes, build, build_given
from gesso_simulator.scenarios.catalogue import SCENARIOS, scenario
from gesso_simulator.scenarios.spec import ScenarioRun

ALL = "all"


@dataclass(frozen=True)
class Options:
    """What was typed; see `gesso simulate --help`."""

    scenario: str | None = None
    trace: Path | None = None
    prompts: Path | None = None
    quality_table: str | None = None
    profile: Path | None = None
    service: Path | None = None
    policies: tuple[str, ...] = ()
    slo: str | None = None
    workers: int | None = None
    load_scale: float = 1.0
    plan_interval: float | None = None
    eviction: str = LCBFU
    raw: bool = False
    day: int = 0
    seed: int = 0
    bounds: bool = True
    json: Path | None = None
    plot: Path | None = None
    requests: Path | None = None


def run(options: Options, out: Console, err: Console) -> None:
    """Simulates and reports: the table to `out`, progress to `err`.

    Raises ValueError on bad input, OutputError where a report could not be written in the end.
    """
    check_file("--json", options.json)
    check_file("--plot", options.plot)
    check_file("--requests", options.requests)
    service = load_service(options.service) if options.service else None
    resolved = resolve(options, service)
    names = policy_names(options.policies, service, resolved)
    for line in heading(resolved):
        out.print(line, markup=False)
    results, bounds = _play(resolved, names, options, err)
    figures = {name: summarise(result, resolved.slo_s) for name, result in results.items()}
    out.print(policy_table(figures, bounds))
    _write(options, resolved, results, figures, bounds, out)


def resolve(options: Options, service: DiffusionService | None) -> ScenarioRun:
    """The run that the options ask for. Raises ValueError, naming option or file, on bad ones."""
    if (options.scenario is None) == (options.trace is None):
        raise ValueError(
            f"scenario: one of --scenario and --trace is needed; scenarios are {', '.join(SCENARIOS)}"
        )
    if options.scenario is not None:
        scenario(options.scenario)
    steps = service.spec.model.steps if service else NIRVANA_STEPS
    table = None
    if options.quality_table == MEASURED_NAME:
        table = measured_table()
    elif options.quality_table is not None:
        table = read_quality_table(options.quality_table, steps)
    wishes = Wishes(
        slo=options.slo,
        workers=options.workers,
        load_scale=options.load_scale,
        plan_interval_s=options.plan_interval,
        log=read_prompts(options.prompts) if options.prompts else None,
        table=table,
        profile=read_profile(options.profile, steps) if options.profile else None,
        service=service,
        embed=_embedder(service),
        eviction=options.eviction,
        embedded_by=f"embedded by {_embedding(service)}"
        # Of other words it cannot tell whether they mean the same.
        + (
            ", which knows words of its toy scenes only" if _embedding(service) == TINY_CLIP else ""
        ),
    )
    if options.trace is not None:
        return build_given(read_trace(options.trace), seed=options.seed, wishes=wishes)
    assert options.scenario is not None
    return build(
        options.scenario, day=options.day, seed=options.seed, raw=options.raw, wishes=wishes
    )


def policy_names(
    wanted: Sequence[str], service: DiffusionService | None, run: ScenarioRun
) -> tuple[str, ...]:
    """The policies by name: those named, each once; `all`; without any, the service's own, else QualityAware.

    Kubernetes' autoscalers are among `all` only where the fleet's size may change, static mixes never. Raises
    ValueError on another name.
    """
    possible = (*LIVE, *AUTOSCALED) if run.elastic else LIVE
    if not wanted:
        return (service.spec.scheduling.policy if service else LIVE[0],)
    names: list[str] = []
    for name in (part.strip() for value in wanted for part in value.split(",")):
        if is_static(name):
            with_mix(run, name)
        elif name != ALL and name not in possible:
            raise ValueError(f"policy: {name} is not allowed: {ALL}, {', '.join(possible)}")
        names += possible if name == ALL else [name]
    return tuple(dict.fromkeys(names))


def _play(
    run: ScenarioRun, names: Sequence[str], options: Options, err: Console
) -> tuple[dict[str, PolicyResult], Bounds]:
    results: dict[str, PolicyResult] = {}
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        for name in names:
            task = bars.add_task(name, total=1.0)

            def report(share: float, task: TaskID = task) -> None:
                bars.update(task, completed=share)

            results[name] = play(run, name, seed=options.seed, progress=report)
            bars.update(task, completed=1.0)
        bounds: Bounds = {}
        if options.bounds:
            task = bars.add_task("bounds", total=None)
            bounds = bounds_of(run)
            bars.update(task, total=1.0, completed=1.0)
    return results, bounds


def _write(
    options: Options,
    run: ScenarioRun,
    results: Mapping[str, PolicyResult],
    figures: Mapping[str, Figures],
    bounds: Bounds,
    out: Console,
) -> None:
    if options.json:
        with writing("--json", options.json):
            write_document(options.json, document(run, options.seed, figures, bounds))
        out.print(f"figures: {options.json}", markup=False)
    if options.plot:
        with writing("--plot", options.plot):
            write_plot(options.plot, run, tuple(results.values()), bounds)
        out.print(f"plot: {options.plot}", markup=False)
    if options.requests:
        with writing("--requests", options.requests):
            write_requests(options.requests, run, results.values())
        out.print(f"requests: {options.requests}", markup=False)


def _embedding(service: DiffusionService | None) -> str:
    return service.spec.router.embedding if service else TINY_CLIP


def _embedder(service: DiffusionService | None) -> Embed:
    """Embeds prompts as the service's router would; without a service by the tower that ships with Gesso."""

    def embed(prompts: Sequence[str]) -> NDArray[np.float32]:
        # Torch takes seconds to import, and most runs do not embed.
        from gesso_router.text_tower import load_encoder

        encode = load_encoder(_embedding(service))
        batches = [prompts[i : i + 64] for i in range(0, len(prompts), 64)]
        return np.concatenate([encode(batch) for batch in batches])

    return embed
