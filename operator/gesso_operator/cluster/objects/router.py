"""The routers: a Deployment of any number, and the Service that clients talk to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gesso_operator.cluster import names
from gesso_operator.cluster.objects.common import (
    CONTAINER_SECURITY,
    DRAIN_S,
    LINGER_S,
    PLAN_FILE,
    PLAN_FOLDER,
    POD_SECURITY,
    SERVICE_FILE,
    SERVICE_FOLDER,
    STATE_FOLDER,
    Object,
    Owned,
    common_env,
    mounts,
    probes,
    token_env,
    volumes,
)
from gesso_operator.cluster.objects.config import router_hash
from gesso_operator.cluster.overlay import merged


def deployment(owned: Owned, image: str, defaults: Mapping[str, Any]) -> Object:
    """The routers' Deployment; a new router is ready before an old one goes."""
    router = owned.service.spec.router
    mine: Object = json.loads(router.pod_template.model_dump_json(exclude_defaults=True))
    template = merged(merged(_pod(owned, image), defaults), mine)
    template["metadata"]["labels"].update(names.labels(owned.name, names.ROUTER))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owned.metadata(names.router(owned.name), names.ROUTER),
        "spec": {
            "replicas": router.replicas,
            "revisionHistoryLimit": 3,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": names.selector(owned.name, names.ROUTER)},
            "template": template,
        },
    }


def service(owned: Owned) -> Object:
    """Where clients find the service: HTTP on 80, gRPC on 7001."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned.metadata(owned.name, names.ROUTER),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector(owned.name, names.ROUTER),
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http"},
                {"name": "grpc", "port": names.GRPC_PORT, "targetPort": "grpc"},
            ],
        },
    }


def _pod(owned: Owned, image: str) -> Object:
    router = owned.service.spec.router
    container: Object = {
        "name": "router",
        "image": image,
        "command": ["python", "-m", "gesso_router.server"],
        "args": [
            *("--grpc", f"0.0.0.0:{names.GRPC_PORT}", "--http", f"0.0.0.0:{names.HTTP_PORT}"),
            *("--service", f"{SERVICE_FOLDER}/{SERVICE_FILE}", "--state-dir", STATE_FOLDER),
            *("--plan-file", f"{PLAN_FOLDER}/{PLAN_FILE}"),
            *("--linger-seconds", str(LINGER_S), "--drain-seconds", str(DRAIN_S)),
        ],
        "env": [*common_env(), *token_env(owned.service)],
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT},
            {"name": "grpc", "containerPort": names.GRPC_PORT},
        ],
        "securityContext": dict(CONTAINER_SECURITY),
        # The last words of a process that ends become the pod's message, and the service's.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            *mounts(),
            {"name": "plan", "mountPath": PLAN_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
        ],
        **probes(names.GRPC_PORT),
    }
    resources = json.loads(router.resources.model_dump_json(exclude_defaults=True))
    if resources:
        container["resources"] = resources
    if router.image_pull_policy is not None:
        container["imagePullPolicy"] = router.image_pull_policy
    plan = {"name": names.plan_config(owned.name), "optional": True}
    spec: Object = {
        "serviceAccountName": names.router(owned.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LINGER_S + DRAIN_S + 10,
        "securityContext": dict(POD_SECURITY),
        "containers": [container],
        "volumes": [
            *volumes(names.service_config(owned.name)),
            {"name": "hub", "emptyDir": {}},
            {"name": "plan", "configMap": plan},
            {"name": "state", "emptyDir": {}},
        ],
    }
    return {
        "metadata": {
            "labels": names.labels(owned.name, names.ROUTER),
            "annotations": {names.ANNOTATION_SPEC: router_hash(owned.service)},
        },
        "spec": spec,
    }
