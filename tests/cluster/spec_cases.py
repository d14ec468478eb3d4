"""DiffusionServices that typed model and API server accept, and ones that both refuse with a sentence."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

BASE: Document = {
    "apiVersion": "gesso.dev/v1alpha1",
    "kind": "DiffusionService",
    "metadata": {"name": "small"},
    "spec": {
        "model": {"source": "builtin://tiny-sdxl", "steps": 50},
        "variants": [{"name": "default", "skippedSteps": [0, 5, 10, 15, 20, 25]}],
        "slo": {"latencySeconds": 4},
        "workers": {"min": 1, "max": 4, "replicas": 2},
    },
}
LIGHT = {"name": "light", "model": {"source": "some/light", "steps": 4}}
LADDER = {"name": "default", "skippedSteps": [0, 5]}
#: In place of a value: the field is left out.
ABSENT = object()


def changed(changes: dict[str, Any]) -> Document:
    """`BASE` with values at paths such as `spec.model.steps`."""
    document = copy.deepcopy(BASE)
    for path, value in changes.items():
        *folders, last = path.split(".")
        at = document
        for folder in folders:
            at = at.setdefault(folder, {})
        if value is ABSENT:
            del at[last]
        else:
            at[last] = value
    return document


@dataclass(frozen=True)
class Bad:
    """A spec to be refused: `typed` is in what the typed model says, `server` in what the API server does."""

    name: str
    changes: dict[str, Any]
    typed: str
    server: str

    @property
    def document(self) -> Document:
        """The object."""
        return changed(self.changes)


def both(name: str, path: str, value: Any, told: str, shown: str | None = None) -> Bad:
    """One field at fault, of which both say the same: `shown is not allowed: told`."""
    text = f"{value if shown is None else shown} is not allowed: {told}"
    return Bad(name, {path: value}, text, text)


def bound(name: str, path: str, value: Any, typed: str, server: str) -> Bad:
    """One field out of the schema's own bounds, which the API server tells in its own words."""
    return Bad(name, {path: value}, f"{path}: {value} is not allowed: {typed}", f"{path}: {server}")


#: Changes of `BASE` that nobody refuses.
GOOD: dict[str, dict[str, Any]] = {
    "as it is": {},
    "least that can be said": {
        "spec": {"model": {"source": "x"}, "slo": {"latencySeconds": 9}, "workers": {"max": 1}}
    },
    "one level": {"spec.variants": [{"name": "full", "skippedSteps": [0]}]},
    "other models": {"spec.variants": [LADDER, LIGHT, LIGHT | {"name": "lighter"}]},
    "other model makes the deadline": {
        "spec.variants": [LADDER, LIGHT],
        "spec.slo.latencySeconds": 0.01,
    },
    "other model without guidance": {
        "spec.variants": [LADDER, {"name": "m", "model": LIGHT["model"] | {"guidanceScale": 0}}],
        "spec.workers.modelMemory": "16Gi",
    },
    "model memory as a number": {"spec.workers.modelMemory": 1048576},
    "model in a volume": {
        "spec.model.source": "pvc://models/sdxl/base",
        "spec.model.allowReplace": True,
        "spec.model.tokenSecret": {"name": "hub"},
        "spec.model.storage": {"size": "20Gi", "storageClassName": "fast"},
    },
    "stopped fleet": {"spec.workers.replicas": 0},
    "elastic fleet": {
        "spec.workers": {"max": 9, "costPerHour": 12.5, "startSeconds": 60},
        "spec.networkPolicy": True,
    },
    "capacity as a number": {"spec.cache.capacity": 1048576},
    "capacity with a fraction": {"spec.cache": {"capacity": "1.5Gi", "isolation": "Shared"}},
    "cache on disk": {"spec.cache": {"disk": {"size": "100Gi", "storageClassName": "local.nvme"}}},
    "traces": {"spec.tracing": {"endpoint": "https://otel-collector.observability:4317"}},
    "a few traces": {"spec.tracing": {"endpoint": "http://[::1]:4317", "sampleRatio": 0.01}},
    "guarded": {
        "spec.security": {
            "tls": {"secretName": "gesso-tls", "mutual": False, "serverName": "gesso.example"},
            "keys": {"secretName": "gesso-clients", "key": "clients.yaml"},
        }
    },
    "guarded on one machine": {
        "spec.security": {"tls": {"directory": "tls"}, "keys": {"file": "keys.yaml"}}
    },
    "longest name": {"metadata.name": "a" * 45},
    "pods": {
        "spec.workers.image": "example.com/worker:1",
        "spec.workers.imagePullPolicy": "Never",
        "spec.workers.resources": {
            "requests": {
                "cpu": "500m",
                "memory": "1.5Gi",
                "a.b/c": "+1E",
                "a.b/d": ".5",
                "a.b/e": "1e3",
            },
            "limits": {"nvidia.com/gpu": 1, "cpu": "2.5"},
        },
        "spec.workers.nodeSelector": {"gpu": "yes"},
        "spec.workers.tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "spec.workers.podTemplate": {
            "metadata": {"labels": {"team": "art"}, "annotations": {"example.com/a": "b"}},
            "spec": {
                "priorityClassName": "high",
                "containers": [{"name": "worker", "env": [{"name": "A", "value": "1"}]}],
            },
        },
        "spec.router.resources": {"requests": {"cpu": 1}},
        "spec.router.podTemplate": {"spec": {"hostNetwork": False, "anything": {"at": ["all"]}}},
    },
}
