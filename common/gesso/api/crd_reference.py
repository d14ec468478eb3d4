"""The reference of DiffusionService for people, made from its CRD: `python -m gesso.api.crd_reference`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from gesso.api.crd import COLUMNS, crd
from gesso.api.rules import RULES
from gesso.api.status import CONDITIONS, READY_PARTS, ConditionType

Schema = Mapping[str, Any]
_BOUNDS = (
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minItems", "items at least"),
    ("maxItems", "items at most"),
    ("multipleOf", "a multiple of"),
    ("maxLength", "characters at most"),
)


def reference() -> str:
    """The page in Markdown."""
    version = crd()["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        "# DiffusionService",
        "",
        "Made by `make crds`; `kubectl explain dsvc.spec --recursive` tells the same on the command line.",
        "",
        f"`apiVersion: gesso.dev/{version['name']}`, `kind: DiffusionService`, short `dsvc`.",
        "",
        schema["description"],
        "",
        "## Columns of `kubectl get dsvc`",
        "",
        *(f"- **{name.upper()}**: {says}" for name, _, _, says in COLUMNS),
        "",
        "## Conditions",
        "",
        "Each is `True`, `False` or `Unknown`, with a reason for machines, a sentence for people, and the "
        "generation of the spec that it is about.",
        "",
        "| condition | part of `Ready` | what it tells when `True` |",
        "|---|---|---|",
        *(
            f"| `{kind}` | {'yes' if kind in READY_PARTS else ''} | {CONDITIONS[kind]} |"
            for kind in get_args(ConditionType)
        ),
        "",
        "## What a spec must hold across its fields",
        "",
        *(f"- `{rule.path}`: {rule.sentence}." for rule in RULES),
        "",
    ]
    for name in ("spec", "status"):
        lines += _tables(name, schema["properties"][name])
    return "\n".join(lines)


def _tables(path: str, schema: Schema) -> Iterator[str]:
    """A table for an object, then one for each object in it."""
    inside = []
    yield from (f"## `{path}`", "", _text(schema), "", "| field | type | default | meaning |")
    yield "|---|---|---|---|"
    required = schema.get("required", ())
    for name, child in schema["properties"].items():
        nested = child.get("items", child)
        if "properties" in nested:
            inside.append((f"{path}.{name}" + ("[]" if "items" in child else ""), nested))
        default = "required" if name in required else _default(child)
        yield f"| `{name}` | {_type(child)} | {default} | {_text(child)}{_allowed(child)} |"
    yield ""
    for below, nested in inside:
        yield from _tables(below, nested)


def _text(schema: Schema) -> str:
    return str(schema.get("description", "")).replace("|", "\\|")


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def _default(schema: Schema) -> str:
    if schema.get("default", {}) == {}:
        return ""
    return f"`{json.dumps(schema['default'])}`"


def _allowed(schema: Schema) -> str:
    if "enum" in schema and len(schema["enum"]) > 1:
        return " One of " + ", ".join(f"`{v}`" for v in schema["enum"]) + "."
    told = []
    for key, words in _BOUNDS:
        if key in schema:
            strict = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}.get(key, "")
            words = (
                {"at least": "above", "at most": "below"}[words] if schema.get(strict) else words
            )
            told.append(f"{words} {schema[key]:g}")
    return f" ({', '.join(told)})" if told else ""


def main() -> int:
    """Prints the page."""
    sys.stdout.write(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
