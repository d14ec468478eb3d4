"""The manifests of a service's objects."""

from pathlib import Path

import pytest
import yaml

from gesso.api import load_service, parse_service
from gesso_operator.cluster import names
from gesso_operator.cluster.objects import Defaults, desired
from gesso_operator.cluster.objects.common import Owned
from gesso_operator.cluster.objects.config import router_hash, worker_hash
from gesso_operator.cluster.objects.desired import unwanted

SAMPLE = Path(__file__).parents[3] / "manifests" / "samples" / "tiny.yaml"
DEFAULTS = Defaults("r:1", "w:1")


def service(**changes):
    """The sample with `part={field: value}` changed."""
    body = yaml.safe_load(SAMPLE.read_text())
    for part, fields in changes.items():
        if isinstance(fields, dict):
            body["spec"].setdefault(part, {}).update(fields)
        else:
            body["spec"][part] = fields
    return parse_service(yaml.safe_dump(body))


def objects(defaults=DEFAULTS, replicas=2, **changes):
    found = desired(Owned(service(**changes), "ns", "uid"), defaults, replicas)
    return {(o["kind"], o["metadata"]["name"]): o for o in found}


def pods(found):
    return [
        found["StatefulSet", "tiny-worker"]["spec"]["template"],
        found["Deployment", "tiny-router"]["spec"]["template"],
    ]


def test_every_object_belongs_to_the_service_and_carries_its_labels():
    for body in objects().values():
        meta = body["metadata"]
        assert meta["namespace"] == "ns"
        assert meta["labels"][names.LABEL_SERVICE] == "tiny"
        assert meta["labels"][names.LABEL_MANAGED_BY] == names.MANAGER
        owner = meta["ownerReferences"][0]
        assert (owner["uid"], owner["controller"], owner["kind"]) == ("uid", True, names.KIND)


