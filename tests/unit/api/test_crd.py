"""The CRD: what the API server asks of its schema, that it is current, and the specs that it is a rule for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from cluster.bad_fleets import BAD_FLEETS
from cluster.bad_models import BAD_MODELS
from cluster.spec_cases import GOOD, changed

from gesso.api import ConditionType, SpecError, parse_service, service_of
from gesso.api.base import PATTERNS
from gesso.api.crd import crd, main
from gesso.api.crd_reference import reference
from gesso.api.rules import RULES
from gesso.api.status import CONDITIONS

ROOT = Path(__file__).parents[3]
Schema = dict[str, Any]


@pytest.fixture(scope="module")
def made() -> Schema:
    return crd()


@pytest.fixture(scope="module")
def root(made: Schema) -> Schema:
    (version,) = made["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Each schema in it, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def test_files_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert (
        ROOT / "crds" / "gesso.dev_diffusionservices.yaml"
    ).read_text() == capsys.readouterr().out
    assert (ROOT / "docs" / "reference" / "diffusionservice.md").read_text() == reference()


def test_names_columns_and_subresources(made: Schema) -> None:
    spec = made["spec"]
    assert spec["names"]["shortNames"] == ["dsvc"]
    assert set(spec["names"]["categories"]) == {"gesso", "all"}
    (version,) = spec["versions"]
    assert [c["name"].upper() for c in version["additionalPrinterColumns"]] == [
        *("READY", "REASON", "WORKERS", "MIX", "SLO", "QUALITY", "AGE")
    ]
    assert version["subresources"]["status"] == {}
    assert version["subresources"]["scale"]["specReplicasPath"] == ".spec.workers.replicas"


def test_columns_and_scale_point_at_fields_that_there_are(made: Schema, root: Schema) -> None:
    (version,) = made["spec"]["versions"]
    known = {path for path, _ in nodes(root)} | {"metadata.creationTimestamp"}
    paths = [c["jsonPath"] for c in version["additionalPrinterColumns"]]
    paths += version["subresources"]["scale"].values()
    assert len(paths) == 10
    for path in paths:
        plain = path.replace('[?(@.type=="Ready")]', "[]").removeprefix(".")
        assert plain in known, path


def test_every_field_has_type_and_description(root: Schema) -> None:
    found = list(nodes(root))
    assert len(found) > 100
    for path, node in found:
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        if path.rpartition(".")[2].isalnum() and path != "metadata":
            assert node["description"].rstrip().endswith("."), path


def test_schema_is_structural(root: Schema) -> None:
    """What the API server refuses, or takes for something else."""
    for path, node in nodes(root):
        assert not node.keys() & {
            "$ref",
            "$defs",
            "oneOf",
            "allOf",
            "const",
            "title",
            "nullable",
        }, path
        assert ("anyOf" in node) == bool(node.get("x-kubernetes-int-or-string")), path
        for flag in ("exclusiveMinimum", "exclusiveMaximum"):
            assert node.get(flag, True) is True, path
        if node.get("type") == "array":
            assert node["x-kubernetes-list-type"] in ("atomic", "map", "set"), path
        if node.get("type") == "object" and path != "metadata":
            kinds = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
            assert len(node.keys() & kinds) == 1, path


def test_conditions_merge_by_type(root: Schema) -> None:
    conditions = root["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_what_rules_look_at_is_bounded(root: Schema) -> None:
    """Else their cost is not: lists and maps below each rule, but those inside pods' templates."""
    for path, node in nodes(root):
        if path.startswith("spec") and node.get("type") == "array":
            assert "maxItems" in node, path
        if path.startswith("spec") and "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_each_rule_stands_in_the_schema_with_a_sentence(root: Schema) -> None:
    at = dict(nodes(root))
    for rule in RULES:
        there = at[rule.at]["x-kubernetes-validations"]
        assert rule.as_schema() in there, rule
        assert "%" not in rule.sentence
    for path, node in nodes(root):
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"], path
            assert "is not allowed: " in rule["messageExpression"], path
            assert path.startswith("spec") or not path, path


def test_no_pattern_is_left_to_be_told_as_it_is(root: Schema) -> None:
    for path, node in nodes(root["properties"]["spec"], "spec"):
        assert node.get("pattern") not in PATTERNS, path
        assert "pattern" not in node, path


def test_every_condition_is_explained() -> None:
    assert set(CONDITIONS) == set(get_args(ConditionType))
    for kind, meaning in CONDITIONS.items():
        assert f"`{kind}`" in reference()
        assert meaning in reference()


#: Turned on by being there.
ABSENT_UNLESS_GIVEN = {"spec.security.tls", "spec.security.keys"}


def test_defaults_hold_at_every_level(root: Schema) -> None:
    """An object of which nothing is required is there by default, so that its own defaults are."""
    for path, node in nodes(root["properties"]["spec"], "spec"):
        for name, child in node.get("properties", {}).items():
            inner = child.get("properties", {}).values()
            if f"{path}.{name}" in ABSENT_UNLESS_GIVEN:
                assert "default" not in child
            elif any("default" in i for i in inner) and not child.get("required"):
                assert child.get("default") == {}, f"{path}.{name}"


def unquoted(text: str) -> str:
    """The typed model tells strings in quotes, the API server without."""
    return text.replace("'", "")


@pytest.mark.parametrize("bad", [*BAD_MODELS, *BAD_FLEETS], ids=lambda b: b.name)
def test_typed_model_refuses(bad: Any) -> None:
    with pytest.raises(SpecError) as caught:
        parse_service(json.dumps(bad.document))
    assert unquoted(bad.typed) in unquoted(str(caught.value))


@pytest.mark.parametrize("changes", GOOD.values(), ids=GOOD.keys())
def test_typed_model_accepts(changes: dict[str, Any]) -> None:
    document = changed(changes)
    assert parse_service(json.dumps(document)) == service_of(document)


def test_sentences_name_what_is_wrong_once() -> None:
    names = [bad.name for bad in (*BAD_MODELS, *BAD_FLEETS)]
    assert len(set(names)) == len(names)


def test_an_object_of_the_api_server_is_read() -> None:
    body = changed({}) | {
        "metadata": {
            "name": "small",
            "namespace": "art",
            "uid": "0a1b",
            "resourceVersion": "12",
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "kubectl"}],
            "ownerReferences": [{"name": "x"}],
            "finalizers": ["example.com/f"],
            "labels": {"team": "art"},
        },
        "status": {"conditions": [{"type": "OfTheFuture"}], "unknown": 1},
    }
    service = service_of(body)
    assert (service.name, service.metadata.namespace) == ("small", "art")
    assert service.metadata.generation == 3
    assert service.metadata.labels == {"team": "art"}
    assert service.status is None
    body["spec"] = {**body["spec"], "slo": {}}
    with pytest.raises(SpecError, match=r"spec\.slo\.latencySeconds: missing: required"):
        service_of(body)


def test_crd_is_written_without_anchors() -> None:
    text = (ROOT / "crds" / "gesso.dev_diffusionservices.yaml").read_text()
    assert yaml.safe_load(text) == json.loads(json.dumps(crd()))
    assert "&id" not in text
