"""The audit of dependencies, by the real pip-audit against a service of this test's own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pip_audit")

ROOT = Path(__file__).parents[3]
VULNERABLE: dict[str, Any] = {
    "id": "GHSA-test-0001",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "pyyaml", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "7.1"}]}],
        }
    ],
}


class Service:
    """Answers as OSV does: every version of pyyaml has a vulnerability, nothing else."""

    def __init__(self, slow: bool = False) -> None:
        self.asked: list[str] = []
        self._leaving = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                name = json.loads(self.rfile.read(length))["package"]["name"]
                service.asked.append(name)
                if slow:
                    service._leaving.wait(30)
                vulns = [VULNERABLE] if name == "pyyaml" else []
                body = json.dumps({"vulns": vulns} if vulns else {}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # who asked did not wait
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/query"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._leaving.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


class Audit:
    """The script, in folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.cache, self.constraints = folder / "cache", folder / "constraints.txt"

    def __call__(self, url: str, *versions: str, **more: str) -> subprocess.CompletedProcess[str]:
        self.constraints.write_text("".join(f"{v}\n" for v in versions or ("pyyaml==6.0.3",)))
        environment = {
            **os.environ,
            "GESSO_AUDIT_URL": url,
            "GESSO_AUDIT_CONSTRAINTS": str(self.constraints),
            "GESSO_CACHE": str(self.cache),
            "NO_PROXY": "127.0.0.1",
            **more,
        }
        command = [sys.executable, str(ROOT / "hack" / "audit.py")]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=100, env=environment, check=False
        )


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


def test_a_known_vulnerability_fails_the_check_until_the_version_changes(
    audit: Audit, service: Service
) -> None:
    for _ in range(2):  # from the service, then as it was kept
        done = audit(service.url)
        told = "audit: pyyaml 6.0.3: GHSA-test-0001, fixed in 7.1\n"
        assert (done.returncode, done.stderr) == (1, told)
    assert service.asked == ["pyyaml"]
    assert audit(service.url, "rich==15.0.0").returncode == 0
    assert service.asked == ["pyyaml", "rich"]


def test_an_answer_is_kept_for_a_day(audit: Audit, service: Service) -> None:
    assert audit(service.url, "rich==15.0.0").returncode == 0
    (kept,) = audit.cache.iterdir()
    assert audit(service.url, "rich==15.0.0").returncode == 0
    assert service.asked == ["rich"]
    yesterday = time.time() - 25 * 3600
    os.utime(kept, (yesterday, yesterday))
    assert audit(service.url, "rich==15.0.0").returncode == 0
    assert service.asked == ["rich", "rich"]


def test_where_nobody_answers_it_says_so_and_is_content(audit: Audit) -> None:
    service = Service()
    service.close()
    done = audit(service.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "dependencies NOT audited: the vulnerability service cannot be reached" in done.stdout


def test_a_service_that_does_not_answer_is_not_waited_for(audit: Audit) -> None:
    service = Service(slow=True)
    began = time.monotonic()
    done = audit(service.url, GESSO_AUDIT_SECONDS="4")
    service.close()
    assert time.monotonic() - began < 20
    assert done.returncode == 0
    assert "NOT audited" in done.stdout


def test_what_pip_audit_cannot_read_is_a_fault(audit: Audit, service: Service) -> None:
    done = audit(service.url, "pyyaml>=1")
    assert done.returncode == 2
    assert done.stderr.startswith("audit: pip-audit failed: ")


def test_what_is_accepted_needs_a_reason() -> None:
    sys.path.insert(0, str(ROOT / "hack"))
    try:
        import audit as script
    finally:
        sys.path.remove(str(ROOT / "hack"))
    assert set(script.ids(["# a comment", "", "GHSA-1 not reachable: we parse nothing"])) == {
        "GHSA-1"
    }
    with pytest.raises(script.AuditError, match="GHSA-2: a reason is needed"):
        list(script.ids(["GHSA-2"]))
    assert script.accepted_in(script.ACCEPTED) is not None
