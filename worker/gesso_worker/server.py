"""The worker process: `python -m gesso_worker.server --name worker-0 --listen 127.0.0.1:7101 --service FILE`.

Exits 0 on SIGTERM or SIGINT after finishing what it had accepted, 1 when the device fails for good, 2 with
one line on stderr on bad flags, a refused service file, a port in use or a model that cannot be served.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gesso import logs, observing, tracing
from gesso.api import DiffusionService, SpecError, load_service
from gesso.api.quantity import parse_bytes
from gesso.logs import Form
from gesso.tls import Tls, TlsError
from gesso_worker.defaults import FETCH_DEADLINE_S
from gesso_worker.errors import StartError
from gesso_worker.throttle import Throttle

BAD_START = 2
MOST_THREADS = 256
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Flags:
    """The command line, checked."""

    name: str
    listen: str
    service: Path
    threads: int
    max_accepted: int
    linger_s: float
    drain_s: float
    cache_dir: Path | None = None
    cache_disk_bytes: int | None = None
    fetch_deadline_s: float = FETCH_DEADLINE_S
    metrics: str | None = None
    tls_dir: Path | None = None
    health: str | None = None
    otlp_endpoint: str | None = None
    log_format: Form = "json"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """One line, without the usage that argparse puts before it."""
        raise StartError(f"{message} (see --help)")


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Raises StartError that names the flag, the value and what is allowed."""
    parser = _Parser(prog="python -m gesso_worker.server", description="Serves one Gesso worker.")
    parser.add_argument("--name", required=True, help="the worker's name, unique in its fleet")
    parser.add_argument("--listen", required=True, help="HOST:PORT to serve gRPC on")
    parser.add_argument(
        "--service", required=True, type=Path, help="YAML file of a DiffusionService"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for torch (default 1)")
    parser.add_argument(
        "--max-accepted",
        type=int,
        default=64,
        help="unfinished requests before it refuses (default 64)",
    )
    for name, default, says in (
        ("--linger-seconds", 0.0, "requests are still taken so long after SIGTERM (default 0)"),
        ("--drain-seconds", 8.5, "then accepted ones have so long to finish (default 8.5)"),
    ):
        parser.add_argument(name, type=float, default=default, metavar="S", help=says)
    parser.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="folder of its own to keep latents in beside memory; absent: memory only",
    )
    parser.add_argument(
        "--cache-disk-bytes",
        metavar="BYTES",
        help="what the folder may take, a quantity such as 20Gi (default: spec.cache.disk.size)",
    )
    parser.add_argument(
        "--fetch-deadline-ms",
        type=float,
        default=FETCH_DEADLINE_S * 1000,
        metavar="MS",
        help="what a latent at another worker is waited for (default %(default)g)",
    )
    parser.add_argument(
        "--metrics", metavar="HOST:PORT", help="serves /metrics for Prometheus; absent: not at all"
    )
    parser.add_argument(
        "--tls-dir", type=Path, metavar="DIR", help="tls.crt, tls.key and ca.crt; absent: no TLS"
    )
    parser.add_argument(
        "--health", metavar="HOST:PORT", help="serves grpc.health alone, without TLS, for probes"
    )
    observing.add_flags(parser)
    given = parser.parse_args(arguments)
    if not _NAME.fullmatch(given.name):
        raise StartError(
            f"--name: {given.name!r} is not allowed: letters, digits, '-', '.', '_', at most 63"
        )
    for flag, address in (
        ("--listen", given.listen),
        ("--metrics", given.metrics),
        ("--health", given.health),
    ):
        host, _, port = (address or "any:1").rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise StartError(f"{flag}: {address!r} is not allowed: HOST:PORT, port 1 to 65535")
    if not 1 <= given.threads <= MOST_THREADS:
        raise StartError(f"--threads: {given.threads} is not allowed: 1 to {MOST_THREADS}")
    if not 1 <= given.max_accepted <= 10_000:
        raise StartError(f"--max-accepted: {given.max_accepted} is not allowed: 1 to 10000")
    for flag, seconds in (
        ("--linger-seconds", given.linger_seconds),
        ("--drain-seconds", given.drain_seconds),
    ):
        if not 0 <= seconds <= 3600:
            raise StartError(f"{flag}: {seconds} is not allowed: seconds from 0 to 3600")
    if not 1 <= given.fetch_deadline_ms <= 10_000:
        raise StartError(
            f"--fetch-deadline-ms: {given.fetch_deadline_ms} is not allowed: 1 to 10000"
        )
    disk_bytes = None
    if given.cache_disk_bytes is not None:
        try:
            disk_bytes = parse_bytes(given.cache_disk_bytes)
        except ValueError as error:
            raise StartError(
                f"--cache-disk-bytes: {given.cache_disk_bytes!r} is not allowed: {error}"
            ) from None
        if given.cache_dir is None:
            raise StartError("--cache-disk-bytes: is of no use without --cache-dir")
    return Flags(
        given.name,
        given.listen,
        given.service,
        given.threads,
        given.max_accepted,
        given.linger_seconds,
        given.drain_seconds,
        given.cache_dir,
        disk_bytes,
        given.fetch_deadline_ms / 1000,
        given.metrics,
        given.tls_dir,
        given.health,
        given.otlp_endpoint,
        given.log_format,
    )


