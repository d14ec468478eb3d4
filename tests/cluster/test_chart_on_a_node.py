"""The chart where pods run: the operator gets ready, `helm test` passes, users' roles reach Kubernetes' own."""

import sys
import uuid

import pytest
from cluster.chart_release import CRD, Release, helm_of
from cluster.installed import CHART, chart_values


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


@pytest.mark.timeout(300)
def test_the_operator_gets_ready_and_helm_test_passes(cluster, release):
    words = ("--wait", "--timeout", "2m", "--take-ownership")
    release.run("install", release.name, CHART, *words, values=values(release))
    assert release.revision() == (1, "deployed")
    pods = ("get", "pods", "-n", release.namespace)
    (pod,) = cluster.get(*pods[1:], "-l", "app.kubernetes.io/component=operator")["items"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    done = release.run("test", release.name)
    assert "Succeeded" in done.stdout
    log = cluster.kubectl("logs", pod["metadata"]["name"], "-n", release.namespace).stdout
    assert "orbidden" not in log


@pytest.mark.timeout(300)
def test_helm_test_fails_where_the_operator_is_not_ready(cluster, release):
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
