"""Finds the local service that a command is meant for: by name, by state directory, or the only one that is
up.
"""

from __future__ import annotations

from pathlib import Path

from gesso.api.local_state import DEFAULT_ROOT, LocalState, StateDir, local_services
from gesso.cli.console import EXIT_USAGE, CliError


def find_state_dir(name: str | None, state_dir: Path | None, root: Path = DEFAULT_ROOT) -> StateDir:
    """The state directory meant. Raises CliError, saying what there is, where that is not one."""
    if state_dir is not None:
        return StateDir(state_dir)
    if name is not None:
        found = StateDir.of(name, root)
        if found.read_state() is None:
            raise CliError(f"no service {name!r} is up here{_others(root)}", EXIT_USAGE)
        return found
    services = list(local_services(root))
    up = [s for s in services if s.alive] or services
    if not up:
        raise CliError(f"no service is up here: `gesso up FILE` starts one (looked in {root}/)")
    if len(up) > 1:
        names = ", ".join(s.path.name for s in up)
        raise CliError(f"several services are up: {names}; name one with --name", EXIT_USAGE)
    return up[0]


def running_state(state_dir: StateDir) -> LocalState:
    """The state of a service that must be up. Raises CliError when it is not, or not yet."""
    state = state_dir.read_state()
    if state is None:
        raise CliError(f"no service is up in {state_dir.path}")
    if not state_dir.alive:
        raise CliError(
            f"{state.name} is not running: its supervisor (pid {state.pid}) is gone; "
            f"`gesso down{flag(state_dir)}` cleans up"
        )
    if state.phase != "Ready":
        raise CliError(f"{state.name} is {state.phase.lower()}: {state.message}")
    return state


def flag(state_dir: StateDir) -> str:
    """The flag that names this state directory in a hint; empty for a default one."""
    default = state_dir.path.parent == DEFAULT_ROOT
    return f" --name {state_dir.path.name}" if default else f" --state-dir {state_dir.path}"


def _others(root: Path) -> str:
    names = ", ".join(s.path.name for s in local_services(root))
    return f"; up: {names}" if names else ""
