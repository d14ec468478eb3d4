"""A transcript of what is typed and what comes back, for docs/walkthrough.md."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = """# Walkthrough

What an administrator types, and what comes back: written by `tests/cluster/test_end_to_end.py` when it last
ran with `GESSO_WALKTHROUGH=1`, on Kubernetes 1.36 with the tiny model on two CPU cores.
"""


class Walk:
    """Chapters with commands and their output."""

    def __init__(self) -> None:
        """Empty."""
        self._parts: list[str] = [HEAD]

    def chapter(self, title: str, text: str) -> None:
        """A heading and what follows."""
        self._parts.append(f"## {title}\n\n{text}\n")

    def shown(self, command: str, output: str) -> None:
        """A command and its output."""
        clean = re.sub(r"[ \t]+$", "", output.strip(), flags=re.MULTILINE)
        clean = re.sub(r" *\t", "  ", clean)
        self._parts.append(f"```console\n$ {command}\n{clean}\n```\n")

    def told(self, text: str) -> None:
        """A sentence about what was measured."""
        self._parts.append(f"{text}\n")

    def write(self, path: Path) -> None:
        """Writes the page."""
        path.write_text("\n".join(self._parts))
