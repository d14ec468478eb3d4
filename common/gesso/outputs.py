"""Files that a command is to write: looked at before its work is done, each fault told by the option's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: What matplotlib draws without TeX, by suffix.
PICTURES = (
    ".eps", ".gif", ".jpeg", ".jpg", ".pdf", ".png", ".ps", ".svg", ".svgz", ".tif", ".tiff", ".webp",
)  # fmt: skip


class OutputError(Exception):
    """A file that could not be written in the end, as on a full disk: option, path and why."""


def check_file(option: str, path: Path | None) -> None:
    """Raises ValueError where no file can be written; what is there already stays as it is."""
    if path is None:
        return
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise _refused(option, path, "a file is needed, this is a directory")
        if not target.parent.is_dir():
            raise _refused(option, path, "its folder is not there")
        if target.exists():
            if not os.access(target, os.W_OK):
                raise _refused(option, path, "a file that may be written is needed")
            return
        # Tried, not asked for: access to a folder says nothing of long names, nor of what the system makes up.
        with target.open("xb"):
            pass
        target.unlink()
    except OSError as error:
        problem = f"a file that can be written is needed ({_why(error)})"
        raise _refused(option, path, problem) from None


def check_picture(option: str, path: Path | None) -> None:
    """As `check_file`; raises ValueError on a suffix that no picture has, too."""
    if path is not None and path.suffix.lower() not in PICTURES:
        raise _refused(option, path, f"its suffix is one of {', '.join(PICTURES)}")
    check_file(option, path)


def make_folder(option: str, path: Path) -> None:
    """Makes a folder to write into, where there is none. Raises ValueError where there can be none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(option, path, f"a folder is needed ({_why(error)})") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise _refused(option, path, "a folder that may be written is needed")


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Raises OutputError for an OSError within."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{option}: {path} could not be written: {_why(error)}") from None


def _refused(option: str, path: Path, allowed: str) -> ValueError:
    return ValueError(f"{option}: {path} is not allowed: {allowed}")


def _why(error: OSError) -> str:
    return error.strerror or str(error)
