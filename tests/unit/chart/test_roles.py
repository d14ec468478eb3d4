"""The rights that the chart gives, to the letter: what is not in this table is not given."""

import pytest
from chart_kit import of_kind, rendered

CORE, GESSO = "", "gesso.dev"
#: The operator's, where it looks after services: verbs by API group and resource.
OPERATOR = {
    (GESSO, "diffusionservices"): {"list", "watch"},
    (GESSO, "diffusionservices/status"): {"patch"},
    (GESSO, "diffusionservices/finalizers"): {"update"},
    (CORE, "configmaps"): {"list", "watch", "create", "patch"},
    (CORE, "services"): {"list", "watch", "create", "patch"},
    (CORE, "serviceaccounts"): {"create", "patch"},
    (CORE, "pods"): {"list", "watch", "patch"},
    ("apps", "deployments"): {"list", "watch", "create", "patch"},
    ("apps", "statefulsets"): {"get", "list", "watch", "create", "patch"},
    ("policy", "poddisruptionbudgets"): {"create", "patch"},
    ("networking.k8s.io", "networkpolicies"): {"create", "patch", "delete"},
    ("monitoring.coreos.com", "podmonitors"): {"create", "patch"},
    ("events.k8s.io", "events"): {"create"},
}
LEASE = {("coordination.k8s.io", "leases"): {"create", "get", "update"}}
USERS = {
    "gesso-admin": {(GESSO, "*"): {"*"}},
    "gesso-editor": {
        (GESSO, "diffusionservices"): {
            *("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"),
        },
        (GESSO, "diffusionservices/scale"): {"get", "update", "patch"},
        (GESSO, "diffusionservices/status"): {"get"},
    },
    "gesso-viewer": {
        (GESSO, "diffusionservices"): {"get", "list", "watch"},
        (GESSO, "diffusionservices/scale"): {"get"},
        (GESSO, "diffusionservices/status"): {"get"},
    },
}
AGGREGATED = {"gesso-admin": "admin", "gesso-editor": "edit", "gesso-viewer": "view"}


def rights(role):
    """Verbs by group and resource."""
    found = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def by_name(objects, *kinds):
    return {
        (o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in of_kind(objects, *kinds)
    }


def test_cluster_wide_rights(helm):
    objects = rendered(helm, {})
    roles = by_name(objects, "ClusterRole", "Role")
    assert {key: rights(role) for key, role in roles.items()} == {
        (None, "gesso-operator"): OPERATOR,
        ("gesso-system", "gesso-operator-lease"): LEASE,
        **{(None, name): table for name, table in USERS.items()},
    }


def test_rights_in_two_namespaces_alone(helm):
    objects = rendered(
        helm, {"watchNamespaces": ["images", "studio"], "rbac": {"userRoles": False}}
    )
    roles = by_name(objects, "ClusterRole", "Role")
    assert {key: rights(role) for key, role in roles.items()} == {
        ("images", "gesso-operator"): OPERATOR,
        ("studio", "gesso-operator"): OPERATOR,
        ("gesso-system", "gesso-operator-lease"): LEASE,
    }
    assert of_kind(objects, "ClusterRoleBinding") == []


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["images"]}])
def test_every_role_of_the_operator_is_bound_to_it_alone(helm, values):
    objects = rendered(helm, values)
    own = {key for key in by_name(objects, "ClusterRole", "Role") if key[1] not in USERS}
    bound = set()
    for binding in of_kind(objects, "ClusterRoleBinding", "RoleBinding"):
        bound.add((binding["metadata"].get("namespace"), binding["roleRef"]["name"]))
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "gesso-operator", "namespace": "gesso-system"}
        ]
    assert bound == own


def test_one_lease_alone_may_be_changed(helm):
    role = by_name(rendered(helm, {}), "Role")["gesso-system", "gesso-operator-lease"]
    for rule in role["rules"]:
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == ["gesso-operator"]


def test_users_roles_are_aggregated(helm):
    roles = by_name(rendered(helm, {}), "ClusterRole")
    for name, into in AGGREGATED.items():
        labels = roles[None, name]["metadata"]["labels"]
        assert labels[f"rbac.authorization.k8s.io/aggregate-to-{into}"] == "true"


def test_no_role_at_all_where_none_is_wanted(helm):
    objects = rendered(helm, {"rbac": {"create": False, "userRoles": False}})
    assert of_kind(objects, "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding") == []
