"""What stands around the pods: accounts without rights, disruption budgets, network policy, monitoring."""

from __future__ import annotations

from gesso_operator.cluster import names
from gesso_operator.cluster.objects.common import Object, Owned

#: As the chart labels the operator's pod.
OPERATOR_LABELS = {
    "app.kubernetes.io/name": "gesso",
    "app.kubernetes.io/component": "operator",
}
#: Between two scrapes; the alerts look at no less than two minutes.
_SCRAPE_INTERVAL = "15s"


def service_account(owned: Owned, name: str, component: str) -> Object:
    """An account that may do nothing: neither router nor worker asks the API server for anything."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": owned.metadata(name, component),
        "automountServiceAccountToken": False,
    }


def disruption_budget(owned: Owned, name: str, component: str) -> Object:
    """Drained nodes take one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owned.metadata(name, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(owned.name, component)},
        },
    }


def worker_policy(owned: Owned) -> Object:
    """Who may talk to workers: the service's own pods and the operator, of whatever namespace.

    Anybody may read their metrics, which hold no prompt.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owned.metadata(names.worker(owned.name), names.WORKER),
        "spec": {
            "podSelector": {"matchLabels": names.selector(owned.name, names.WORKER)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {"podSelector": {"matchLabels": {names.LABEL_SERVICE: owned.name}}},
                        {
                            "namespaceSelector": {},
                            "podSelector": {"matchLabels": dict(OPERATOR_LABELS)},
                        },
                    ],
                    "ports": [{"protocol": "TCP", "port": names.WORKER_PORT}],
                },
                {"ports": [{"protocol": "TCP", "port": names.METRICS_PORT}]},
            ],
        },
    }


def control_policy(owned: Owned) -> Object:
    """Who may talk to a guarded router: anybody to the clients' ports, the operator alone to control it."""
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": dict(OPERATOR_LABELS)}}
    public = (names.HTTP_PORT, names.GRPC_PORT, names.HEALTH_PORT)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owned.metadata(names.router(owned.name), names.ROUTER),
        "spec": {
            "podSelector": {"matchLabels": names.selector(owned.name, names.ROUTER)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"protocol": "TCP", "port": port} for port in public]},
                {
                    "from": [operator],
                    "ports": [{"protocol": "TCP", "port": names.CONTROL_PORT}],
                },
            ],
        },
    }


def pod_monitors(owned: Owned) -> tuple[Object, Object]:
    """Have the Prometheus operator scrape routers, over TLS where they have it, and workers."""
    endpoint: Object = {"port": "http", "path": "/metrics"}
    if owned.service.spec.security.tls is not None:
        # By the pod's address, which no certificate names.
        endpoint |= {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}}
    return (
        _pod_monitor(owned, names.router(owned.name), names.ROUTER, endpoint),
        _pod_monitor(owned, names.worker(owned.name), names.WORKER, {"port": "metrics"}),
    )


def _pod_monitor(owned: Owned, name: str, component: str, endpoint: Object) -> Object:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": owned.metadata(name, component),
        "spec": {
            "selector": {"matchLabels": names.selector(owned.name, component)},
            "podMetricsEndpoints": [endpoint | {"interval": _SCRAPE_INTERVAL}],
        },
    }
