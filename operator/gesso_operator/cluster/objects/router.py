"""The routers: a Deployment of any number, and the Service that clients talk to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gesso_operator.cluster import names
from gesso_operator.cluster.objects.common import (
    DRAIN_S,
    KEYS_FOLDER,
    LINGER_S,
    PLAN_FILE,
    PLAN_FOLDER,
    SERVICE_FILE,
    SERVICE_FOLDER,
    STATE_FOLDER,
    Object,
    Owned,
    common_env,
    guarded_args,
    guarded_volumes,
    health_port,
    mounts,
    observed_args,
    pod,
    probes,
    secret_volume,
    templated,
    token_env,
)
from gesso_operator.cluster.objects.config import router_hash


def deployment(owned: Owned, image: str, defaults: Mapping[str, Any]) -> Object:
    """The routers' Deployment; a new router is ready before an old one goes."""
    router = owned.service.spec.router
    labels = names.labels(owned.name, names.ROUTER)
    template = templated(_pod(owned, image), defaults, router.pod_template, labels)
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


def _guards(owned: Owned) -> tuple[list[str], list[Object], list[Object]]:
    """Flags, volumes and mounts of what guards a router."""
    security = owned.service.spec.security
    args, (extra, extra_mounts) = guarded_args(owned.service), guarded_volumes(owned.service)
    if security.on:
        args += ["--control", f"0.0.0.0:{names.CONTROL_PORT}"]
    keys = security.keys
    if keys is not None and keys.secret_name is not None:
        volume, mount = secret_volume("keys", keys.secret_name, KEYS_FOLDER)
        args += ["--keys", f"{KEYS_FOLDER}/{keys.key}"]
        return args, [*extra, *volume], [*extra_mounts, *mount]
    if keys is not None:
        args += ["--keys", str(keys.file)]
    return args, extra, extra_mounts


def _pod(owned: Owned, image: str) -> Object:
    guards, guard_volumes, guard_mounts = _guards(owned)
    container: Object = {
        "image": image,
        "command": ["python", "-m", "gesso_router.server"],
        "args": [
            *("--grpc", f"0.0.0.0:{names.GRPC_PORT}", "--http", f"0.0.0.0:{names.HTTP_PORT}"),
            *("--service", f"{SERVICE_FOLDER}/{SERVICE_FILE}", "--state-dir", STATE_FOLDER),
            *("--plan-file", f"{PLAN_FOLDER}/{PLAN_FILE}"),
            *("--linger-seconds", str(LINGER_S), "--drain-seconds", str(DRAIN_S)),
            *guards,
            *observed_args(owned.service, router=True),
        ],
        "env": [*common_env(), *token_env(owned.service)],
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT},
            {"name": "grpc", "containerPort": names.GRPC_PORT},
        ],
        "volumeMounts": [
            *mounts(),
            {"name": "plan", "mountPath": PLAN_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
            *guard_mounts,
        ],
        **probes(health_port(owned.service, names.GRPC_PORT)),
    }
    plan = {"name": names.plan_config(owned.name), "optional": True}
    extra: list[Object] = [
        {"name": "hub", "emptyDir": {}},
        {"name": "plan", "configMap": plan},
        {"name": "state", "emptyDir": {}},
        *guard_volumes,
    ]
    service = owned.service
    return pod(owned, names.ROUTER, router_hash(service), service.spec.router, container, extra)
