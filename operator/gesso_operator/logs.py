"""Log lines of the operator and of the supervisor on one machine; see `gesso.logs` for their form."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from gesso.logs import Form, render, stamp


class Log:
    """Writes lines for one part of the program; a field with an empty value is left out."""

    def __init__(self, part: str, stream: TextIO | None = None, form: Form = "json") -> None:
        """`part` names the writer; `stream` is stderr when None."""
        self._part = part
        self._stream = stream
        self.form: Form = form

    def info(self, message: str, **fields: object) -> None:
        """Something that is as it should be."""
        self._write("info", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Something that will be tried again."""
        self._write("warning", message, fields)

    def error(self, message: str, **fields: object) -> None:
        """Something that needs a person."""
        self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: dict[str, object]) -> None:
        line: dict[str, object] = {
            "time": stamp(time.time()),
            "level": level,
            "part": self._part,
            "message": message,
        }
        line.update((k, v) for k, v in fields.items() if v not in ("", None))
        stream = self._stream or sys.stderr
        # A reader that has gone away must not stop the one who writes.
        try:
            stream.write(render(line, self.form) + "\n")
            stream.flush()
        except (BrokenPipeError, ValueError):
            return
