"""One process of the fleet: start it, see whether it serves, start it again when it dies, stop it.

Each runs in a process group of its own, tethered to this process, with stdout and stderr in its log.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from gesso_operator.local.priority import Priority
from gesso_operator.local.restarts import RestartPolicy, RestartState, after_exit
from gesso_operator.logs import Log

PROBE_SECONDS = 0.25
LIVENESS_SECONDS = 5.0
LIVENESS_MISSES = 6
STOP_SECONDS = 10.0
_LARGEST_LOG = 16 * 1024 * 1024
_TAIL_BYTES = 16 * 1024
_LONGEST_LINE = 400


class StartError(RuntimeError):
    """A process that did not come up; the message is its own last clear line."""


class ManagedProcess:
    """A process under supervision. All methods belong to one event loop."""

    def __init__(
        self,
        name: str,
        command: Callable[[str], list[str]],
        address: Callable[[], str],
        healthy: Callable[[str], Awaitable[bool]],
        log_file: Path,
        log: Log,
        environment: Mapping[str, str],
        start_seconds: float = 120.0,
        policy: RestartPolicy | None = None,
        on_change: Callable[[], None] = lambda: None,
        niceness: int = 0,
    ) -> None:
        """`address` gives the address of the next start, `command` its command line, `healthy` asks its health.

        `on_change` is called when it begins or ceases to serve. A process that is started again and does not
        serve within `start_seconds` is killed, and counts as dead. `niceness`, 0 to 19, has it yield the
        processor to others once it serves; until then it yields in any case.
        """
        self.name = name
        self.address = ""
        self.serving = False
        self.message = ""
        self.given_up = False
        self._command = command
        self._next_address = address
        self._healthy = healthy
        self._log_file = log_file
        self._log = log
        self._environment = dict(environment)
        self._policy = policy or RestartPolicy()
        self._restarts = RestartState()
        self._process: asyncio.subprocess.Process | None = None
        self._offset = 0
        self._healthy_since: float | None = None
        self._stopping = asyncio.Event()
        self._start_seconds = start_seconds
        self._on_change = on_change
        self._niceness = niceness
        self._priority: Priority | None = None
        self._started = 0.0

    @property
    def pid(self) -> int:
        """Its process id while it runs, else 0."""
        process = self._process
        return process.pid if process and process.returncode is None else 0

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._restarts.total

    async def start(self) -> None:
        """Starts it, without waiting for its health."""
        self.address = self._next_address()
        self.serving = False
        self._healthy_since = None
        self._started = time.monotonic()
        self._rotate()
        command = self._command(self.address)
        with self._log_file.open("ab") as output:
            self._offset = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gesso_operator.local.tether",
                str(os.getpid()),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                start_new_session=True,
            )
        self._priority = Priority(self._process.pid, self._niceness)
        self._log.info("started", process=self.name, pid=self._process.pid, address=self.address)

    async def until_serving(self) -> None:
        """Waits for health. Raises StartError when it ends first; the caller sets the deadline."""
        process = self._process
        if process is None:
            raise StartError(f"{self.name} was not started")
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                if await self._healthy(self.address):
                    self._serves()
                    return
                await asyncio.wait({ended}, timeout=PROBE_SECONDS)
        finally:
            if not ended.done():
                ended.cancel()
        raise StartError(self.exit_text())

    async def supervise(self) -> None:
        """Minds a started process until `stop`: starts it again when it ends or hangs, within the budget."""
        while not self._stopping.is_set():
            await self._until_ended()
            self.serving = False
            if self._stopping.is_set():
                return
            since = self._healthy_since
            healthy_for = time.monotonic() - since if since is not None else 0.0
            self.message = self.exit_text()
            self._on_change()
            self._restarts, delay = after_exit(self._restarts, healthy_for, self._policy)
            if delay is None:
                self.given_up = True
                self.message = f"given up after {self._policy.budget} restarts: {self.message}"
                self._log.error("given_up", process=self.name, detail=self.message)
                return
            self._log.warning(
                "restarting",
                process=self.name,
                detail=self.message,
                delay_s=delay,
                restarts=self._restarts.total,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            if not self._stopping.is_set():
                await self.start()

    async def stop(self, grace_s: float = STOP_SECONDS) -> None:
        """SIGTERM to the group, SIGKILL after the grace; returns when it has ended."""
        self._stopping.set()
        self.serving = False
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), grace_s)
        except TimeoutError:
            self._log.warning("killing", process=self.name, after_s=grace_s)
            self._signal(signal.SIGKILL)
            await process.wait()
        # What it may have left in its group.
        self._signal(signal.SIGKILL)
        self._log.info("stopped", process=self.name, code=process.returncode)

    def exit_text(self) -> str:
        """How it ended, with its own last line."""
        code = self._process.returncode if self._process else None
        if code is None:
            how = "does not answer"
        elif code < 0:
            # What it said last has nothing to do with it.
            return f"{self.name} was ended by {signal.Signals(-code).name}"
        else:
            how = f"exited with code {code}"
        line = last_line(self._log_file, self._offset)
        return f"{self.name} {how}{': ' + line if line else ''}"

    async def _until_ended(self) -> None:
        """Until the process has ended; a serving one that stops answering is killed."""
        process = self._process
        if process is None:
            return
        misses = 0
        while process.returncode is None:
            pause = LIVENESS_SECONDS if self.serving else PROBE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.wait()), pause)
            if process.returncode is not None or self._stopping.is_set():
                break
            if self._priority is not None:
                self._priority.keep(serving=self.serving)
            if await self._healthy(self.address):
                misses = 0
                if not self.serving:
                    self._serves()
                    self._on_change()
            elif self.serving:
                misses += 1
                if misses >= LIVENESS_MISSES:
                    self._log.warning("hung", process=self.name, misses=misses)
                    self._signal(signal.SIGKILL)
            elif time.monotonic() - self._started > self._start_seconds:
                self._log.warning("start_too_slow", process=self.name, after_s=self._start_seconds)
                self._signal(signal.SIGKILL)
        await process.wait()
        if not self._stopping.is_set():
            self._signal(signal.SIGKILL)

    def _serves(self) -> None:
        self.serving = True
        self.message = ""
        self._healthy_since = time.monotonic()
        if self._priority is not None:
            self._priority.keep(serving=True)
        self._log.info("serving", process=self.name, address=self.address)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _rotate(self) -> None:
        """Keeps the log bounded: one older file at most."""
        with suppress(FileNotFoundError):
            if self._log_file.stat().st_size > _LARGEST_LOG:
                self._log_file.replace(self._log_file.with_suffix(".log.1"))


def last_line(path: Path, offset: int = 0) -> str:
    """The last line that tells something in a log from `offset` on; of a structured line, what it tells."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(offset, end - _TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1]
    with suppress(ValueError):
        fields = json.loads(line)
        if isinstance(fields, dict):
            told = fields.get("detail") or fields.get("message")
            line = str(told) if told else line
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 3] + "..."
