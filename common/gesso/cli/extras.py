"""Tells which of the package's extras a command lacks.

The parts' own code comes with each installation; what it imports comes with the extras.
"""

from __future__ import annotations

from importlib.util import find_spec

from gesso.cli.console import CliError

#: What a fleet on one machine imports, and the extras that bring it.
FLEET = ("scipy", "fastapi", "uvicorn", "safetensors", "torch", "diffusers", "faiss")
FLEET_EXTRAS = "operator,router,worker"


def require(extras: str, *modules: str) -> None:
    """Raises CliError, with what to install, where one of these is missing; imports none of them."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise CliError(f"{', '.join(missing)} {verb} not installed: pip install 'gesso[{extras}]'")
