"""Where the models that ship with Gesso lie: `builtin://` sources to folders, without importing a worker."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

SCHEME = "builtin://"
TINY_SDXL = "builtin://tiny-sdxl"
TINY_CLIP = "builtin://tiny-clip"


def is_builtin(source: str) -> bool:
    """Whether a model source names a model that ships with Gesso."""
    return source.startswith(SCHEME)


def builtin_names() -> list[str]:
    """The `builtin://` sources there are, sorted."""
    root = _root()
    return sorted(SCHEME + p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []


def builtin_path(source: str) -> Path:
    """The folder of a `builtin://` source. Raises ValueError, naming what there is, for any other."""
    path = _root() / source.removeprefix(SCHEME)
    if not is_builtin(source) or "/" in source.removeprefix(SCHEME) or not path.is_dir():
        raise ValueError(
            f"model source {source!r} is not there: one of {', '.join(builtin_names())}"
        )
    return path


def _root() -> Path:
    spec = find_spec("gesso_worker")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "builtin models ship with the package gesso_worker, which is not installed"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "models" / "builtin"