def read_service(path: Path) -> DiffusionService:
    """Raises StartError, all faults on one line."""
    try:
        return load_service(path)
    except SpecError as error:
        raise StartError(f"--service: {'; '.join(str(error).splitlines())}") from None


def disk_place(flags: Flags, service: DiffusionService) -> tuple[Path, int] | None:
    """Folder and bound of the cache's tier on disk; None for none. Raises StartError."""
    if flags.cache_dir is None:
        return None
    disk = service.spec.cache.disk
    size = flags.cache_disk_bytes or (disk.size_bytes if disk is not None else None)
    if size is None:
        raise StartError(
            "--cache-dir: needs a bound: --cache-disk-bytes, or spec.cache.disk.size of the service"
        )
    return flags.cache_dir, size


def load_tls(flags: Flags, service: DiffusionService) -> Tls | None:
    """TLS of the folder that the flags name, as the service wants it. Raises StartError."""
    if flags.tls_dir is None:
        return None
    try:
        return Tls.wanted_by(service.spec.security.tls, flags.tls_dir)
    except TlsError as error:
        raise StartError(f"--tls-dir: {error}") from None


def _tracing(flags: Flags, service: DiffusionService) -> tracing.Tracing:
    """Workers go on with traces that a router began, and begin none."""
    if flags.otlp_endpoint is None:
        return tracing.OFF
    return tracing.start(flags.otlp_endpoint, "worker", service.name, flags.name)


def check_listen(listen: str) -> None:
    """Tries to bind, since gRPC that fails to writes lines of its own. Raises StartError."""
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            # As gRPC does: a port that was left a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StartError(f"--listen: {listen} cannot be bound: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a worker until it is told to stop; gives the exit code."""
    try:
        flags = parse_flags(sys.argv[1:] if arguments is None else arguments)
        service = read_service(flags.service)
        check_listen(flags.listen)
        tls = load_tls(flags, service)
        # Before torch and FAISS are imported, which read them once.
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(flags.threads)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # Bad flags are told at once, not after seconds of importing.
        from gesso_worker import lifecycle

        logs.set_up("worker", flags.log_format, flags.name, ("gesso_worker",), Throttle())
        return asyncio.run(
            lifecycle.serve(
                flags.name,
                flags.listen,
                service,
                flags.threads,
                flags.max_accepted,
                flags.linger_s,
                flags.drain_s,
                disk_place(flags, service),
                flags.fetch_deadline_s,
                flags.metrics,
                tls,
                flags.health,
                _tracing(flags, service),
            )
        )
    except StartError as error:
        print(f"gesso worker: {error}", file=sys.stderr)
        return BAD_START


if __name__ == "__main__":
    # Until the event loop has handlers of its own: nothing is accepted yet, so there is nothing to finish.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A model that is still loading in a thread would hold the interpreter, or crash it, on its way out.
    os._exit(code)
