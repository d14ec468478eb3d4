"""Writes the typed values out: as commented YAML, as JSON schema, as a table."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from values_model import Values

MADE = "Made by `make chart` from charts/values_model.py; not to be edited."
_WIDTH = 110


def schema() -> str:
    """`values.schema.json`. Draft 7, which every Helm 3 and 4 reads."""
    made = Values.model_json_schema(by_alias=True)
    made = {"$schema": "http://json-schema.org/draft-07/schema#", "$comment": MADE} | made
    return json.dumps(_without_titles(made), indent=2) + "\n"


def values_yaml() -> str:
    """`values.yaml`: every default, below its description."""
    usage = (
        "helm upgrade --install gesso charts/gesso -n gesso-system --create-namespace -f mine.yaml"
    )
    head = f"# {MADE}\n# {usage}\n"
    return head + "".join(f"\n{block}" for block in _blocks(Values(), ""))


def reference() -> str:
    """A table of all values, in Markdown."""
    rows = "".join(
        f"| `{path}` | {_inline(default)} | {description} |\n"
        for path, default, description in _rows(Values(), "")
    )
    return (
        "# Values of the chart\n\n"
        f"<!-- {MADE} -->\n\n"
        "What `helm install` takes; unknown values are refused. How they are used: "
        "[install.md](../install.md).\n\n"
        f"| value | default | meaning |\n|---|---|---|\n{rows}"
    )


def _fields(model: BaseModel) -> Iterator[tuple[str, Any, FieldInfo]]:
    for name, field in type(model).model_fields.items():
        yield str(field.alias or name), getattr(model, name), field


def _blocks(model: BaseModel, indent: str) -> Iterator[str]:
    for name, value, field in _fields(model):
        comment = textwrap.fill(
            str(field.description),
            _WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
            break_on_hyphens=False,
        )
        if isinstance(value, BaseModel):
            yield f"{comment}\n{indent}{name}:\n" + "".join(_blocks(value, indent + "  "))
        else:
            dumped = yaml.safe_dump({name: value}, sort_keys=False, width=1000)
            yield f"{comment}\n" + textwrap.indent(dumped, indent)


def _rows(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any, str]]:
    for name, value, field in _fields(model):
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, str(field.description)


def _inline(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _without_titles(node: Any) -> Any:
    """Without the titles that pydantic makes up from names."""
    if isinstance(node, dict):
        return {
            k: _without_titles(v)
            for k, v in node.items()
            if not (k == "title" and isinstance(v, str))
        }
    return [_without_titles(v) for v in node] if isinstance(node, list) else node
