"""What all manifests share: metadata, owner, and how containers are confined."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gesso.api import DiffusionService, RouterSpec, WorkersSpec
from gesso.api.pods import PodTemplate
from gesso_operator.cluster import names
from gesso_operator.cluster.overlay import merged

Object = dict[str, Any]

SERVICE_FOLDER = "/etc/gesso/service"
SERVICE_FILE = "service.yaml"
PLAN_FOLDER = "/etc/gesso/plan"
PLAN_FILE = "plan.json"
STATE_FOLDER = "/var/lib/gesso"
HUB_FOLDER = "/var/cache/huggingface"
MODEL_FOLDER = "/models"
CACHE_FOLDER = "/var/cache/gesso"
TLS_FOLDER = "/etc/gesso/tls"
KEYS_FOLDER = "/etc/gesso/keys"
#: Between a pod's end and the moment at which nobody sends to it any more.
LINGER_S = 4
#: For what is accepted by then: the longest deadline of an SLO that is meant, and some.
DRAIN_S = 60
USER = 65532

CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Owned:
    """The service that objects are made for, and its identity in the cluster."""

    service: DiffusionService
    namespace: str
    uid: str

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    def metadata(self, name: str, component: str = "") -> Object:
        """Name, labels and owner: what is owned goes with its service, whether an operator is there or not."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": names.labels(self.name, component),
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }


def digest(value: object) -> str:
    """A short fingerprint of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def probe(port: int, **timing: int) -> Object:
    """A probe by grpc.health."""
    return {"grpc": {"port": port}, "timeoutSeconds": 2, **timing}


def probes(port: int) -> Object:
    """Started once warm, for which a download may take its time; ready and alive as the server says."""
    return {
        "startupProbe": probe(port, periodSeconds=1, failureThreshold=3600),
        "readinessProbe": probe(port, periodSeconds=2, failureThreshold=2),
        "livenessProbe": probe(port, periodSeconds=10, failureThreshold=6),
    }


def pod(
    owned: Owned,
    component: str,
    spec_hash: str,
    spec: WorkersSpec | RouterSpec,
    container: Object,
    extra_volumes: list[Object],
) -> Object:
    """A confined pod of one container, which is named as the component; `spec` is what the user asks of it."""
    resources = json.loads(spec.resources.model_dump_json(exclude_defaults=True))
    wishes: Object = {"resources": resources} if resources else {}
    if spec.image_pull_policy is not None:
        wishes["imagePullPolicy"] = spec.image_pull_policy
    return {
        "metadata": {
            "labels": names.labels(owned.name, component),
            "annotations": {names.ANNOTATION_SPEC: spec_hash},
        },
        "spec": {
            "serviceAccountName": f"{owned.name}-{component}",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": LINGER_S + DRAIN_S + 10,
            "securityContext": dict(POD_SECURITY),
            "containers": [
                {
                    "name": component,
                    **container,
                    "securityContext": dict(CONTAINER_SECURITY),
                    # The last words of a process that ends become the pod's message, and the service's.
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    **wishes,
                }
            ],
            "volumes": [*volumes(names.service_config(owned.name)), *extra_volumes],
        },
    }


def templated(
    base: Object, defaults: Mapping[str, Any], own: PodTemplate, labels: Object
) -> Object:
    """A pod with the administrator's and the user's partial templates laid over it; it stays its set's."""
    mine = json.loads(own.model_dump_json(exclude_defaults=True))
    template: Object = merged(merged(base, defaults), mine)
    template["metadata"]["labels"].update(labels)
    return template


def guarded_args(service: DiffusionService) -> list[str]:
    """Flags of router and worker alike for TLS: probes find health in clear on a port of its own."""
    tls = service.spec.security.tls
    if tls is None:
        return []
    folder = TLS_FOLDER if tls.secret_name is not None else tls.directory
    return ["--tls-dir", str(folder), "--health", f"0.0.0.0:{names.HEALTH_PORT}"]


def observed_args(service: DiffusionService, router: bool = False) -> list[str]:
    """Flags of router and worker for traces."""
    tracing = service.spec.tracing
    if tracing is None:
        return []
    ratio = ["--trace-ratio", str(tracing.sample_ratio)] if router else []
    return ["--otlp-endpoint", tracing.endpoint, *ratio]


def guarded_volumes(service: DiffusionService) -> tuple[list[Object], list[Object]]:
    """Volumes and mounts of the certificate's Secret; what changes in it is seen in the pod by itself."""
    tls = service.spec.security.tls
    if tls is None or tls.secret_name is None:
        return [], []
    return secret_volume("tls", tls.secret_name, TLS_FOLDER)


def secret_volume(name: str, secret: str, folder: str) -> tuple[list[Object], list[Object]]:
    """A Secret as a volume, and its mount: for the pod's own user to read only."""
    source = {"secretName": secret, "defaultMode": 0o440}
    mount = {"name": name, "mountPath": folder, "readOnly": True}
    return [{"name": name, "secret": source}], [mount]


def health_port(service: DiffusionService, otherwise: int) -> int:
    """Where a pod tells its health to the kubelet."""
    return otherwise if service.spec.security.tls is None else names.HEALTH_PORT


def token_env(service: DiffusionService) -> list[Object]:
    """The Hugging Face token, where the spec names one."""
    secret = service.spec.model.token_secret
    if secret is None:
        return []
    source = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
    return [{"name": "HF_TOKEN", "valueFrom": source}]


def common_env() -> list[Object]:
    """Caches go where may be written; and only what is asked for is downloaded."""
    return [
        {"name": "HF_HOME", "value": HUB_FOLDER},
        {"name": "TORCHINDUCTOR_CACHE_DIR", "value": f"{HUB_FOLDER}/torchinductor"},
        {"name": "TRITON_CACHE_DIR", "value": f"{HUB_FOLDER}/triton"},
        {"name": "HOME", "value": "/tmp"},
        {"name": "USER", "value": "gesso"},
    ]


def volumes(config: str) -> list[Object]:
    """The service file and a place for what is passing."""
    return [
        {"name": "service", "configMap": {"name": config}},
        {"name": "tmp", "emptyDir": {}},
    ]


def mounts() -> list[Object]:
    """Of the volumes of `volumes`."""
    return [
        {"name": "service", "mountPath": SERVICE_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "hub", "mountPath": HUB_FOLDER},
    ]
