"""The values: bad ones are refused by name, what is derived of them is current, and staleness is noticed."""

import json
import subprocess
import sys

import make_chart
import pytest
import yaml
from chart_kit import CHART, ROOT, template
from find_helm import find_helm
from values_model import Values

#: Values that are refused, and what the message must hold.
BAD = [
    ({"oprator": {}}, ("oprator",)),
    ({"operator": {"replicas": 3}}, ("operator", "replicas")),
    ({"operator": {"command": "python"}}, ("operator", "command", "array")),
    ({"operator": {"terminationGracePeriodSeconds": 0}}, ("terminationGracePeriodSeconds", "1")),
    ({"images": {"pullPolicy": "Sometimes"}}, ("images", "pullPolicy", "IfNotPresent")),
    ({"images": {"registry": ""}}, ("images", "registry")),
    ({"watchNamespaces": "images"}, ("watchNamespaces", "array")),
    ({"watchNamespaces": ["Images"]}, ("watchNamespaces", "Images", "pattern")),
    ({"crds": {"install": "yes"}}, ("crds", "install", "boolean")),
    ({"podDefaults": {"workers": {}}}, ("podDefaults", "workers")),
    ({"podDefaults": {"worker": {"containers": []}}}, ("podDefaults", "worker", "containers")),
    ({"metrics": {"serviceMonitor": {"interval": "soon"}}}, ("interval", "soon")),
    ({"networkPolicy": {"apiServerPorts": [70000]}}, ("apiServerPorts", "65")),
    ({"leaseName": "My Lease"}, ("leaseName", "pattern")),
]


@pytest.mark.parametrize(("values", "parts"), BAD, ids=[json.dumps(v) for v, _ in BAD])
def test_a_bad_value_is_refused_by_name(each_helm, values, parts):
    done = template(each_helm, values)
    assert done.returncode != 0
    assert done.stdout == ""
    for part in parts:
        assert part in done.stderr


def test_values_yaml_holds_the_defaults():
    assert Values.model_validate(yaml.safe_load((CHART / "values.yaml").read_text())) == Values()


def test_every_value_is_described():
    schema = json.loads((CHART / "values.schema.json").read_text())
    parts = {"": schema} | schema["$defs"]

    def undescribed(part, path):
        for name, field in part["properties"].items():
            referred = parts.get(field.get("$ref", "").rpartition("/")[2], {})
            if not (field.get("description") or referred.get("description")):
                yield f"{path}.{name}"

    assert [u for name, part in parts.items() for u in undescribed(part, name)] == []
    assert all(part.get("additionalProperties") is False for part in parts.values())


def test_what_is_derived_is_current():
    files = make_chart.derived()
    assert make_chart.stale(files) == []
    assert make_chart.left_over(files) == []


def test_what_is_stale_is_noticed():
    files = make_chart.derived()
    path = next(iter(files))
    assert make_chart.stale(files | {path: files[path] + "#"}) == [path]
    gone = CHART / "files" / "rules" / "gesso.yaml"
    assert make_chart.left_over({p: t for p, t in files.items() if p != gone}) == [gone]


def test_the_plain_manifest_is_current(helm):
    done = subprocess.run(
        [sys.executable, ROOT / "charts" / "make_chart.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not looked at" not in done.stdout


def test_without_helm_the_check_says_so_in_plain_words(monkeypatch, capsys):
    monkeypatch.setattr(make_chart, "find_helm", lambda: None)
    assert make_chart.build(check=True) == 0
    assert "not looked at, for there is no helm" in capsys.readouterr().out


def test_which_helm_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GESSO_CACHE", str(tmp_path))
    monkeypatch.delenv("HELM", raising=False)
    assert find_helm() is None
    built = tmp_path / "kube" / "helm4-v4.0.0" / "helm4"
    built.parent.mkdir(parents=True)
    built.touch()
    assert find_helm() == built
    monkeypatch.setenv("HELM", "/somewhere/helm")
    assert str(find_helm()) == "/somewhere/helm"


def test_a_crd_of_another_shape_is_not_wrapped():
    with pytest.raises(ValueError, match="metadata is not as expected"):
        make_chart.crd_template("kind: CustomResourceDefinition\n")


def test_the_plain_manifest_is_free_of_helm():
    text = (ROOT / "manifests" / "install.yaml").read_text()
    objects = [o for o in yaml.safe_load_all(text) if o]
    assert objects[0]["kind"] == "Namespace"
    assert {o["kind"] for o in objects} >= {"CustomResourceDefinition", "Deployment", "ClusterRole"}
    assert "helm" not in text.lower()
