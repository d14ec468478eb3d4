"""From pydantic's JSON schema to the structural OpenAPI schema that Kubernetes asks of a CRD; pure.

Structural: no references, no unions, no nulls; a field that may be absent is one that is not required. See
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from gesso.api.base import PATTERNS
from gesso.api.rules import RULES, pattern_rule

Schema = dict[str, Any]
_KEPT = (
    "description",
    "enum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minItems",
    "minLength",
    "multipleOf",
    "pattern",
    "x-kubernetes-int-or-string",
)


def structural(model: type[BaseModel], path: str) -> Schema:
    """The schema of a model; `path` is where it stands in the object, for the rules of `rules`."""
    raw = model.model_json_schema(by_alias=True)
    return _node(raw, raw.get("$defs", {}), path)


def _node(raw: Mapping[str, Any], defs: Mapping[str, Any], path: str) -> Schema:
    raw = _resolved(raw, defs)
    found: Schema = {k: raw[k] for k in _KEPT if k in raw}
    if "const" in raw:
        found["enum"] = [raw["const"]]
    if "description" in found:
        found["description"] = " ".join(str(found["description"]).split())
    if found.get("x-kubernetes-int-or-string"):
        # The length is the pattern's business: Kubernetes knows no bound of a number's.
        found.pop("maxLength", None)
        found["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    else:
        found["type"] = raw.get("type") or _type_of(found.get("enum", ()))
    _bounds(raw, found)
    kind = found.get("type")
    if kind == "integer":
        found["format"] = "int64"
    elif kind == "array":
        found["items"] = _node(raw.get("items", {}), defs, f"{path}[]")
        found["x-kubernetes-list-type"] = "atomic"
    elif kind == "object":
        _object(raw, found, defs, path)
    rules = [r for r in RULES if r.at == path]
    if found.get("pattern") in PATTERNS and path.startswith("spec"):
        # A pattern tells nobody what is wrong; a rule does.
        rules.append(pattern_rule(path, found.pop("pattern")))
    if rules:
        found["x-kubernetes-validations"] = [r.as_schema() for r in rules]
    return found


def _resolved(raw: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without a reference and without the null of an optional field; what stands beside them wins."""
    while True:
        if "$ref" in raw:
            inner = defs[raw["$ref"].rpartition("/")[2]]
        elif "anyOf" in raw:
            inner = next(a for a in raw["anyOf"] if a.get("type") != "null")
        else:
            return raw
        raw = {**inner, **{k: v for k, v in raw.items() if k not in ("$ref", "anyOf")}}


def _type_of(values: Any) -> str:
    kinds = {type(v) for v in values}
    return {str: "string", int: "integer", bool: "boolean"}.get(kinds.pop(), "string")


def _bounds(raw: Mapping[str, Any], found: Schema) -> None:
    """OpenAPI 3.0 writes an exclusive bound as a bound and a flag."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in raw:
            found[bound], found[exclusive] = raw[exclusive], True
        elif bound in raw:
            found[bound] = raw[bound]


def _object(raw: Mapping[str, Any], found: Schema, defs: Mapping[str, Any], path: str) -> None:
    if "properties" not in raw:
        inside = raw.get("additionalProperties")
        if isinstance(inside, Mapping):
            found["additionalProperties"] = _node(inside, defs, f"{path}{{}}")
        else:
            found["x-kubernetes-preserve-unknown-fields"] = True
        return
    properties = {}
    for name, child in raw["properties"].items():
        schema = _node(child, defs, f"{path}.{name}")
        # What is null unless it is given stays away: an object of defaults in its place would turn it on.
        absent = "default" in child and child["default"] is None
        default = None if absent else _default(child.get("default"), schema)
        if default is not None:
            schema["default"] = default
        properties[name] = schema
    found["properties"] = properties
    if raw.get("required"):
        found["required"] = sorted(raw["required"])


def _default(value: Any, schema: Schema) -> Any:
    """What is to be filled in: nothing for what is empty, `{}` for an object whose fields have defaults."""
    if schema.get("type") == "object":
        inner = schema.get("properties", {}).values()
        return {} if any("default" in p for p in inner) and not schema.get("required") else None
    if schema.get("type") == "array":
        if not value:
            return None
        return [_told(item) for item in value]
    return None if value in (None, "") else value


def _told(value: Any) -> Any:
    """Without what is null."""
    if not isinstance(value, Mapping):
        return value
    return {k: v for k, v in value.items() if v is not None}
