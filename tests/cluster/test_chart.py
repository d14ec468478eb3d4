"""The chart on a real API server, by Helm 3 and 4: install, upgrade with the CRD, roll back, uninstall."""

import uuid

import pytest
from cluster.chart_release import CRD, Release, earlier_chart, helm_of, served
from cluster.control_plane import ControlPlane
from cluster.fixtures import tools_or_skip
from cluster.installed import CHART, ROOT

TINY = ROOT / "manifests" / "samples" / "tiny.yaml"


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """An API server of this module's own: a chart is of the whole cluster."""
    made = ControlPlane(tmp_path_factory.mktemp("plane"), tools_or_skip())
    made.up()
    yield made
    made.down()


@pytest.fixture(params=[3, 4], ids=["helm-3", "helm-4"])
def release(plane, request):
    """A release in a namespace of its own; nothing of it is left afterwards."""
    namespace = f"gesso-{uuid.uuid4().hex[:6]}"
    plane.kubectl("create", "namespace", namespace)
    made = Release(helm_of(plane.tools, request.param), plane, namespace)
    yield made
    made.run("uninstall", made.name, check=False)
    plane.kubectl("delete", CRD, "--ignore-not-found", "--timeout=30s")


def short_names(plane):
    return plane.get(CRD)["spec"]["names"].get("shortNames", [])


def operator(plane, release):
    return plane.get("deployment", "gesso-operator", "-n", release.namespace)["spec"]["template"]


@pytest.mark.timeout(300)
def test_the_life_of_a_release(plane, release, tmp_path):
    earlier = earlier_chart(tmp_path)
    told = release.run("install", release.name, earlier).stdout
    assert (
        f"kubectl --namespace {release.namespace} rollout status deployment/gesso-operator" in told
    )
    assert release.revision() == (1, "deployed")
    assert short_names(plane) == []
    served(plane)
    plane.kubectl("apply", "-n", release.namespace, "-f", str(TINY))
    uid = plane.get("diffusionservice", "tiny", "-n", release.namespace)["metadata"]["uid"]

    # The upgrade takes the CRD along.
    values = {"operator": {"podAnnotations": {"revision": "2"}}}
    release.run("upgrade", release.name, CHART, values=values)
    assert release.revision() == (2, "deployed")
    assert short_names(plane) == ["dsvc"]
    assert operator(plane, release)["metadata"]["annotations"]["revision"] == "2"

    release.run("rollback", release.name, "1")
    assert release.revision() == (3, "deployed")
    assert "revision" not in operator(plane, release)["metadata"]["annotations"]

    release.run("upgrade", release.name, CHART)
    release.run("uninstall", release.name)
    left = plane.kubectl(
        *("get", "deployments,services,serviceaccounts,roles,rolebindings", "-o", "name"),
        *("-n", release.namespace),
    ).stdout.split()
    assert [name for name in left if "gesso" in name] == []
    roles = plane.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name").stdout
    assert "gesso" not in roles
    kept = plane.get("diffusionservice", "tiny", "-n", release.namespace)
    assert kept["metadata"]["uid"] == uid

    # A release of the same name and namespace takes what was kept up again.
    release.run("install", release.name, CHART)
    assert plane.get("diffusionservice", "tiny", "-n", release.namespace)["metadata"]["uid"] == uid


def test_a_release_that_keeps_nothing_takes_the_crd_along(plane, release):
    release.run("install", release.name, CHART, values={"crds": {"keep": False}})
    served(plane)
    release.run("uninstall", release.name, "--wait")
    assert plane.kubectl("get", CRD, check=False).returncode != 0


def test_an_upgrade_with_a_bad_value_changes_nothing(plane, release):
    release.run("install", release.name, CHART)
    before = operator(plane, release)
    done = release.run(
        "upgrade", release.name, CHART, values={"operator": {"replicas": 2}}, check=False
    )
    assert done.returncode != 0
    assert "replicas" in done.stderr
    assert release.revision() == (1, "deployed")
    assert operator(plane, release) == before
