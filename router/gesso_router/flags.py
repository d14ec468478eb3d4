"""The router's command line, checked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, get_args

from gesso import logs, observing
from gesso.api.fleet import ConsoleMode
from gesso_router.settings import RouterSettings


class StartError(Exception):
    """The router cannot start; the message is one clear line."""


@dataclass(frozen=True)
class Address:
    """Host and port to listen on; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `HOST:PORT`."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: HOST:PORT, port 0 to 65535")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Flags:
    """The command line."""

    grpc: Address
    http: Address
    service: Path
    state_dir: Path
    plan_file: Path | None = None
    linger_s: float = 0.0
    drain_s: float = RouterSettings.drain_seconds
    console: ConsoleMode | None = None
    keys: Path | None = None
    tls_dir: Path | None = None
    control: Address | None = None
    health: Address | None = None
    otlp_endpoint: str | None = None
    trace_ratio: float = 1.0
    log_format: logs.Form = "json"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse puts before it."""
        raise StartError(f"{message} (see --help)")


def parse_flags(arguments: Sequence[str]) -> Flags:
    """The flags. Raises StartError on bad ones."""
    parser = _Parser(prog="gesso_router.server", description="The router of a Gesso service.")
    parser.add_argument("--grpc", required=True, type=Address.parse, metavar="HOST:PORT")
    parser.add_argument("--http", required=True, type=Address.parse, metavar="HOST:PORT")
    parser.add_argument("--service", required=True, type=Path, help="a DiffusionService in YAML")
    parser.add_argument("--state-dir", required=True, type=Path, help="keeps plan.json")
    parser.add_argument(
        "--plan-file", type=Path, help="a plan to begin with, if it is the newer one"
    )
    for name, default, says in (
        ("--linger-seconds", 0.0, "requests are still taken so long after SIGTERM"),
        (
            "--drain-seconds",
            RouterSettings.drain_seconds,
            "then accepted ones have so long to finish",
        ),
    ):
        parser.add_argument(name, type=_seconds, default=default, metavar="S", help=says)
    parser.add_argument(
        "--console", choices=get_args(ConsoleMode), help="in place of spec.router.console"
    )
    for name, says in (
        ("--keys", "file of the API keys that clients must bring; absent: anybody may ask"),
        ("--tls-dir", "tls.crt, tls.key and ca.crt; absent: no TLS"),
    ):
        parser.add_argument(name, type=Path, help=says)
    for name, says in (
        ("--control", "a port of its own for RouterControl, apart from the clients'"),
        ("--health", "serves grpc.health alone, without TLS, for probes"),
    ):
        parser.add_argument(name, type=Address.parse, metavar="HOST:PORT", help=says)
    observing.add_flags(parser)
    parser.add_argument(
        "--trace-ratio",
        type=observing.share,
        default=1.0,
        metavar="SHARE",
        help="of requests that are traced where the client has not decided (default 1)",
    )
    given = parser.parse_args(arguments)
    if given.keys is not None and given.control is None:
        parser.error("--keys: needs --control: else every client may give the router plans")
    return Flags(
        given.grpc,
        given.http,
        given.service,
        given.state_dir,
        given.plan_file,
        given.linger_seconds,
        given.drain_seconds,
        given.console,
        given.keys,
        given.tls_dir,
        given.control,
        given.health,
        given.otlp_endpoint,
        given.trace_ratio,
        given.log_format,
    )


def _seconds(text: str) -> float:
    value = float(text) if text.replace(".", "", 1).isdecimal() else -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: seconds from 0 to 3600")
    return value
