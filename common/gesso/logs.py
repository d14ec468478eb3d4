"""Log lines of every part, in one form: time, level, part, message, then what it is about.

A line about a request has its id, and that of its trace if it is recorded. Never a prompt: `prompt_hash` stands
for it, and where the text of an error quotes the prompt of the request at hand, the hash takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal, get_args

Form = Literal["json", "text"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: Fields with text that is not our own.
_FOREIGN = ("cause", "detail", "exception")


@dataclass(frozen=True, slots=True)
class Subject:
    """The request that lines are about: its id, its trace (empty: not recorded), texts that are kept out."""

    request: str = ""
    trace: str = ""
    hidden: tuple[str, ...] = ()


NOBODY: Final = Subject()
_subject: ContextVar[Subject] = ContextVar("log_subject", default=NOBODY)


def subject() -> Subject:
    """What lines are about here."""
    return _subject.get()


def begin(about: Subject) -> None:
    """Has all lines of this task, and of those it starts from now on, be about a request."""
    _subject.set(about)


@contextlib.contextmanager
def about(what: Subject) -> Iterator[None]:
    """Has the lines of a block be about a request: for threads that serve one after the other."""
    token = _subject.set(what)
    try:
        yield
    finally:
        _subject.reset(token)


def prompt_hash(prompt: str) -> str:
    """Twelve hexadecimal digits that stand for a prompt in logs and traces."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:12]


class Formatter(logging.Formatter):
    """A record as one line; fields given as `extra` follow the message."""

    def __init__(self, part: str, form: Form, name: str = "") -> None:
        """`part` is router, worker and so on, `name` tells several of a kind apart."""
        super().__init__()
        self._form = form
        self._who = {"part": part, "name": name} if name else {"part": part}

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        at = subject()
        foreign = bool(record.args)
        message = record.getMessage()
        line: dict[str, object] = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            **self._who,
            "message": _without(at.hidden, message) if foreign else message,
        }
        if at.request:
            line["request"] = at.request
        if at.trace:
            line["trace"] = at.trace
        line["logger"] = record.name
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if at.hidden:
            for field in _FOREIGN:
                if field in line:
                    line[field] = _without(at.hidden, str(line[field]))
        return render(line, self._form)


def set_up(
    part: str,
    form: Form = "json",
    name: str = "",
    own: tuple[str, ...] = (),
    keep: logging.Filter | None = None,
) -> None:
    """Sends this process's log to stderr: of loggers below `own` all, of libraries from warnings on.

    `keep` says which lines may be left out.
    """
    logging.captureWarnings(True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(part, form, name))
    if keep is not None:
        handler.addFilter(keep)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for logger in ("gesso", *own):
        logging.getLogger(logger).setLevel(logging.INFO)


def render(line: Mapping[str, object], form: Form) -> str:
    """A line: JSON, or `time LEVEL part/name message key=value ...`."""
    if form == "json":
        return json.dumps(line, default=str)
    fields = dict(line)
    at, level = str(fields.pop("time")), str(fields.pop("level")).upper()
    part, name = fields.pop("part"), fields.pop("name", "")
    fields.pop("logger", None)
    message = _quoted_lines(str(fields.pop("message")))
    who = f"{part}/{name}" if name else str(part)
    told = (f"{key}={_value(value)}" for key, value in fields.items())
    return " ".join((at, level, who, message, *told))


def stamp(seconds: float) -> str:
    """A time since 1970 as ISO 8601, to the millisecond, in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _without(hidden: tuple[str, ...], text: str) -> str:
    for prompt in hidden:
        # As it is, and as an error's repr quotes it.
        for quoted in (prompt, repr(prompt)[1:-1], json.dumps(prompt)[1:-1]):
            if quoted and quoted in text:
                text = text.replace(quoted, f"<prompt {prompt_hash(prompt)}>")
    return text


def _quoted_lines(text: str) -> str:
    """A message cannot make a second line."""
    return json.dumps(text) if "\n" in text or "\r" in text else text


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if text and not set(text) & set(' "=\n\r') else json.dumps(text)
