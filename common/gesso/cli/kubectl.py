"""DiffusionServices as `kubectl` reads them, with the user's own kubeconfig and rights."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from gesso.api import DiffusionService, ServiceStatus, SpecError, service_of
from gesso.cli.console import CliError

RESOURCE = "diffusionservices.gesso.dev"
_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Cluster:
    """Where to look: kubectl's own flags, empty ones left to it."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""
    all_namespaces: bool = False

    def command(self, *words: str) -> list[str]:
        """What is run for `kubectl WORDS`."""
        flags = {
            "--namespace": self.namespace,
            "--context": self.context,
            "--kubeconfig": self.kubeconfig,
        }
        given = [f"{flag}={value}" for flag, value in flags.items() if value]
        everywhere = ["--all-namespaces"] if self.all_namespaces else []
        return ["kubectl", *words, *given, *everywhere]

    def get(self, name: str | None = None) -> list[dict[str, Any]]:
        """The object of that name, or all there are, as the API server gives them. Raises CliError."""
        words = ["get", RESOURCE, *([name] if name else []), "--output=json"]
        try:
            done = subprocess.run(
                self.command(*words), capture_output=True, text=True, timeout=_DEADLINE_S
            )
        except FileNotFoundError:
            raise CliError("kubectl is not on the PATH") from None
        except subprocess.TimeoutExpired:
            raise CliError(f"kubectl did not answer within {_DEADLINE_S:g} s") from None
        if done.returncode != 0:
            raise CliError(done.stderr.strip() or f"kubectl failed with {done.returncode}")
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise CliError(f"kubectl answered no JSON: {done.stdout[:80]!r}") from None
        return [found] if name else list(found.get("items") or [])

    def service(self, name: str) -> DiffusionService:
        """The service of that name. Raises CliError with a line for each fault."""
        try:
            return service_of(self.get(name)[0])
        except SpecError as error:
            lines = (f"{name}: {line}" for line in str(error).splitlines())
            raise CliError("\n".join(lines)) from None


def status_of(body: dict[str, Any]) -> ServiceStatus | None:
    """An object's status; None where nobody has written any. Raises CliError."""
    if not body.get("status"):
        return None
    try:
        return ServiceStatus.model_validate_json(json.dumps(body["status"]), by_name=False)
    except ValueError as error:
        name = body["metadata"]["name"]
        raise CliError(
            f"{name}: its status was written by another version of Gesso: {error}"
        ) from None
