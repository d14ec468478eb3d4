"""What is applied as it is: the plain manifest, its rights to the letter, every sample, on an API server."""

import copy
import json
import uuid

import pytest
import yaml
from cluster.chart_release import served
from cluster.control_plane import ControlPlane
from cluster.fixtures import tools_or_skip
from cluster.installed import ROOT

PLAIN = ROOT / "manifests" / "install.yaml"
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
SYSTEM = "gesso-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:gesso-operator"


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """An API server of this module's own, with the plain manifest applied."""
    made = ControlPlane(tmp_path_factory.mktemp("plane"), tools_or_skip())
    made.up()
    told = made.kubectl("apply", "--server-side", "--validate=strict", "-f", str(PLAIN))
    assert told.stderr == ""  # no warning either
    served(made)
    yield made
    made.down()


@pytest.fixture
def somewhere(plane):
    name = f"t-{uuid.uuid4().hex[:6]}"
    plane.kubectl("create", "namespace", name)
    return name


def test_applying_again_changes_nothing(plane):
    def versions():
        kinds = "deployments,services,serviceaccounts,roles,rolebindings"
        found = plane.get(kinds, "-n", SYSTEM)["items"]
        found += plane.get("clusterroles,clusterrolebindings")["items"]
        return {(o["kind"], o["metadata"]["name"]): o["metadata"]["resourceVersion"] for o in found}

    before = versions()
    assert ("Deployment", "gesso-operator") in before
    plane.kubectl("apply", "--server-side", "-f", str(PLAIN))
    assert versions() == before


def rights(plane, namespace, account):
    """Verbs by API group and resource that an account has there, besides those that everyone has."""

    def asked(*who):
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        words = ("create", "-f", "-", "-o", "json", "--validate=false", *who)
        told = plane.kubectl(*words, text=json.dumps(review))
        found = {}
        for rule in json.loads(told.stdout)["status"]["resourceRules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    names = tuple(rule.get("resourceNames", ()))
                    found.setdefault((group, resource, names), set()).update(rule["verbs"])
        return found

    of_all = asked("--as=nobody", "--as-group=system:authenticated")
    mine = asked(f"--as={account}")
    return {key: verbs for key, verbs in mine.items() if key not in of_all}


def rules_of(role):
    found = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                names = tuple(rule.get("resourceNames", ()))
                found.setdefault((group, resource, names), set()).update(rule["verbs"])
    return found


def test_the_operator_may_do_what_its_rules_say_and_nothing_else(plane, somewhere):
    role = rules_of(plane.get("clusterrole", "gesso-operator"))
    lease = rules_of(plane.get("role", "gesso-operator-lease", "-n", SYSTEM))
    assert rights(plane, somewhere, ACCOUNT) == role
    assert rights(plane, SYSTEM, ACCOUNT) == role | lease
    assert not [resource for _, resource, _ in role if "secrets" in resource or resource == "*"]


def test_other_accounts_may_do_nothing(plane, somewhere):
    assert rights(plane, SYSTEM, f"system:serviceaccount:{SYSTEM}:default") == {}
    assert rights(plane, somewhere, f"system:serviceaccount:{somewhere}:gesso-operator") == {}


def test_its_namespace_takes_the_operators_pod_though_it_is_restricted(plane):
    namespace = plane.get("namespace", SYSTEM)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    template = plane.get("deployment", "gesso-operator", "-n", SYSTEM)["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": template["spec"],
    }

    def refusal(body):
        words = ("create", "--dry-run=server", "-n", SYSTEM, "-f", "-")
        done = plane.kubectl(*words, text=json.dumps(body), check=False)
        return done.stderr if done.returncode else ""

    assert refusal(pod) == ""
    bad = copy.deepcopy(pod)
    bad["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "violates PodSecurity" in refusal(bad)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_the_api_server_takes_every_sample(plane, somewhere, path):
    words = ("apply", "--dry-run=server", "--validate=strict", "-n", somewhere, "-f", "-")
    sample = yaml.safe_load(path.read_text())
    assert plane.kubectl(*words, text=json.dumps(sample)).stderr == ""
    sample["spec"]["workers"]["gpus"] = 8
    done = plane.kubectl(*words, text=json.dumps(sample), check=False)
    assert done.returncode != 0
    assert "gpus" in done.stderr
