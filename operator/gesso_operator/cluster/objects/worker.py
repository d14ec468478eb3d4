"""The workers: a StatefulSet, so that a shard keeps its name, and a headless Service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gesso_operator.cluster import names
from gesso_operator.cluster.objects.common import (
    CONTAINER_SECURITY,
    DRAIN_S,
    LINGER_S,
    MODEL_FOLDER,
    POD_SECURITY,
    SERVICE_FILE,
    SERVICE_FOLDER,
    Object,
    Owned,
    common_env,
    mounts,
    probes,
    token_env,
    volumes,
)
from gesso_operator.cluster.objects.config import claims_of, worker_hash
from gesso_operator.cluster.overlay import merged


def stateful_set(owned: Owned, image: str, replicas: int, defaults: Mapping[str, Any]) -> Object:
    """The workers' StatefulSet; `defaults` is the administrator's partial pod template.

    Pods start all at once, and are replaced one at a time once the last is ready: a fleet that has every GPU
    has none for a surge.
    """
    workers = owned.service.spec.workers
    mine: Object = json.loads(workers.pod_template.model_dump_json(exclude_defaults=True))
    template = merged(merged(_pod(owned, image), defaults), mine)
    labels = template["metadata"]["labels"]
    # A template cannot take the pods away from their set.
    labels.update(names.labels(owned.name, names.WORKER))
    spec: Object = {
        "replicas": replicas,
        "serviceName": names.workers(owned.name),
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": names.selector(owned.name, names.WORKER)},
        "template": template,
    }
    storage = owned.service.spec.model.storage
    if storage is not None:
        claim: Object = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage.size}},
        }
        if storage.storage_class_name is not None:
            claim["storageClassName"] = storage.storage_class_name
        spec["volumeClaimTemplates"] = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "hub"},
                "spec": claim,
            }
        ]
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
    service = owned.service
    workers, model = service.spec.workers, service.spec.model
    container: Object = {
        "name": "worker",
        "image": image,
        "command": ["python", "-m", "gesso_worker.server"],
        "args": [
            *("--name", "$(POD_NAME)", "--listen", f"0.0.0.0:{names.WORKER_PORT}"),
            *("--service", f"{SERVICE_FOLDER}/{SERVICE_FILE}", "--threads", str(workers.threads)),
            *("--linger-seconds", str(LINGER_S), "--drain-seconds", str(DRAIN_S)),
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *common_env(),
            *token_env(service),
        ],
        "ports": [{"name": "grpc", "containerPort": names.WORKER_PORT}],
        "securityContext": dict(CONTAINER_SECURITY),
        # The last words of a process that ends become the pod's message, and the service's.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts(),
        **probes(names.WORKER_PORT),
    }
    resources = json.loads(workers.resources.model_dump_json(exclude_defaults=True))
    if resources:
        container["resources"] = resources
    if workers.image_pull_policy is not None:
        container["imagePullPolicy"] = workers.image_pull_policy
    spec: Object = {
        "serviceAccountName": names.worker(owned.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LINGER_S + DRAIN_S + 10,
        "securityContext": dict(POD_SECURITY),
        "containers": [container],
        "volumes": volumes(names.service_config(owned.name)),
    }
    for i, claim in enumerate(claims_of(service)):
        source = {"claimName": claim, "readOnly": True}
        spec["volumes"].append({"name": f"models-{i}", "persistentVolumeClaim": source})
        mount = {"name": f"models-{i}", "mountPath": f"{MODEL_FOLDER}/{claim}", "readOnly": True}
        container["volumeMounts"].append(mount)
    if model.storage is None:
        spec["volumes"].append({"name": "hub", "emptyDir": {}})
    if workers.node_selector:
        spec["nodeSelector"] = dict(workers.node_selector)
    if workers.tolerations:
        spec["tolerations"] = [
            json.loads(t.model_dump_json(exclude_none=True)) for t in workers.tolerations
        ]
    return {
        "metadata": {
            "labels": names.labels(owned.name, names.WORKER),
            "annotations": {names.ANNOTATION_SPEC: worker_hash(service)},
        },
        "spec": spec,
    }
