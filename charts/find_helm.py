"""Finds helm."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def find_helm() -> Path | None:
    """The helm that HELM names, else one on the PATH, else one that the test cluster was built with."""
    named = os.environ.get("HELM") or shutil.which("helm")
    if named:
        return Path(named)
    built = built_helms()
    return built[max(built)] if built else None


def built_helms() -> dict[int, Path]:
    """Those that the test cluster was built with (see tests/cluster/tools.py), by major version."""
    base = os.environ.get("GESSO_CACHE")
    root = (Path(base) if base else Path.home() / ".cache" / "gesso") / "kube"
    found = sorted(root.glob("helm[0-9]-*/helm[0-9]"))
    return {int(path.name.removeprefix("helm")): path for path in found}
