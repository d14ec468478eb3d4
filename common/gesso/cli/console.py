"""How the command speaks: results to stdout, all else to stderr, one clear line for an error."""

from __future__ import annotations

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

EXIT_FAILED = 1
EXIT_USAGE = 2
#: As a shell tells a program that SIGINT ended.
EXIT_INTERRUPTED = 130


class CliError(Exception):
    """What the user is told, and the exit code: 1 it failed, 2 it was asked for wrongly."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        """`message` may have several lines, one for each fault."""
        super().__init__(message)
        self.code = code


def say(text: str) -> None:
    """Prints a result; brackets are no markup."""
    out.print(text, markup=False)


def note(text: str) -> None:
    """Prints what is not the result."""
    err.print(text, markup=False)
