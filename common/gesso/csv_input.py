"""Reads CSV files that a user brings; a fault names file, line, field, value and what is allowed."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: More than this, unpacked, is no input of a simulation.
MOST_BYTES = 1 << 30
_LONGEST_VALUE = 60
#: Python's float() takes more, such as `1_0` and `infinity`.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class _Reader(Protocol):
    """What `csv.reader` returns; its own type has no public name."""

    @property
    def line_num(self) -> int: ...

    def __next__(self) -> list[str]: ...


class InputError(ValueError):
    """A file that cannot be accepted. `str` is one line: file, line, field, value, what is allowed."""

    def __init__(self, file: Path | str, problem: str, line: int | None = None) -> None:
        """`line` counts from 1, the header's; None: the file as a whole."""
        self.file = str(file)
        self.line = line
        self.problem = problem
        where = f"{file}: line {line}" if line is not None else f"{file}"
        super().__init__(f"{where}: {problem}")


@dataclass(frozen=True)
class Row:
    """One line of a CSV file, and how to read its cells."""

    file: Path
    line: int
    cells: dict[str, str]

    def refuse(self, field: str, allowed: str) -> InputError:
        """The error to raise for a cell."""
        value = self.cells[field]
        shown = value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
        text = shown if shown.strip() else "empty"
        return InputError(self.file, f"{field}: {text} is not allowed: {allowed}", self.line)

    def text(self, field: str, allowed: str) -> str:
        """A cell that is not blank."""
        value = self.cells[field]
        if not value.strip():
            raise self.refuse(field, allowed)
        return value

    def number(self, field: str, least: float, most: float, allowed: str) -> float:
        """A finite number, `least` to `most`."""
        value = self.cells[field].strip()
        number = float(value) if _NUMBER.fullmatch(value) else math.nan
        if not least <= number <= most or not math.isfinite(number):
            raise self.refuse(field, allowed)
        return number

    def whole(self, field: str, least: int, most: int, allowed: str) -> int:
        """A whole number, `least` to `most`; `12.0` counts as one."""
        number = self.number(field, least, most, allowed)
        if number != int(number):
            raise self.refuse(field, allowed)
        return int(number)


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose header is accepted; `rows` is read once, in order."""

    file: Path
    header: tuple[str, ...]
    rows: Iterator[Row]


def open_csv(
    path: Path | str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    accepts: Callable[[str], bool] = lambda _: False,
    allowed: str = "",
) -> CsvFile:
    """Opens a CSV file with a header line; columns may stand in any order.

    Columns are `required`, `optional`, or such as `accepts` takes; `allowed` describes the latter. Raises
    InputError on a file that cannot be read, is not UTF-8 or not CSV, and on missing, unknown or doubled
    columns; while the rows are read, on lines with too many or too few cells.
    """
    file = Path(path)
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        header = tuple(name.strip() for name in next(reader, []))
    except csv.Error as error:
        raise InputError(file, f"is not CSV: {error}", 1) from None
    columns = ",".join((*required, *(f"[{name}]" for name in optional)))
    columns += f" and {allowed}" if allowed else ""
    if not any(header):
        raise InputError(file, f"empty is not allowed: a header line {columns}, then rows")
    for name in header:
        if name not in required and name not in optional and not accepts(name):
            raise InputError(file, f"column: {name or 'empty'} is not allowed: {columns}", 1)
        if header.count(name) > 1:
            raise InputError(file, f"column: {name} twice is not allowed: each once", 1)
    for name in required:
        if name not in header:
            raise InputError(file, f"column: {name} is missing: needed are {columns}", 1)
    return CsvFile(file, header, _rows(file, header, reader))


def _rows(file: Path, header: tuple[str, ...], reader: _Reader) -> Iterator[Row]:
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(file, f"is not CSV: {error}", line) from None
        if not cells:
            continue
        if len(cells) != len(header):
            raise InputError(
                file,
                f"row: {len(cells)} cells are not allowed: {len(header)}, one for each column",
                line,
            )
        yield Row(file, line, dict(zip(header, cells, strict=True)))


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(raw)) as unpacked:
                raw = unpacked.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise InputError(file, "no such file") from None
    except IsADirectoryError:
        raise InputError(file, "is a directory: a CSV file is needed") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(file, f"is broken gzip: {error}") from None
    except OSError as error:
        raise InputError(file, f"cannot be read: {error.strerror or error}") from None
    if len(raw) > MOST_BYTES:
        raise InputError(file, f"is larger than {MOST_BYTES} bytes, unpacked")
    try:
        # Spreadsheets put a byte order mark first.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(file, f"is not UTF-8 text (byte {error.start})", line) from None
