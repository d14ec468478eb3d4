"""`gesso bench`: its options and their help; the work is `gesso_simulator.bench`'s."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gesso.api_key import key_of
from gesso.cli.console import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, CliError
from gesso.cli.extras import require


def bench(
    url: Annotated[
        str, typer.Option(help="http://HOST:PORT (the images API) or grpc://HOST:PORT of a router.")
    ] = "http://127.0.0.1:7080",
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=100_000, help="Requests a second, Poisson.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="CSV t_s,count, in place of a rate; see gesso simulate.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0.0001, max=10_000, help="Multiplies the load.")
    ] = 1.0,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, max=86_400, help="How long; default 60, or the whole trace."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts in turn: .txt, one a line, or CSV prompt_row,prompt. Default: sessions of scenes "
            "that the tiny model knows."
        ),
    ] = None,
    slo: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Deadline of each request, seconds.")
    ] = 4.0,
    min_quality: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least predicted relative quality.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of arrivals, prompts, images.")] = 7,
    json: Annotated[Path | None, typer.Option("--json", help="Writes the figures here.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Writes a picture here.")] = None,
) -> None:
    """Plays an open-loop load on a service that is up: each request goes out when it is due.

    Latencies count from when a request was due. An API key is read from GESSO_API_KEY. Exit code 1:
    requests were lost or failed. Ctrl-C ends the load, and what has ended by then is told (exit code 130).
    """
    require("simulator", "aiohttp", *(("matplotlib",) if plot else ()))
    from gesso.csv_input import InputError
    from gesso.outputs import OutputError
    from gesso_simulator.bench.load import make_load
    from gesso_simulator.bench.main import bench as run
    from gesso_simulator.bench.send import Terms

    try:
        api_key = key_of(os.environ.get("GESSO_API_KEY"), "GESSO_API_KEY")
        terms = Terms(slo, min_quality, api_key=api_key or "")
        load = make_load(rate, seconds, trace, scale, prompts, seed)
        figures = run(url, load, terms, json, plot)
    except (InputError, ValueError) as error:
        raise CliError(str(error), EXIT_USAGE) from None
    except OutputError as error:
        raise CliError(str(error)) from None
    if figures is None:
        raise CliError("interrupted before a request had ended: nothing is told", EXIT_INTERRUPTED)
    if figures["interrupted"]:
        raise typer.Exit(EXIT_INTERRUPTED)
    if figures["lost"] or figures["failed"]:
        raise typer.Exit(EXIT_FAILED)
