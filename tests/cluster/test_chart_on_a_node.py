"""The chart where pods run: the operator gets ready, `helm test` passes, users' roles reach Kubernetes' own."""

import json
import re
import sys
import uuid

import pytest
import yaml
from cluster.chart_release import CRD, Release, helm_of, ownable
from cluster.installed import CHART, ROOT, chart_values
from cluster.processes import wait_for


@pytest.fixture(params=[3, 4], ids=["helm-3", "helm-4"])
def release(cluster, request):
    namespace = f"chart-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", namespace)
    made = Release(helm_of(cluster.tools, request.param), cluster, namespace)
    yield made
    made.run("uninstall", made.name, "--wait", check=False)
    # Other tests of this cluster install it anew, by a release of their own.
    cluster.kubectl("delete", CRD, "--ignore-not-found", "--timeout=60s")
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def values(release):
    return {
        **chart_values(),
        "watchNamespaces": [release.namespace],
        "helmTest": {"python": sys.executable},
    }


OWNED = {
    *("configmap/mine-service", "configmap/mine-plan", "service/mine", "service/mine-workers"),
    *("deployment.apps/mine-router", "statefulset.apps/mine-worker"),
    *("serviceaccount/mine-router", "serviceaccount/mine-worker"),
    *("poddisruptionbudget.policy/mine-router", "poddisruptionbudget.policy/mine-worker"),
    "networkpolicy.networking.k8s.io/mine-worker",
}


def operator_pod(release):
    words = ("pods", "-n", release.namespace, "-l", "app.kubernetes.io/component=operator")
    (pod,) = release.plane.get(*words)["items"]
    return pod


def operator_log(release):
    name = operator_pod(release)["metadata"]["name"]
    return release.plane.kubectl("logs", name, "-n", release.namespace).stdout


def refused(release):
    """Resources that the API server refused the operator, by its log."""
    return set(re.findall(r'cannot \w+ resource \\*"(\w+)', operator_log(release)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("everywhere", [True, False], ids=["cluster-wide", "one-namespace"])
def test_the_operator_gets_ready_and_helm_test_passes(release, everywhere):
    held = values(release) | ({"watchNamespaces": []} if everywhere else {})
    words = ("--wait", "--timeout", "2m", "--take-ownership")
    release.run("install", release.name, CHART, *words, values=held)
    assert release.revision() == (1, "deployed")
    assert operator_pod(release)["status"]["containerStatuses"][0]["restartCount"] == 0
    assert "Succeeded" in release.run("test", release.name).stdout
    assert refused(release) == set()


@pytest.mark.timeout(300)
def test_the_rights_are_enough_to_look_after_a_service(cluster, release):
    words = ("--wait", "--timeout", "2m", "--take-ownership")
    release.run("install", release.name, CHART, *words, values=values(release))
    service = yaml.safe_load((ROOT / "manifests" / "samples" / "tiny.yaml").read_text())
    service["metadata"]["name"] = "mine"
    service["spec"]["workers"]["replicas"] = 0
    service["spec"]["networkPolicy"] = True
    namespace = ("-n", release.namespace)
    account = operator_pod(release)["spec"]["serviceAccountName"]
    ownable(cluster, release.namespace, account)
    cluster.kubectl("apply", *namespace, "-f", "-", text=json.dumps(service))
    kinds = "cm,svc,deploy,sts,sa,pdb,netpol"

    def owned():
        return set(cluster.kubectl("get", kinds, *namespace, "-o", "name").stdout.split())

    def told():
        return cluster.get("dsvc", "mine", *namespace).get("status", {}).get("conditions")

    def missing():
        return OWNED - {"configmap/mine-plan"} - owned()

    assert wait_for(lambda: not missing(), 30.0, 0.5), f"{missing()}\n{operator_log(release)}"
    assert wait_for(told, 30.0, 0.5)
    cluster.kubectl(
        *("patch", "dsvc", "mine", *namespace, "--type=merge", "-p"),
        json.dumps({"spec": {"networkPolicy": False}}),
    )
    policy = "networkpolicy.networking.k8s.io/mine-worker"
    assert wait_for(lambda: policy not in owned(), 30.0, 0.5)
    assert refused(release) == set()


@pytest.mark.timeout(300)
def test_helm_test_fails_where_the_operator_is_not_ready(release):
    held = values(release)
    held["operator"] = {**held["operator"], "command": ["/bin/sleep", "3600"]}
    release.run("install", release.name, CHART, "--take-ownership", values=held)
    done = release.run("test", release.name, "--timeout", "60s", check=False)
    assert done.returncode != 0


@pytest.mark.timeout(300)
def test_editors_of_a_namespace_may_edit_its_services(cluster, release):
    release.run("install", release.name, CHART, "--take-ownership", values=values(release))
    namespace = ("-n", release.namespace)
    for role in ("edit", "view"):
        cluster.kubectl(
            "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", *namespace
        )
    may = {
        (role, verb): cluster.kubectl(
            "auth",
            "can-i",
            verb,
            "diffusionservices.gesso.dev",
            f"--as={role}",
            *namespace,
            check=False,
        ).stdout.strip()
        for role in ("edit", "view")
        for verb in ("get", "create", "delete")
    }
    assert may == {
        ("edit", "get"): "yes",
        ("edit", "create"): "yes",
        ("edit", "delete"): "yes",
        ("view", "get"): "yes",
        ("view", "create"): "no",
        ("view", "delete"): "no",
    }
