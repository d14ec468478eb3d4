"""Looks for known vulnerabilities in what is installed (constraints.txt), by pip-audit: `make audit`.

Asks OSV, or what GESSO_AUDIT_URL names in its place. The answer is kept for a day, outside the checkout. Where
nobody answers, it says so and is content: a check must not need a network. Exit codes: 0, also where nobody
answers; 1 with one line for each vulnerability; 2 if it could not look for another reason.

A vulnerability that does not matter here goes into hack/audit_accepted.txt: its id, then why.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = Path(__file__).with_name("audit_accepted.txt")
DAY_S = 24 * 3600.0
#: After nobody has answered, it is tried again so much later.
HOUR_S = 3600.0
DEADLINE_S = 120.0
SOCKET_S = 5
#: What pip-audit dies of where the service cannot be reached.
UNREACHABLE = (
    *("ConnectionError", "Timeout", "ProxyError", "SSLError", "ChunkedEncodingError"),
    *("ServiceError", "HTTPError", "RetryError"),
)


@dataclass(frozen=True)
class Found:
    """A known vulnerability of an installed package."""

    package: str
    version: str
    name: str
    fixed_in: str

    @property
    def told(self) -> str:
        """As a line."""
        return f"{self.package} {self.version}: {self.name}, {self.fixed_in}"


class UnreachableError(Exception):
    """Nobody has answered; the message says how that showed."""


class AuditError(Exception):
    """pip-audit did not work."""


def main() -> int:
    """Gives the exit code."""
    constraints = Path(os.environ.get("GESSO_AUDIT_CONSTRAINTS") or ROOT / "constraints.txt")
    kept = cache_file(constraints)
    try:
        accepted = accepted_in(ACCEPTED)
        answer = recent(kept) or asked(constraints)
    except UnreachableError as error:
        keep(kept, {"unreachable": str(error)})
        return skipped(str(error))
    except AuditError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    keep(kept, answer)
    if "unreachable" in answer:
        return skipped(str(answer["unreachable"]))
    found = [f for f in vulnerabilities(answer) if f.name not in accepted]
    for each in found:
        print(f"audit: {each.told}", file=sys.stderr)
    return 1 if found else 0


def skipped(why: str) -> int:
    """Says so, and is content."""
    print(f"[check] dependencies NOT audited: the vulnerability service cannot be reached ({why})")
    return 0


def asked(constraints: Path) -> dict[str, Any]:
    """What pip-audit says now. Raises UnreachableError, AuditError."""
    url = os.environ.get("GESSO_AUDIT_URL")
    deadline_s = float(os.environ.get("GESSO_AUDIT_SECONDS") or DEADLINE_S)
    command = [
        *(sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv"),
        *("--requirement", str(constraints), "--no-deps", "--disable-pip"),
        *("--progress-spinner", "off", "--format", "json", "--timeout", str(SOCKET_S)),
        *(("--osv-url", url) if url else ()),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"no answer in {deadline_s:g} s") from None
    if done.returncode in (0, 1):
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and "dependencies" in answer:
            return answer
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {done.returncode}"
    kind = last.partition(":")[0].rpartition(".")[2]
    if kind.endswith(UNREACHABLE) or any(word in last for word in UNREACHABLE):
        raise UnreachableError(kind)
    raise AuditError(f"pip-audit failed: {last[:300]}")


def vulnerabilities(answer: dict[str, Any]) -> list[Found]:
    """Of pip-audit's answer, each once."""
    return [
        Found(
            package["name"],
            package["version"],
            each["id"],
            f"fixed in {', '.join(each['fix_versions'])}"
            if each.get("fix_versions")
            else "not fixed yet",
        )
        for package in answer["dependencies"]
        for each in package.get("vulns", ())
    ]


def accepted_in(path: Path) -> set[str]:
    """Ids that are accepted. Raises AuditError on one without a reason."""
    if not path.exists():
        return set()
    return set(ids(path.read_text(encoding="utf-8").splitlines()))


def ids(lines: Iterable[str]) -> Iterable[str]:
    """The ids of lines `ID why`; empty lines and comments are left out. Raises AuditError."""
    for line in lines:
        name, _, why = line.partition("#")[0].strip().partition(" ")
        if name and not why.strip():
            raise AuditError(f"{ACCEPTED.name}: {name}: a reason is needed behind the id")
        if name:
            yield name


def cache_file(constraints: Path) -> Path:
    """Where the answer about these versions is kept."""
    base = os.environ.get("GESSO_CACHE")
    folder = Path(base) if base else Path.home() / ".cache" / "gesso"
    about = constraints.read_bytes() + (os.environ.get("GESSO_AUDIT_URL") or "").encode()
    return folder / f"audit-{hashlib.sha256(about).hexdigest()[:16]}.json"


def recent(kept: Path) -> dict[str, Any] | None:
    """An answer of this day, or that nobody answered within the hour."""
    try:
        age_s = time.time() - kept.stat().st_mtime
        answer = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(answer, dict):
        return None
    lasts = HOUR_S if "unreachable" in answer else DAY_S
    return answer if 0 <= age_s < lasts else None


def keep(kept: Path, answer: dict[str, Any]) -> None:
    """Keeps an answer that is not there already; a cache that cannot be written is none."""
    if recent(kept) is not None:
        return
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(answer), encoding="utf-8")
        aside.replace(kept)
    except OSError as error:
        print(f"audit: {kept}: not kept: {error.strerror or error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
