"""`gesso profile`: measures a service's models on this machine, for planner and simulator."""

from __future__ import annotations

from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gesso.api import DiffusionService
from gesso.cli.console import EXIT_USAGE, CliError, err, say
from gesso.outputs import OutputError, check_file, check_picture, writing
from gesso.profile_file import ProfileFile


def profile(
    service: DiffusionService,
    output: Path,
    plot: Path | None,
    max_batch: int | None,
    repeats: int,
    threads: int | None,
) -> None:
    """Measures, writes the file and the picture, and tells the gist. Raises CliError."""
    from gesso_worker.engine import ModelLoadError
    from gesso_worker.profiler.service import measure_service

    try:
        check_file("--output", output)
        check_picture("--plot", plot)
    except ValueError as error:
        raise CliError(str(error), EXIT_USAGE) from None
    workers = service.spec.workers
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        try:
            found = measure_service(
                service,
                threads or workers.threads,
                min(max_batch or workers.max_batch, workers.max_batch),
                repeats,
                told,
            )
        except ModelLoadError as error:
            raise CliError(str(error)) from None
    _tell(found)
    try:
        _write(found, output, plot)
    except OutputError as error:
        raise CliError(str(error)) from None
    say(f"written: {output}" + (f", {plot}" if plot is not None else ""))


def _write(found: ProfileFile, output: Path, plot: Path | None) -> None:
    with writing("--output", output):
        output.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if plot is not None:
        from gesso_simulator.profile_plot import plot_profile

        with writing("--plot", plot):
            plot_profile(found, plot)


def _tell(found: ProfileFile) -> None:
    own, profile = found.own, found.own.profile(found.device)
    best = profile.best_batch()
    levels = sorted({latency.skipped_steps for latency in own.latencies})
    say(f"device      {found.device}, {found.threads} threads, {own.dtype}")
    say(
        f"encode      {own.encode_seconds.mean * 1000:.1f} ms, decode {own.decode_seconds.mean * 1000:.1f} ms"
    )
    shown = ", ".join(f"{s.batch}: {s.mean * 1000:.1f}" for s in own.step_seconds)
    say(f"a step      {shown} ms by batch; per image the least at batch {best}")
    rates = ", ".join(f"K={k}: {profile.throughput(k):.3g}" for k in (levels[0], levels[-1]))
    say(f"images/s    {rates}")
    fetch = found.fetch_seconds
    say(
        f"fetch       {fetch.bytes} B in {fetch.p50 * 1000:.2f} ms (median), {fetch.p99 * 1000:.2f} ms (p99)"
    )
    for switch in found.switches:
        seconds = switch.load_seconds + switch.warmup_seconds
        say(
            f"switch      {switch.before or 'own model'} to {switch.after or 'own model'}: {seconds:.2f} s"
        )
