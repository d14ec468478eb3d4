"""An operator as a process of this machine, against an API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.processes import free_port, wait_for

IMAGES = (
    "--router-image",
    "localhost/gesso-router:test",
    "--worker-image",
    "localhost/gesso-worker:test",
)


class OperatorProcess:
    """One operator; `lines` are what it said so far."""

    def __init__(self, kubeconfig: Path, name: str, namespace: str, folder: Path) -> None:
        """Starts it; it looks after one namespace, and its Lease is there too."""
        self.port = free_port()
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gesso_operator.cluster", "--namespace", namespace),
                    *("--lease-namespace", namespace, "--http", f"127.0.0.1:{self.port}", *IMAGES),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "KUBECONFIG": str(kubeconfig), "POD_NAME": name, "USER": "test"},
            )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its structured lines."""
        return [json.loads(x) for x in self._log.read_text().splitlines() if x.startswith("{")]

    def said(self, message: str) -> bool:
        """Whether it has told of it."""
        return any(line["message"] == message for line in self.lines)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of its own HTTP server; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def leads(self) -> bool:
        """Whether it may act."""
        return "gesso_operator_leading 1.0" in self.get("/metrics")[1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals it, and gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def operator(
    kubeconfig: Path, name: str, namespace: str, folder: Path
) -> Iterator[OperatorProcess]:
    """An operator whose watches are open."""
    found = OperatorProcess(kubeconfig, name, namespace, folder)
    try:
        if not wait_for(lambda: found.get("/readyz")[0] == 200, 40, 0.2):
            raise AssertionError(f"not ready: {found.get('/readyz')}\n{found._log.read_text()}")
        yield found
    finally:
        if found.process.poll() is None:
            found.end(signal.SIGKILL)


def eventually(what: str, check: Any, seconds: float = 30.0) -> float:
    """Seconds until a check holds; fails where it does not in time."""
    began = time.monotonic()
    assert wait_for(check, seconds, 0.1), f"not within {seconds:g} s: {what}"
    return time.monotonic() - began
