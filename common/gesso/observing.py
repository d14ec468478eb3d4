"""The flags of every part for what it tells of itself: the form of its log, where its traces go."""

from __future__ import annotations

import argparse
import re

from gesso.api.base import COLLECTOR, PATTERNS
from gesso.logs import FORMS


def add_log_flag(parser: argparse.ArgumentParser) -> None:
    """`--log-format`."""
    parser.add_argument(
        "--log-format", choices=FORMS, default="json", help="of the lines on stderr (default json)"
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--log-format` and `--otlp-endpoint`."""
    add_log_flag(parser)
    parser.add_argument(
        "--otlp-endpoint",
        type=endpoint,
        metavar="URL",
        help="http(s)://HOST:PORT of an OTLP collector (gRPC) for traces; absent: none are made",
    )


def endpoint(text: str) -> str:
    """A collector's URL. Raises argparse.ArgumentTypeError."""
    if not re.fullmatch(COLLECTOR, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: {PATTERNS[COLLECTOR]}")
    return text


def share(text: str) -> float:
    """A number from 0 to 1. Raises argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a number from 0 to 1")
    return value
