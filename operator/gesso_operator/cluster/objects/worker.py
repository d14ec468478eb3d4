"""The workers: a StatefulSet, so that a shard keeps its name, and a headless Service."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from gesso_operator.cluster import names
from gesso_operator.cluster.objects.common import (
    CACHE_FOLDER,
    DRAIN_S,
    LINGER_S,
    MODEL_FOLDER,
    SERVICE_FILE,
    SERVICE_FOLDER,
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
    templated,
    token_env,
)
from gesso_operator.cluster.objects.config import claims_of, worker_hash

_CACHE = "cache"
#: What a volume must be larger than what it is to hold: a file system keeps up to a tenth for itself.
_FILE_SYSTEM = 1.1


def stateful_set(owned: Owned, image: str, replicas: int, defaults: Mapping[str, Any]) -> Object:
    """The workers' StatefulSet; `defaults` is the administrator's partial pod template.

    Pods start all at once, and are replaced one at a time once the last is ready: a fleet that has every GPU
    has none for a surge.
    """
    workers = owned.service.spec.workers
    labels = names.labels(owned.name, names.WORKER)
    template = templated(_pod(owned, image), defaults, workers.pod_template, labels)
    spec: Object = {
        "replicas": replicas,
        "serviceName": names.workers(owned.name),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": names.selector(owned.name, names.WORKER)},
        "template": template,
    }
    storage, disk = owned.service.spec.model.storage, owned.service.spec.cache.disk
    claims = []
    if storage is not None:
        claims.append(_claim("hub", storage.size, storage.storage_class_name))
    if disk is not None:
        room = math.ceil(disk.size_bytes * _FILE_SYSTEM)
        claims.append(_claim(_CACHE, str(room), disk.storage_class_name))
    if claims:
        spec["volumeClaimTemplates"] = claims
        spec["persistentVolumeClaimRetentionPolicy"] = {
            "whenDeleted": "Delete",
            "whenScaled": "Retain",
        }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": owned.metadata(names.worker(owned.name), names.WORKER),
        "spec": spec,
    }


def _claim(name: str, size: str, storage_class: str | None) -> Object:
    """A volume for each worker."""
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": spec,
    }


def headless_service(owned: Owned) -> Object:
    """Names for the workers' pods, ready or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned.metadata(names.workers(owned.name), names.WORKER),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(owned.name, names.WORKER),
            "ports": [{"name": "grpc", "port": names.WORKER_PORT, "targetPort": "grpc"}],
        },
    }


def _pod(owned: Owned, image: str) -> Object:
    service, workers = owned.service, owned.service.spec.workers
    extra, extra_mounts = guarded_volumes(service)
    for i, claim in enumerate(claims_of(service)):
        source = {"claimName": claim, "readOnly": True}
        extra.append({"name": f"models-{i}", "persistentVolumeClaim": source})
        mount = {"name": f"models-{i}", "mountPath": f"{MODEL_FOLDER}/{claim}", "readOnly": True}
        extra_mounts.append(mount)
    if service.spec.model.storage is None:
        extra.append({"name": "hub", "emptyDir": {}})
    cache: list[str] = []
    if service.spec.cache.disk is not None:
        # A folder below the mount: a new file system brings one of its own along.
        cache = ["--cache-dir", f"{CACHE_FOLDER}/latents"]
        extra_mounts.append({"name": _CACHE, "mountPath": CACHE_FOLDER})
    container: Object = {
        "image": image,
        "command": ["python", "-m", "gesso_worker.server"],
        "args": [
            *("--name", "$(POD_NAME)", "--listen", f"0.0.0.0:{names.WORKER_PORT}"),
            *("--service", f"{SERVICE_FOLDER}/{SERVICE_FILE}", "--threads", str(workers.threads)),
            *("--metrics", f"0.0.0.0:{names.METRICS_PORT}"),
            *("--linger-seconds", str(LINGER_S), "--drain-seconds", str(DRAIN_S)),
            *cache,
            *guarded_args(service),
            *observed_args(service),
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *common_env(),
            *token_env(service),
        ],
        "ports": [
            {"name": "grpc", "containerPort": names.WORKER_PORT},
            {"name": "metrics", "containerPort": names.METRICS_PORT},
        ],
        "volumeMounts": [*mounts(), *extra_mounts],
        **probes(health_port(service, names.WORKER_PORT)),
    }
    made = pod(owned, names.WORKER, worker_hash(service), workers, container, extra)
    if workers.node_selector:
        made["spec"]["nodeSelector"] = dict(workers.node_selector)
    if workers.tolerations:
        made["spec"]["tolerations"] = [
            json.loads(t.model_dump_json(exclude_none=True)) for t in workers.tolerations
        ]
    return made
