"""The command `gesso`: what can be typed, and nothing else; each command's work has a module of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gesso.cli import bench as benching
from gesso.cli import find, lifecycle
from gesso.cli import generate as generating
from gesso.cli import simulate as simulating
from gesso.cli import status as reporting
from gesso.cli.console import EXIT_USAGE, CliError, note, say
from gesso.cli.extras import FLEET, FLEET_EXTRAS, require
from gesso.logs import Form

app = typer.Typer(
    help="Serves text-to-image models: in time, at the best quality that the fleet can give.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str | None, typer.Option("--name", help="Which service, if several are up.")]
Place = Annotated[
    Path | None, typer.Option("--state-dir", help="State directory, if not .gesso/NAME.")
]
Port = Annotated[int, typer.Option(min=1, max=65535)]


@app.command()
def up(
    file: Annotated[Path, typer.Argument(help="A DiffusionService in YAML.")],
    grpc_port: Annotated[
        int, typer.Option(min=1, max=65535, help="The first router's gRPC port; others follow.")
    ] = 7001,
    http_port: Annotated[
        int, typer.Option(min=1, max=65535, help="The first router's HTTP port; others follow.")
    ] = 7080,
    state_dir: Place = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until Ctrl-C.")] = False,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds to get ready in.")] = 120,
    log_format: Annotated[Form, typer.Option(help="Of the lines in its logs.")] = "json",
) -> None:
    """Starts a service on this machine: routers, workers, planner."""
    flags = ("--log-format", log_format)
    lifecycle.up(file, grpc_port, http_port, state_dir, foreground, timeout, flags)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the image should show.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the image goes.")] = Path(
        "out.png"
    ),
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**64 - 1, help="Same seed, same image at the same K."),
    ] = None,
    slo: Annotated[float | None, typer.Option(help="Deadline in seconds.")] = None,
    min_quality: Annotated[
        float | None, typer.Option(help="Least predicted relative quality, 0 to 1.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    negative: Annotated[str, typer.Option(help="What the image should not show.")] = "",
    image_format: Annotated[
        str | None, typer.Option("--format", help="png, jpeg or webp; else by the file's suffix.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="host:port of a router, if not a local one.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds to wait at most.")
    ] = 120,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="GESSO_API_KEY", help="If the service asks for one."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="The router has TLS.")] = False,
    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the authority to trust; means --tls.")
    ] = None,
    name: Name = None,
    state_dir: Place = None,
) -> None:
    """Generates one image with a service that is up."""
    wish = generating.Wish(prompt, output, negative, seed, slo, min_quality, guidance, image_format)
    generating.format_of(wish)
    if target is None:
        target = find.running_state(find.find_state_dir(name, state_dir)).grpc
    generating.generate(wish, target, timeout, generating.Door(api_key, tls, ca))


@app.command()
def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep it current until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole status as JSON.")] = False,
    name: Name = None,
    state_dir: Place = None,
) -> None:
    """Tells health, mix, SLO, quality and the reason for them in one line."""
    reporting.show(find.find_state_dir(name, state_dir), watch, as_json)


@app.command()
def down(name: Name = None, state_dir: Place = None) -> None:
    """Ends a service and removes its state."""
    lifecycle.down(find.find_state_dir(name, state_dir))


@app.command()
def validate(file: Annotated[Path, typer.Argument(help="A DiffusionService in YAML.")]) -> None:
    """Checks a service file without starting anything."""
    service = lifecycle.read_service(file)
    spec = service.spec
    workers = (
        f"{spec.workers.least} to {spec.workers.most}"
        if spec.workers.elastic
        else f"{spec.workers.least}"
    )
    say(
        f"{file}: valid: {service.name} serves {spec.model.source} with {workers} workers at "
        f"K {','.join(map(str, service.ladder))} of {spec.model.steps} steps, "
        f"within {spec.slo.latency_seconds:g} s"
    )


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long to play prompts.")] = 180,
    out: Annotated[Path, typer.Option(help="Folder of the report and pictures.")] = Path("demo"),
    kill_worker: Annotated[
        bool, typer.Option("--kill-worker", help="Kill a worker half way.")
    ] = False,
    slo: Annotated[
        str, typer.Option(help="SLO: seconds, or a multiple of what an image in full takes here.")
    ] = "5x",
) -> None:
    """Serves prompts at a swinging load with the tiny model, and shows what Gesso does with them."""
    require(f"{FLEET_EXTRAS},simulator", *FLEET, "matplotlib", "PIL")
    from gesso.outputs import make_folder
    from gesso_simulator.demo.main import run
    from gesso_simulator.scenarios.build import slo_seconds

    try:
        slo_seconds(slo, 1.0)
    except ValueError as error:
        raise CliError(f"--{error}", EXIT_USAGE) from None
    try:
        make_folder("--out", out)
    except ValueError as error:
        raise CliError(str(error), EXIT_USAGE) from None
    code = run(seconds=seconds, out=out, kill_worker=kill_worker, slo=slo)
    if code:
        raise typer.Exit(code)


app.command("simulate", help=simulating.HELP)(simulating.simulate)
app.command("bench")(benching.bench)


@app.command()
def plan(
    file: Annotated[Path, typer.Option("--service", help="A DiffusionService in YAML.")],
    rate: Annotated[float | None, typer.Option(help="Load in images per second.")] = None,
    current: Annotated[
        str | None, typer.Option(help="Workers by level, or model, as they are: 0:5,25:1.")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="From idle to overload.")] = False,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="JSON of `gesso profile`, or CSV: skipped_steps,batch,latency_s[,p95_s]."
        ),
    ] = None,
    quality_table: Annotated[
        str | None,
        typer.Option(
            help="CSV: prompt_row,similarity,q0,q5,...; or `measured`. Default: the model folder's "
            "quality.json, else SD-XL's published means."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:QUALITY:SECONDS",
            help="What if workers could hold this model instead: relative quality, seconds an image.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Tells what the planner would do at a rate: mix, expected quality, share in time, and why."""
    require("operator,router", "scipy", "safetensors")
    from gesso.cli.plan import Question, run

    asked = Question(rate, current, sweep, profile, quality_table, tuple(model or ()), as_json)
    run(lifecycle.read_service(file), asked)


@app.command()
def profile(
    file: Annotated[Path, typer.Option("--service", help="A DiffusionService in YAML.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the profile goes.")] = Path(
        "profile.json"
    ),
    plot: Annotated[Path | None, typer.Option(help="A picture of it: profile.png.")] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, max=64, help="Largest batch; default: the service's.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Runs of each K and batch.")] = 3,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="CPU threads; default: the service's.")
    ] = None,
) -> None:
    """Measures a service's models on this machine, for `gesso plan` and `gesso simulate` --profile."""
    require("worker", "torch", "diffusers", "faiss")
    if plot is not None:
        require("simulator", "matplotlib")
    from gesso.cli.profiling import profile as measured

    measured(lifecycle.read_service(file), output, plot, max_batch, repeats, threads)


def run_app(command: typer.Typer) -> None:
    """Runs a command with what was typed. Exit codes: 0 done, 1 it failed, 2 it was asked for wrongly."""
    # The planner's matrices are small: threads of a linear algebra library would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        command()
    except CliError as error:
        if str(error):
            for line in str(error).splitlines():
                note(f"gesso: {line}")
        raise SystemExit(error.code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def main() -> None:
    """Entry point."""
    run_app(app)


if __name__ == "__main__":
    main()
