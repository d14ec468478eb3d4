"""What the chart makes of its values: strictly valid for each Kubernetes, restricted, as asked for."""

import json
import subprocess

import kubernetes_validate
import pytest
import yaml
from chart_kit import (
    CHART,
    RELEASES,
    VALUE_SETS,
    of_kind,
    pod_specs,
    rendered,
    restricted_faults,
    template,
)

from gesso.api.base import GROUP
from gesso_operator.cluster import names


@pytest.fixture(scope="module", params=VALUE_SETS, ids=lambda name: name.replace(" ", "-"))
def objects(request, helm):
    return rendered(helm, VALUE_SETS[request.param])


def operator_of(objects):
    (deployment,) = of_kind(objects, "Deployment")
    return deployment["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=lambda v: "-".join(v) or "defaults")
def test_lint_is_strictly_clean(each_helm, values, tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    words = [each_helm, "lint", "--strict", "--kube-version", "1.36.0", CHART, "--values", path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_strictly_valid(objects, release):
    for o in objects:
        if not o["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(o, release, strict=True)


@pytest.mark.parametrize("release", [RELEASES[0], RELEASES[-1]])
def test_strictness_notices_an_unknown_field(helm, release):
    (deployment,) = of_kind(rendered(helm, {}), "Deployment")
    deployment["spec"]["template"]["spec"]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, release, strict=True)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_both_helms_make_the_same_of_it(helm, each_helm, name):
    assert rendered(each_helm, VALUE_SETS[name]) == rendered(helm, VALUE_SETS[name])


def test_kubernetes_1_28_is_refused(helm):
    done = template(helm, {}, kubernetes="1.28.0")
    assert done.returncode != 0
    assert "requires kubeVersion: >=1.29.0" in done.stderr


def test_pods_are_restricted(objects):
    specs = dict(pod_specs(objects))
    assert len(specs) == 2  # the operator, and the one of `helm test`
    assert {name: restricted_faults(spec) for name, spec in specs.items()} == {
        name: [] for name in specs
    }
    for spec in specs.values():
        assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in spec["containers"])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s.update(hostNetwork=True), "hostNetwork is set"),
        (lambda s: s["securityContext"].update(runAsUser=0), "operator may run as root"),
        (lambda s: s["securityContext"].pop("seccompProfile"), "operator has no seccomp profile"),
        (
            lambda s: s["containers"][0]["securityContext"].pop("capabilities"),
            "operator keeps capabilities",
        ),
        (
            lambda s: s["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
            "operator may escalate privileges",
        ),
        (
            lambda s: s["volumes"].append({"name": "root", "hostPath": {"path": "/"}}),
            "volume root is a hostPath",
        ),
    ],
)
def test_what_is_not_restricted_is_noticed(helm, change, fault):
    spec = operator_of(rendered(helm, {}))
    change(spec)
    assert restricted_faults(spec) == [fault]


def test_flags_are_those_of_the_operator(helm):
    container = operator_of(rendered(helm, {}))["containers"][0]
    assert "command" not in container
    assert container["args"] == [
        "--lease-namespace=gesso-system",
        "--lease-name=gesso-operator",
        "--router-image=ghcr.io/gesso/router:0.1.0",
        "--worker-image=ghcr.io/gesso/worker:0.1.0",
        "--http=0.0.0.0:8080",
    ]
    assert [e["name"] for e in container["env"]] == ["POD_NAME", "POD_NAMESPACE"]


def test_values_reach_the_operators_pod(helm):
    values = VALUE_SETS["everything"]
    spec = operator_of(rendered(helm, values))
    (container,) = spec["containers"]
    assert container["command"] == values["operator"]["command"]
    assert container["image"] == "mirror.example/gesso/operator:1.2.3"
    assert "--worker-image=mirror.example/gesso/worker:1.2.3" in container["args"]
    assert container["args"][-1] == "--verbose"
    assert spec["imagePullSecrets"] == [{"name": "mirror"}]
    assert spec["serviceAccountName"] == "gesso"
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[field] == values["operator"][field]
    assert {m["mountPath"] for m in container["volumeMounts"]} == {"/tmp", "/etc/gesso", "/etc/ca"}
    assert container["env"][-1] == values["operator"]["extraEnv"][0]


