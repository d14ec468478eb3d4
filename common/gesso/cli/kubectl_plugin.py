"""`kubectl gesso`: the answers of `gesso status`, `plan` and `simulate` for services in a cluster.

kubectl finds the plugin as `kubectl-gesso` on the PATH.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from gesso.api import DiffusionService
from gesso.cli.console import EXIT_USAGE, CliError, say
from gesso.cli.kubectl import Cluster, status_of
from gesso.cli.main import app as gesso
from gesso.cli.main import run_app
from gesso.cli.status import follow, status_line

_MORE = {"ignore_unknown_options": True, "allow_extra_args": True}

app = typer.Typer(
    help="Tells what Gesso does in this cluster, and what it would do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Default: the context's namespace.")
]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="Path of a kubeconfig.")]
Name = Annotated[str, typer.Argument(help="A DiffusionService; its name comes first.")]


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="A DiffusionService; default: all.")] = None,
    namespace: Namespace = "",
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep it current until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole status as JSON.")] = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Tells health, mix, SLO, quality and the reason for them in one line for each service."""
    if name and everywhere:
        raise CliError("--all-namespaces: not together with a name", EXIT_USAGE)
    if as_json and not name:
        raise CliError("--json: takes the name of a service", EXIT_USAGE)
    cluster = Cluster(namespace, context, kubeconfig, everywhere)
    if watch:
        follow(lambda: (_look(cluster, name, as_json)[0], True), every_s=2.0)
        return
    text, ready = _look(cluster, name, as_json)
    say(text)
    if not ready:
        raise CliError("")


@app.command(context_settings=_MORE)
def plan(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Tells what the planner would do at a rate: `kubectl gesso plan NAME --rate 3.5`, or --sweep.

    Further options are those of `gesso plan`: see `gesso plan --help`.
    """
    _ask("plan", _named(Cluster(namespace, context, kubeconfig), name), ctx.args)


@app.command(context_settings=_MORE)
def simulate(
    ctx: typer.Context,
    name: Name,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Plays a day against the service's fleet: `kubectl gesso simulate NAME --scenario twitter`.

    Further options are those of `gesso simulate`: see `gesso simulate --help`.
    """
    _ask("simulate", _named(Cluster(namespace, context, kubeconfig), name), ctx.args)


def _named(cluster: Cluster, name: str) -> DiffusionService:
    if name.startswith("-"):
        raise CliError(
            f"NAME: {name} is not allowed: the name of a service comes first", EXIT_USAGE
        )
    return cluster.service(name)


def _ask(command: str, service: DiffusionService, options: list[str]) -> None:
    """Runs a command of `gesso` on the service, as if it lay in a file."""
    with tempfile.TemporaryDirectory(prefix="gesso-") as folder:
        file = Path(folder) / f"{service.name}.yaml"
        # JSON is YAML.
        file.write_text(service.model_dump_json(exclude_none=True))
        gesso([command, "--service", str(file), *options], prog_name="kubectl gesso")


def _look(cluster: Cluster, name: str | None, as_json: bool) -> tuple[str, bool]:
    """What there is to say, and whether every service is ready."""
    found = cluster.get(name)
    if not found:
        where = "any namespace" if cluster.all_namespaces else cluster.namespace or "the namespace"
        return f"no DiffusionService in {where}", False
    lines, all_ready = [], True
    for body in found:
        meta = body["metadata"]
        shown = f"{meta['namespace']}/{meta['name']}" if cluster.all_namespaces else meta["name"]
        status = status_of(body)
        if status is None:
            lines.append(f"{shown}: Unknown | no status yet: no operator has looked at it")
            all_ready = False
            continue
        line, ready = status_line(shown, status)
        lines.append(status.model_dump_json(indent=2) if as_json else line)
        all_ready = all_ready and ready
    return "\n".join(lines), all_ready


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 it failed or is not ready, 2 it was asked for wrongly."""
    run_app(app)


if __name__ == "__main__":
    main()
