"""Reads a DiffusionService from YAML; each fault is one line: path, value, what is allowed."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gesso.api.base import DNS_LABEL, KIND, PATTERNS
from gesso.api.service import DiffusionService
from gesso.yaml_input import Loader, documents_of

LARGEST_FILE_BYTES = 1 << 20
_LONGEST_VALUE = 80
_METADATA = ("name", "namespace", "labels", "annotations", "generation")

_TYPES = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "a string",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "datetime_type": "a time",
}


@dataclass(frozen=True)
class Fault:
    """One thing wrong: the path of the field (empty: the file itself) and what is wrong there."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class SpecError(ValueError):
    """A DiffusionService that cannot be accepted; `str` gives one line for each fault."""

    def __init__(self, faults: tuple[Fault, ...], origin: str = "") -> None:
        """`origin` is the file that the faults are in; empty: not from a file."""
        self.faults = faults
        self.origin = origin
        prefix = f"{origin}: " if origin else ""
        super().__init__("\n".join(f"{prefix}{fault}" for fault in faults))


def load_service(path: str | Path) -> DiffusionService:
    """Reads one DiffusionService from a YAML file. Raises SpecError with all faults found."""
    file = Path(path)
    origin = str(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _whole(origin, "no such file") from None
    except IsADirectoryError:
        raise _whole(origin, "is a directory: a YAML file is needed") from None
    except OSError as error:
        raise _whole(origin, f"cannot be read: {error.strerror or error}") from None
    if len(raw) > LARGEST_FILE_BYTES:
        raise _whole(origin, f"is larger than {LARGEST_FILE_BYTES} bytes: not a {KIND}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _whole(origin, f"is not UTF-8 text (byte {error.start})") from None
    return parse_service(text, origin)


def parse_service(text: str, origin: str = "") -> DiffusionService:
    """Reads one DiffusionService from YAML text. Raises SpecError with all faults found."""
    try:
        documents = [d for d in documents_of(text, _UniqueKeyLoader) if d is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(p for p in (error.context, error.problem) if p)
        raise _whole(origin, f"{where}not YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise _whole(origin, f"not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise _whole(origin, f"is nested too deep: not a {KIND}") from None
    if len(documents) != 1:
        raise _whole(origin, f"holds {len(documents)} YAML documents: exactly one {KIND} is needed")
    document = documents[0]
    if not isinstance(document, dict):
        raise _whole(origin, f"holds {_show(document)}: a mapping with kind: {KIND} is needed")
    return _validated(document, origin)


def service_of(body: Mapping[str, Any]) -> DiffusionService:
    """A DiffusionService as the API server gives it: its own metadata and the status are left aside.

    Raises SpecError with all faults found: an object may be older than the rules that it would be refused by.
    """
    meta = body.get("metadata") or {}
    kept = {k: meta[k] for k in _METADATA if k in meta}
    document = {k: body[k] for k in ("apiVersion", "kind", "spec") if k in body}
    return _validated({**document, "metadata": kept}, "")


def _validated(document: Mapping[str, Any], origin: str) -> DiffusionService:
    missing = [Fault(f, "missing: required") for f in ("apiVersion", "kind") if f not in document]
    try:
        # By way of JSON, so that types are checked as the Kubernetes API server checks them.
        encoded = json.dumps(document, default=str)
        service = DiffusionService.model_validate_json(encoded, strict=True, by_name=False)
    except ValidationError as error:
        faults = tuple(_fault(e) for e in _first_causes(error.errors(include_url=False)))
        raise SpecError((*missing, *faults), origin) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise _whole(origin, f"cannot be read as a {KIND}: {error}") from None
    if missing:
        raise SpecError(tuple(missing), origin)
    return service


class _UniqueKeyLoader(Loader):
    """Loader that refuses a key given twice, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _first_causes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leaves out a list found "too short" only because pydantic does not count its faulty items."""
    return [
        e
        for e in errors
        if e["type"] != "too_short"
        or not any(
            len(o["loc"]) > len(e["loc"]) and o["loc"][: len(e["loc"])] == e["loc"] for o in errors
        )
    ]


def _whole(origin: str, problem: str) -> SpecError:
    return SpecError((Fault("", problem),), origin)


def _fault(error: ErrorDetails) -> Fault:
    loc = error["loc"]
    kind = error["type"]
    path = _path(loc)
    if kind == "missing":
        return Fault(path, "missing: required")
    if kind == "extra_forbidden":
        return Fault(path, f"unknown field: {_nearest(loc)}")
    return Fault(path, f"{_show(error['input'])} is not allowed: {_allowed(error)}")


def _path(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _allowed(error: ErrorDetails) -> str:
    """What is allowed, in words, from pydantic's error type and context."""
    kind = error["type"]
    ctx: Mapping[str, Any] = error.get("ctx", {})
    by_kind = {
        "greater_than": f"above {_plain(ctx.get('gt'))}",
        "greater_than_equal": f"at least {_plain(ctx.get('ge'))}",
        "less_than": f"below {_plain(ctx.get('lt'))}",
        "less_than_equal": f"at most {_plain(ctx.get('le'))}",
        "multiple_of": f"a multiple of {ctx.get('multiple_of')}",
        "too_short": f"at least {ctx.get('min_length')} of them",
        "too_long": f"at most {ctx.get('max_length')} of them",
        "string_too_short": "not empty",
        "string_too_long": f"at most {ctx.get('max_length')} characters",
        "string_pattern_mismatch": PATTERNS.get(str(ctx.get("pattern")), PATTERNS[DNS_LABEL]),
        "not_allowed": str(ctx.get("allowed")),
    }
    if kind in by_kind:
        return by_kind[kind]
    if kind == "literal_error":
        allowed = str(ctx.get("expected")).replace("'", "").replace(" or ", ", ")
        # YAML 1.1 reads a bare Off as false, here as in kubectl.
        hint = " (in quotes: YAML reads a bare Off as false)" if error["input"] is False else ""
        return f"{'one of ' if ',' in allowed else ''}{allowed}{hint}"
    return _TYPES.get(kind, error["msg"])


def _plain(bound: object) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _show(value: object) -> str:
    """A value as the user wrote it, shortened."""
    text = json.dumps(value, default=str) if not isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _nearest(loc: tuple[int | str, ...]) -> str:
    """The known field that an unknown one at `loc` most likely means."""
    known = _fields_at(loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    if not close:
        lower = {name.lower(): name for name in known}
        close = [
            lower[m] for m in difflib.get_close_matches(str(loc[-1]).lower(), list(lower), 1, 0.5)
        ]
    return f"did you mean {close[0]}?" if close else f"the fields are {', '.join(known)}"


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """Field names on the wire of the model at `loc`."""
    model: type[BaseModel] = DiffusionService
    for part in loc:
        if isinstance(part, int):
            continue
        field = next(
            (f for n, f in model.model_fields.items() if part in (f.alias, n)),
            None,
        )
        inner = _model_of(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_of(annotation: object) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        for inner in get_args(annotation):
            found = _model_of(inner)
            if found is not None:
                return found
    return None