def test_pods_are_what_the_restricted_standard_asks_for():
    for template in pods(objects()):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_workers_are_replaced_one_at_a_time_and_start_together():
    spec = objects(replicas=5)["StatefulSet", "tiny-worker"]["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (5, "Parallel")
    assert spec["updateStrategy"] == {"type": "RollingUpdate"}
    assert spec["serviceName"] == "tiny-workers"


def test_the_service_file_is_one_that_the_processes_accept():
    config = objects()["ConfigMap", "tiny-service"]["data"]["service.yaml"]
    assert parse_service(config).spec == load_service(SAMPLE).spec


def test_an_edit_of_the_slo_restarts_nothing_and_one_of_the_ladder_does():
    before, after = service(), service(slo={"latencySeconds": 9})
    assert worker_hash(before) == worker_hash(after)
    assert router_hash(before) == router_hash(after)
    ladder = service(variants=[{"name": "default", "skippedSteps": [0, 10]}])
    assert worker_hash(before) != worker_hash(ladder)
    assert router_hash(before) != router_hash(ladder)
    policy = service(scheduling={"policy": "Argus"})
    assert worker_hash(before) == worker_hash(policy)
    assert router_hash(before) != router_hash(policy)


def test_what_the_page_shows_reaches_routers_that_are_up():
    modes = [service(router={"console": mode}) for mode in ("Off", "Private", "Full")]
    assert len({router_hash(s) for s in modes}) == 3
    assert len({worker_hash(s) for s in modes}) == 1


def test_templates_of_administrator_and_user_are_laid_over_but_take_no_pod_away():
    admin = {
        "metadata": {"labels": {"team": "a"}},
        "spec": {"containers": [{"name": "worker", "env": [{"name": "X", "value": "admin"}]}]},
    }
    mine = {
        "podTemplate": {
            "metadata": {"labels": {"team": "b"}, "annotations": {"note": "1"}},
            "spec": {
                "priorityClassName": "high",
                "containers": [{"name": "worker", "env": [{"name": "X", "value": "mine"}]}],
            },
        }
    }
    template = pods(objects(Defaults("r", "w", {}, admin), workers=mine))[0]
    labels = template["metadata"]["labels"]
    assert labels["team"] == "b"
    assert labels[names.LABEL_SERVICE] == "tiny"
    assert template["metadata"]["annotations"]["note"] == "1"
    assert names.ANNOTATION_SPEC in template["metadata"]["annotations"]
    env = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
    assert env["X"] == "mine"
    assert template["spec"]["priorityClassName"] == "high"


def test_a_claim_is_mounted_and_named_as_a_folder():
    ladder, claimed = {"name": "default", "skippedSteps": [0, 10]}, "pvc://fast"
    other = {"name": "fast", "model": {"source": claimed, "steps": 4}}
    found = objects(model={"source": "pvc://weights/sdxl/base"}, variants=[ladder, other])
    spec = found["StatefulSet", "tiny-worker"]["spec"]["template"]["spec"]
    claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert [c["claimName"] for c in claims] == ["weights", "fast"]
    assert all(c["readOnly"] for c in claims)
    mounts = {m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}
    assert {"/models/weights", "/models/fast"} <= mounts
    served = parse_service(found["ConfigMap", "tiny-service"]["data"]["service.yaml"]).spec
    assert served.model.source == "/models/weights/sdxl/base"
    assert served.variants[1].model.source == "/models/fast"


def test_a_token_storage_image_and_resources_reach_the_pods():
    found = objects(
        model={
            "tokenSecret": {"name": "hf"},
            "storage": {"size": "20Gi", "storageClassName": "fast"},
        },
        workers={
            "image": "mine:2",
            "imagePullPolicy": "Always",
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        },
    )
    workload = found["StatefulSet", "tiny-worker"]["spec"]
    claim = workload["volumeClaimTemplates"][0]
    assert claim["spec"]["storageClassName"] == "fast"
    spec = workload["template"]["spec"]
    container = spec["containers"][0]
    assert (container["image"], container["imagePullPolicy"]) == ("mine:2", "Always")
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert spec["nodeSelector"] == {"gpu": "a100"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    token = next(e for e in container["env"] if e["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hf", "key": "token"}
    assert "hub" not in [v["name"] for v in spec["volumes"]]


def test_a_cache_on_disk_is_a_volume_with_room_for_it():
    found = objects(cache={"disk": {"size": "10Gi", "storageClassName": "local.nvme"}})
    workload = found["StatefulSet", "tiny-worker"]["spec"]
    (claim,) = workload["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "cache"
    assert claim["spec"]["storageClassName"] == "local.nvme"
    assert int(claim["spec"]["resources"]["requests"]["storage"]) >= 1.1 * 10 * 2**30
    assert workload["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Delete",
        "whenScaled": "Retain",
    }
    (container,) = workload["template"]["spec"]["containers"]
    folder = Path(container["args"][container["args"].index("--cache-dir") + 1])
    mount = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == "cache")
    assert folder.parent == Path(mount)
    assert "--cache-dir" not in str(objects()["StatefulSet", "tiny-worker"])


@pytest.mark.parametrize("policy", [True, False])
def test_what_is_optional_is_there_when_asked_for(policy):
    found = objects(Defaults("r", "w", monitors=True), networkPolicy=policy)
    assert (("NetworkPolicy", "tiny-worker") in found) == policy
    (template,) = [p for p in pods(found) if "gesso_worker.server" in str(p)]
    (container,) = template["spec"]["containers"]
    (endpoint,) = found["PodMonitor", "tiny-worker"]["spec"]["podMetricsEndpoints"]
    (port,) = [p for p in container["ports"] if p["name"] == endpoint["port"]]
    assert flag(container, "--metrics") == f"0.0.0.0:{port['containerPort']}"
    assert ("PodMonitor", "tiny-router") in found
    for name in ("tiny-router", "tiny-worker"):
        (endpoint,) = found["PodMonitor", name]["spec"]["podMetricsEndpoints"]
        assert endpoint["interval"] == "15s", "alerts look at the last two minutes"
    if policy:
        let_in = found["NetworkPolicy", "tiny-worker"]["spec"]["ingress"]
        everybody = [rule["ports"][0]["port"] for rule in let_in if "from" not in rule]
        assert everybody == [port["containerPort"]]
    gone = unwanted(Owned(service(networkPolicy=policy), "ns", "uid"))
    assert ("tiny-worker" in [name for _, _, name in gone]) != policy


def test_the_same_service_makes_the_same_objects():
    assert objects() == objects()


SECURITY = {
    "tls": {"secretName": "gesso-tls"},
    "keys": {"secretName": "clients", "key": "list.yaml"},
}


def flag(container, name):
    return container["args"][container["args"].index(name) + 1]


def test_secrets_come_as_volumes_and_health_has_a_port_of_its_own():
    found = objects(Defaults("r", "w", monitors=True), security=SECURITY)
    for template in pods(found):
        (container,) = template["spec"]["containers"]
        secrets = {v["name"]: v["secret"] for v in template["spec"]["volumes"] if "secret" in v}
        assert secrets["tls"] == {"secretName": "gesso-tls", "defaultMode": 0o440}
        mounts = {m["name"]: m for m in container["volumeMounts"]}
        assert mounts["tls"]["readOnly"] is True
        assert flag(container, "--tls-dir") == mounts["tls"]["mountPath"]
        assert flag(container, "--health") == f"0.0.0.0:{names.HEALTH_PORT}"
        assert container["readinessProbe"]["grpc"]["port"] == names.HEALTH_PORT
    (router,) = found["Deployment", "tiny-router"]["spec"]["template"]["spec"]["containers"]
    assert flag(router, "--keys") == "/etc/gesso/keys/list.yaml"
    assert flag(router, "--control") == f"0.0.0.0:{names.CONTROL_PORT}"
    ports = [p["port"] for p in found["Service", "tiny"]["spec"]["ports"]]
    assert names.CONTROL_PORT not in ports
    monitor = found["PodMonitor", "tiny-router"]["spec"]["podMetricsEndpoints"][0]
    assert monitor["scheme"] == "https"


def test_a_service_that_guards_nothing_is_as_it_was():
    assert router_hash(service()) == router_hash(service(security={}))
    text = str(objects())
    assert "--tls-dir" not in text
    assert "--control" not in text
    assert worker_hash(service()) != worker_hash(service(security=SECURITY))
    assert router_hash(service()) != router_hash(service(security=SECURITY))


def test_only_the_operator_may_control_a_guarded_router():
    found = objects(networkPolicy=True, security=SECURITY)
    public, control = found["NetworkPolicy", "tiny-router"]["spec"]["ingress"]
    assert "from" not in public
    assert names.CONTROL_PORT not in [p["port"] for p in public["ports"]]
    assert control["ports"] == [{"protocol": "TCP", "port": names.CONTROL_PORT}]
    assert len(control["from"]) == 1
    gone = unwanted(Owned(service(networkPolicy=True), "ns", "uid"))
    assert [name for _, _, name in gone] == ["tiny-router"]


def test_traces_go_where_the_spec_says_and_nowhere_without():
    def flags(found):
        return [t["spec"]["containers"][0]["args"] for t in pods(found)]

    assert not any("--otlp-endpoint" in args for args in flags(objects()))
    asked = {"endpoint": "http://otel:4317", "sampleRatio": 0.25}
    worker, router = flags(objects(tracing=asked))
    assert worker[-2:] == ["--otlp-endpoint", "http://otel:4317"]
    assert router[-4:] == ["--otlp-endpoint", "http://otel:4317", "--trace-ratio", "0.25"]