def test_pod_defaults_lie_where_the_operator_reads_them(helm):
    objects = rendered(helm, VALUE_SETS["everything"])
    (held,) = (o for o in of_kind(objects, "ConfigMap") if "pod-defaults.yaml" in o["data"])
    defaults = yaml.safe_load(held["data"]["pod-defaults.yaml"])
    assert defaults["worker"]["spec"]["runtimeClassName"] == "nvidia"
    spec = operator_of(objects)
    assert "--pod-defaults=/etc/gesso/pod-defaults.yaml" in spec["containers"][0]["args"]
    assert {"name": "pod-defaults", "configMap": {"name": held["metadata"]["name"]}} in spec[
        "volumes"
    ]


def test_other_pod_defaults_restart_the_operator(helm):
    def annotations(runtime):
        values = {"podDefaults": {"worker": {"spec": {"runtimeClassName": runtime}}}}
        (deployment,) = of_kind(rendered(helm, values), "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]

    assert annotations("nvidia") != annotations("gvisor")


def test_the_service_and_the_monitor_select_the_operator(helm):
    objects = rendered(helm, VALUE_SETS["everything"])
    (deployment,) = of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (service,) = of_kind(objects, "Service")
    (monitor,) = of_kind(objects, "ServiceMonitor")
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    (policy,) = of_kind(objects, "NetworkPolicy")
    for selector, chosen in (
        (service["spec"]["selector"], labels),
        (deployment["spec"]["selector"]["matchLabels"], labels),
        (budget["spec"]["selector"]["matchLabels"], labels),
        (policy["spec"]["podSelector"]["matchLabels"], labels),
        (monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]),
    ):
        assert selector.items() <= chosen.items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_the_operator_may_go_wherever_it_asks(helm):
    (policy,) = of_kind(rendered(helm, VALUE_SETS["everything"]), "NetworkPolicy")
    ports = {}
    for rule in policy["spec"]["egress"]:
        for to in rule.get("to", []):
            component = to["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            ports[component] = {p["port"] for p in rule["ports"]}
    assert {names.GRPC_PORT, names.HTTP_PORT, names.CONTROL_PORT} <= ports["router"]
    assert names.WORKER_PORT in ports["worker"]


def test_the_crd_is_kept_where_asked_for(helm):
    def crds(values):
        return of_kind(rendered(helm, values), "CustomResourceDefinition")

    (kept,) = crds({})
    (left,) = crds({"crds": {"keep": False}})
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert "annotations" not in left["metadata"]
    assert crds({"crds": {"install": False}}) == []


def test_the_crd_is_letter_by_letter_the_generated_one(helm):
    (held,) = of_kind(rendered(helm, {}), "CustomResourceDefinition")
    path = CHART.parents[1] / "crds" / f"{GROUP}_diffusionservices.yaml"
    assert held["spec"] == yaml.safe_load(path.read_text())["spec"]


@pytest.mark.parametrize("release", ["g", "gesso", "images-gesso-2", "x" * 53])
def test_names_fit_whatever_the_release_is_called(helm, release):
    names = [o["metadata"]["name"] for o in rendered(helm, {}, release)]
    assert max(map(len, names)) <= 63
    (deployment,) = of_kind(rendered(helm, {}, release), "Deployment")
    assert deployment["metadata"]["name"].endswith("-operator")


def test_dashboards_are_in_their_config_map(helm):
    objects = rendered(helm, VALUE_SETS["everything"])
    (held,) = (o for o in of_kind(objects, "ConfigMap") if o["metadata"]["name"].endswith("boards"))
    assert held["metadata"]["labels"]["grafana_dashboard"] == "1"
    sources = {p.name: json.loads(p.read_text()) for p in (CHART / "files/dashboards").iterdir()}
    assert sources
    assert {name: json.loads(text) for name, text in held["data"].items()} == sources


def test_rules_are_in_their_prometheus_rule(helm):
    (rule,) = of_kind(rendered(helm, VALUE_SETS["everything"]), "PrometheusRule")
    source = CHART.parents[1] / "manifests" / "rules" / "gesso.yaml"
    assert rule["spec"] == yaml.safe_load(source.read_text())
