"""Where the models that ship with Gesso lie: `builtin://` sources to folders, without importing a worker.

A model that has a `parts.json` lies there only in part: the file names, for each further part, the model that
has it. Its folder is put together once from links to both, below `~/.cache/gesso`, so that diffusers' own
`from_pretrained` loads it and no weights are stored twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SCHEME = "builtin://"
TINY_SDXL = "builtin://tiny-sdxl"
TINY_SDXL_TURBO = "builtin://tiny-sdxl-turbo"
TINY_CLIP = "builtin://tiny-clip"
#: Of a model that lies there only in part: `{part: model that has it}`.
PARTS_NAME = "parts.json"


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
    return _assembled(path) if (path / PARTS_NAME).exists() else path


def parts_of(folder: Path) -> dict[str, Path]:
    """What a folder with a `parts.json` is made of, by name: its own files, and the parts that others have.

    Raises ValueError for a `parts.json` that names what is not there.
    """
    others = json.loads((folder / PARTS_NAME).read_text(encoding="utf-8"))
    parts = {p.name: p for p in folder.iterdir() if p.name != PARTS_NAME}
    parts |= {part: folder.parent / model / part for part, model in others.items()}
    missing = sorted(str(path) for path in parts.values() if not path.exists())
    if missing:
        raise ValueError(f"{folder / PARTS_NAME}: {', '.join(missing)} is not there")
    return parts


def link(parts: Mapping[str, Path], folder: Path) -> None:
    """Makes a folder of links. Safe among processes that make the same one: the first wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, target in parts.items():
            (aside / name).symlink_to(target.absolute())
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@cache
def _assembled(path: Path) -> Path:
    parts = parts_of(path)
    # Another installation, or another version of this one, has a folder of its own.
    made_of = json.dumps({name: str(target.absolute()) for name, target in sorted(parts.items())})
    name = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = home / "gesso" / "builtin" / name / path.name
    try:
        if not all((folder / part).exists() for part in parts):
            shutil.rmtree(folder, ignore_errors=True)
            link(parts, folder)
    except OSError:
        # No home to write to, as in a container with a read-only root: a folder for this process alone.
        try:
            folder = Path(tempfile.mkdtemp(prefix="gesso-")) / path.name
            link(parts, folder)
        except OSError as error:
            raise ValueError(
                f"{path.name} cannot be put together: neither {home} nor {tempfile.gettempdir()} can be "
                f"written to: {error.strerror}"
            ) from None
    return folder


def _root() -> Path:
    spec = find_spec("gesso_worker")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "builtin models ship with the package gesso_worker, which is not installed"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "models" / "builtin"
