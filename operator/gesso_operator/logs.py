"""Structured log lines: one JSON object a line on stderr, with time, level, part and event first."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TextIO


class Log:
    """Writes lines for one part of the program; a field with an empty value is left out."""

    def __init__(self, part: str, stream: TextIO | None = None) -> None:
        """`part` names the writer; `stream` is stderr when None."""
        self._part = part
        self._stream = stream

    def info(self, event: str, **fields: object) -> None:
        """Something that is as it should be."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something that will be tried again."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something that needs a person."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"at": at, "level": level, "part": self._part, "event": event}
        line.update((k, v) for k, v in fields.items() if v not in ("", None))
        stream = self._stream or sys.stderr
        # A reader that has gone away must not stop the one who writes.
        try:
            stream.write(json.dumps(line, default=str) + "\n")
            stream.flush()
        except (BrokenPipeError, ValueError):
            return
