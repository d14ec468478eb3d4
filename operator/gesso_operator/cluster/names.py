"""Names, labels and annotations of what the operator owns; pure."""

from __future__ import annotations

from typing import NamedTuple

MANAGER = "gesso-operator"
GROUP = "gesso.dev"
VERSION = "v1alpha1"
PLURAL = "diffusionservices"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DiffusionService"

LABEL_SERVICE = f"{GROUP}/service"
LABEL_LEVEL = f"{GROUP}/skipped-steps"
#: On a worker that is to hold another model: the name of its variant.
LABEL_MODEL = f"{GROUP}/model"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
#: Of the part of the spec that router or workers read at start: a change of it is rolled out.
ANNOTATION_SPEC = f"{GROUP}/spec-hash"

ROUTER, WORKER = "router", "worker"
GRPC_PORT, HTTP_PORT, WORKER_PORT = 7001, 7080, 7101
#: Of workers; routers tell theirs where clients are served.
METRICS_PORT = 7102
#: Where a guarded service has them: what controls a router apart from its clients, and health in clear.
CONTROL_PORT, HEALTH_PORT = 7002, 7009


class Key(NamedTuple):
    """A DiffusionService, or any other object, by namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def labels(service: str, component: str = "") -> dict[str, str]:
    """The labels of an object that a service owns."""
    found = {
        "app.kubernetes.io/name": "gesso",
        "app.kubernetes.io/instance": service,
        LABEL_MANAGED_BY: MANAGER,
        LABEL_SERVICE: service,
    }
    return found | ({LABEL_COMPONENT: component} if component else {})


def selector(service: str, component: str) -> dict[str, str]:
    """Labels that pick a component's pods; they cannot change during a service's life."""
    return {LABEL_SERVICE: service, LABEL_COMPONENT: component}


def router(service: str) -> str:
    """Of the router's Deployment, ServiceAccount and PodDisruptionBudget."""
    return f"{service}-router"


def worker(service: str) -> str:
    """Of the workers' StatefulSet, ServiceAccount and PodDisruptionBudget."""
    return f"{service}-worker"


def workers(service: str) -> str:
    """Of the workers' headless Service."""
    return f"{service}-workers"


def service_config(service: str) -> str:
    """Of the ConfigMap with what router and workers read at start."""
    return f"{service}-service"


def plan_config(service: str) -> str:
    """Of the ConfigMap with the plan."""
    return f"{service}-plan"


def ordinal(pod: str) -> int:
    """The number at the end of a StatefulSet pod's name; -1 without one."""
    tail = pod.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1
