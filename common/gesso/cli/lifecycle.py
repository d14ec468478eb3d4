"""`gesso up` and `gesso down`: starts the supervisor as a process of its own, and ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gesso.api import DiffusionService, SpecError, load_service
from gesso.api.local_state import LocalState, StateDir
from gesso.cli.console import EXIT_USAGE, CliError, err, note, say
from gesso.cli.extras import FLEET, FLEET_EXTRAS, require
from gesso.cli.find import flag

SUPERVISOR = "gesso_operator.local.supervisor"
_POLL_SECONDS = 0.1
_DOWN_SECONDS = 30.0
_KILL_SECONDS = 5.0

# Supervisors that this process has started: their end must be collected by it, should it live that long.
_started: list[subprocess.Popen[bytes]] = []


def up(
    file: Path,
    grpc_port: int,
    http_port: int,
    state_dir: Path | None,
    foreground: bool,
    timeout_s: float,
    supervisor_flags: Sequence[str] = (),
) -> None:
    """Brings a service up and returns when it is ready; in the foreground, when it has ended.

    `supervisor_flags` go to the supervisor as they are.
    """
    service = read_service(file)
    require(FLEET_EXTRAS, *FLEET)
    place = StateDir(state_dir) if state_dir else StateDir.of(service.name)
    if place.alive:
        raise CliError(
            f"{service.name} is up already in {place.path}: `gesso down{flag(place)}` ends it",
            EXIT_USAGE,
        )
    command = [
        *(sys.executable, "-m", SUPERVISOR, "--service", str(file), "--state-dir", str(place.path)),
        *("--grpc-port", str(grpc_port), "--http-port", str(http_port)),
        *("--start-timeout", f"{timeout_s:g}"),
    ]
    command += supervisor_flags
    if foreground:
        _in_foreground(command)
        return
    state = _in_background(service, place, command, timeout_s)
    say(f"{service.name} is up: gRPC {state.grpc}, HTTP http://{state.http}/v1/images/generations")
    for other in state.routers[1:]:
        say(f"{other.name}: gRPC {other.address}, HTTP http://{other.http}/v1/images/generations")
    say(f"{_workers(state)}; state and logs in {place.path}/")


def down(place: StateDir) -> None:
    """Ends a service and removes its state; says if nothing ran."""
    state = place.read_state()
    if not place.alive:
        if state is None and not place.service_file.exists():
            raise CliError(f"nothing is up in {place.path}")
        end_orphans(state)
        place.remove()
        say(f"nothing ran in {place.path}; what an earlier run left behind is removed")
        return
    name = state.name if state else place.path.name
    if state is None:
        # Between taking the lock and writing state.json.
        raise CliError(f"{name} is just starting: try again in a moment")
    with suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
    graceful = _until_dead(place, _DOWN_SECONDS)
    if not graceful:
        with suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGKILL)
        _until_dead(place, _KILL_SECONDS)
        end_orphans(state)
    for process in [p for p in _started if p.pid == state.pid]:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_SECONDS)
            _started.remove(process)
    place.remove()
    say(f"{name} is down" if graceful else f"{name} is down; it had to be killed")


def read_service(file: Path) -> DiffusionService:
    """Reads a service file. Raises CliError with one line for each fault."""
    try:
        return load_service(file)
    except SpecError as error:
        raise CliError(str(error), EXIT_USAGE) from None


def end_orphans(state: LocalState | None) -> None:
    """Kills children that outlived their supervisor; only those that are still Gesso's, by command line."""
    for child in state.children if state else ():
        if child.pid > 0 and _is_gesso(child.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)


def _in_foreground(command: list[str]) -> None:
    process = subprocess.Popen(command)
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            # The terminal sent SIGINT to the supervisor too; it ends in order.
            continue
    if code:
        raise CliError(f"the service ended with code {code}", code if code > 0 else 1)


def _in_background(
    service: DiffusionService, place: StateDir, command: list[str], timeout_s: float
) -> LocalState:
    try:
        place.create()
    except OSError as error:
        raise CliError(f"--state-dir {place.path}: {error.strerror or error}", EXIT_USAGE) from None
    log_file = place.log("supervisor")
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _started.append(process)
    try:
        return _until_ready(service, place, process, log_file, timeout_s)
    except (KeyboardInterrupt, CliError):
        _end(process)
        raise


def _until_ready(
    service: DiffusionService,
    place: StateDir,
    process: subprocess.Popen[bytes],
    log_file: Path,
    timeout_s: float,
) -> LocalState:
    deadline = time.monotonic() + timeout_s + _KILL_SECONDS
    with err.status(f"{service.name}: starting routers and workers") as spinner:
        while time.monotonic() < deadline:
            code = process.poll()
            if code is not None:
                raise CliError(
                    f"{service.name} did not come up: {last_message(log_file)} (logs: {place.logs}/)",
                    EXIT_USAGE if code == EXIT_USAGE else 1,
                )
            state = place.read_state()
            if state and state.pid == process.pid:
                if state.phase == "Ready":
                    return state
                spinner.update(f"{service.name}: {state.message}")
            time.sleep(_POLL_SECONDS)
    raise CliError(f"{service.name} is not ready after {timeout_s:g} s (logs: {place.logs}/)")


def _end(process: subprocess.Popen[bytes]) -> None:
    _started.remove(process)
    if process.poll() is not None:
        return
    note("stopping what was started")
    process.terminate()
    try:
        process.wait(_DOWN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_message(log_file: Path) -> str:
    """The detail of the last structured line in a log that has one; else its last line."""
    with suppress(OSError):
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in reversed(lines):
            with suppress(ValueError):
                fields = json.loads(line)
                if isinstance(fields, dict) and fields.get("detail"):
                    return str(fields["detail"])
        if lines:
            return lines[-1].strip()
    return "it left no message"


def _until_dead(place: StateDir, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while place.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _is_gesso(pid: int) -> bool:
    """Whether a process is one of Gesso's; process ids are used again."""
    try:
        line = subprocess.run(
            ["ps", "-o", "args=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "gesso_" in line


def _workers(state: LocalState) -> str:
    names = [c.name for c in state.workers]
    return (
        f"{len(names)} workers ({', '.join(names)})" if len(names) <= 8 else f"{len(names)} workers"
    )
