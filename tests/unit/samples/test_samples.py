"""The samples are DiffusionServices that nothing refuses, and say what they are for."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from gesso.api import load_service

ROOT = Path(__file__).parents[3]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
CRD = ROOT / "crds" / "gesso.dev_diffusionservices.yaml"


@pytest.fixture(scope="module")
def schema():
    """The CRD's schema, with unknown fields refused; its exclusive bounds are as in draft 4."""
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    return strict(version["schema"]["openAPIV3Schema"])


def strict(node):
    if isinstance(node, list):
        return [strict(n) for n in node]
    if not isinstance(node, dict):
        return node
    closed = "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields")
    made = {key: strict(value) for key, value in node.items()}
    return {"additionalProperties": False} | made if closed and made.get("type") else made


def document(path):
    found = yaml.safe_load(path.read_text())
    # metadata is the API server's own.
    return found | {"metadata": {}}


def test_there_are_samples_for_each_use():
    assert {p.stem for p in SAMPLES} >= {
        "tiny",
        "tiny-family",
        "sdxl-8-gpus",
        "two-gpu-classes",
        "recommend",
    }


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_a_sample_is_accepted(path, schema):
    assert load_service(path).name
    jsonschema.Draft4Validator(schema).validate(document(path))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_a_sample_with_a_field_too_many_is_refused(path, schema):
    bad = document(path)
    bad["spec"]["workers"]["gpus"] = 8
    with pytest.raises(jsonschema.ValidationError, match="gpus"):
        jsonschema.Draft4Validator(schema).validate(bad)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_a_sample_says_what_it_is_for(path):
    assert path.read_text().startswith("# ")


def test_names_do_not_collide():
    names = [load_service(p).name for p in SAMPLES]
    assert len(set(names)) == len(names)


def test_recommend_acts_on_nothing():
    spec = load_service(ROOT / "manifests" / "samples" / "recommend.yaml").spec
    assert spec.scheduling.mode == "Recommend"
    assert not spec.workers.elastic
