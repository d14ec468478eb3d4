"""`gesso simulate`: its options and their help; the work is `gesso_simulator.command`'s."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gesso.cli.console import EXIT_USAGE, CliError, err, out
from gesso.cli.extras import require

_LOAD = "Load"
_FLEET = "Fleet and quality"
_REPORTS = "Reports"

_TEXT = """Plays a day against a fleet that is not there: what would each policy have served, and how well?

The planner and the routing are those that run live; the clock, the workers and the cache are simulated.

[bold]Scenarios[/bold] (--scenario): twitter, twitter-heavy, bursty, constant, flash-crowd,
flash-crowd-family, worker-loss, two-gpu-classes, model-family, elastic. docs/simulator.md says what is
recorded, assumed and made up in each.

[bold]Policies[/bold] (--policy): QualityAware, PromptAgnostic, BacklogPrice, Argus, Nirvana, Proteus,
ClipperHA, ClipperHT, RoundRobin, LeastOutstanding, and for elastic fleets HPAUtilization, HPAQueue; or
all. With a second model also static mixes: Static:6+2.

[bold]Files[/bold] are CSV with a header line, plain or gzip, UTF-8; a fault names file, line, field, value
and what is allowed.

--trace: t_s,count: one row a step, ascending; a step lasts until the next, the last as long as the one
before. Exactly count requests come in it, placed at random.

--prompts: prompt_row,prompt[,similarity]: asked in this order, from the start again at the end. similarity
(-1 to 1) of the nearest cached prompt is taken as given; without it, prompts are embedded and looked up in a
simulated cache that fills and evicts.

--quality-table: prompt_row,similarity,q0,q5,q10,...: true relative quality (0 to 1) at each K, a column q<K>
each.

--profile: what `gesso profile` wrote (.json), or skipped_steps,batch,latency_s[,p95_s]: latencies of whole
batches; a fixed cost and the time of a step by batch size are fitted to them.

--json: {scenario, seed, slo_seconds, policies: {NAME: {offered, served_in_slo, late, shed, lost,
violation_ratio, relative_quality, mean_skipped_steps, plan_changes, switches, worker_hours}}, bounds:
{informed: {violation_ratio, relative_quality}, clairvoyant: {...}}}; ratios and qualities 0 to 1.

--requests:
policy,request,arrival_s,prompt_row,predicted_k,served_k,worker,start_s,finish_s,outcome,relative_quality, one
row a request and policy; outcome is served, late, shed or lost.

[bold]Examples[/bold]

gesso simulate --scenario twitter --policy all --slo 3x --plot twitter.png

gesso simulate --trace day.csv --prompts log.csv --service service.yaml --workers 10 --json what-if.json
"""
#: A paragraph a line: the terminal's width decides where it breaks.
HELP = re.sub(r"(?<!\n)\n(?!\n)", " ", _TEXT)


def simulate(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[POLICY]...", help="Further policies.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="A scenario by name.", rich_help_panel=_LOAD)
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Arrivals, in place of a scenario.", rich_help_panel=_LOAD)
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts in order; default: the recorded log, the table's.", rich_help_panel=_LOAD
        ),
    ] = None,
    load_scale: Annotated[
        float, typer.Option(help="Multiplies the load.", rich_help_panel=_LOAD)
    ] = 1.0,
    day: Annotated[
        int,
        typer.Option(min=0, help="Which recorded day, from 0.", rich_help_panel=_LOAD),
    ] = 0,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Recorded days without the rolling mean.", rich_help_panel=_LOAD
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Same seed, same run.", rich_help_panel=_LOAD),
    ] = 0,
    service: Annotated[
        Path | None,
        typer.Option(
            help="A DiffusionService in YAML: SLO, ladder, workers, scheduling are taken from it.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            metavar="3x|SECONDS",
            help="Deadline: a multiple of the K = 0 latency, or seconds. Default: the service's, else 5x.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Fleet size; of an elastic one the most. A scenario's load is relative to it.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Measured latencies; default: SD-XL on an A100 as published.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    quality_table: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|measured",
            help="True quality; `measured` is the tiny SD-XL's table. Default: calibrated to published "
            "means.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME…|all",
            help="Which to play, all on the same arrivals. Default: the service's, else QualityAware.",
            rich_help_panel=_FLEET,
        ),
    ] = None,
    plan_interval: Annotated[
        float | None,
        typer.Option(help="Seconds between two plans.", rich_help_panel=_FLEET),
    ] = None,
    eviction: Annotated[
        str,
        typer.Option(
            metavar="LCBFU|LRU|FIFO",
            help="Which latents a simulated cache lets go of first.",
            rich_help_panel=_FLEET,
        ),
    ] = "LCBFU",
    bounds: Annotated[
        bool,
        typer.Option(
            "--bounds/--no-bounds",
            help="Compute what no policy can beat, knowing the arrivals.",
            rich_help_panel=_REPORTS,
        ),
    ] = True,
    json: Annotated[
        Path | None, typer.Option(help="Figures as JSON.", rich_help_panel=_REPORTS)
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="A PNG.", rich_help_panel=_REPORTS)] = None,
    requests: Annotated[
        Path | None, typer.Option(help="Every request, as csv.gz.", rich_help_panel=_REPORTS)
    ] = None,
) -> None:
    """See HELP."""
    require("simulator", "scipy", "matplotlib", "PIL")
    from gesso.outputs import OutputError
    from gesso_simulator.command import Options, run

    options = Options(
        scenario=scenario,
        trace=trace,
        prompts=prompts,
        quality_table=quality_table,
        profile=profile,
        service=service,
        policies=(*(policy or ()), *(more or ())),
        slo=slo,
        workers=workers,
        load_scale=load_scale,
        plan_interval=plan_interval,
        eviction=eviction,
        raw=raw,
        day=day,
        seed=seed,
        bounds=bounds,
        json=json,
        plot=plot,
        requests=requests,
    )
    try:
        run(options, out, err)
    except ValueError as error:
        raise CliError(str(error), EXIT_USAGE) from None
    except OutputError as error:
        raise CliError(str(error)) from None
