"""The ConfigMaps: what router and workers read at start, and the durable copy of the plan."""

from __future__ import annotations

import json
from typing import Any

import yaml

from gesso.api import DiffusionService
from gesso_operator.cluster import names
from gesso_operator.cluster.objects.common import (
    MODEL_FOLDER,
    PLAN_FILE,
    SERVICE_FILE,
    Object,
    Owned,
    digest,
)


def claim_of(service: DiffusionService) -> tuple[str, str] | None:
    """Claim and folder of a `pvc://` source; None for another."""
    source = service.spec.model.source
    if not source.startswith("pvc://"):
        return None
    claim, _, folder = source.removeprefix("pvc://").partition("/")
    return claim, folder.strip("/")


def as_served(service: DiffusionService) -> Object:
    """The service as its processes read it: a claim has become a folder."""
    spec = json.loads(service.spec.model_dump_json(exclude_none=True, exclude_defaults=True))
    claim = claim_of(service)
    if claim is not None:
        spec["model"]["source"] = f"{MODEL_FOLDER}/{claim[1]}".rstrip("/")
    for part, fields in (("workers", _PODS), ("router", _PODS)):
        for field in fields:
            spec.get(part, {}).pop(field, None)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": service.name},
        "spec": spec,
    }


#: What only pods are made of: no process reads it.
_PODS = ("image", "imagePullPolicy", "resources", "nodeSelector", "tolerations", "podTemplate")


def service_config(owned: Owned) -> Object:
    """What router and workers read at start."""
    text = yaml.safe_dump(as_served(owned.service), sort_keys=False)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned.metadata(names.service_config(owned.name)),
        "data": {SERVICE_FILE: text},
    }


def plan_config(owned: Owned, plan_json: str) -> Object:
    """The plan as the router's store writes it; a router that starts alone begins with it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owned.metadata(names.plan_config(owned.name)),
        "data": {PLAN_FILE: plan_json},
    }


def worker_hash(service: DiffusionService) -> str:
    """Of what workers read at start and cannot take up while they serve."""
    spec = service.spec
    return digest(
        [
            _dump(spec.model),
            [_dump(v) for v in spec.variants],
            _dump(spec.cache),
            spec.workers.max_batch,
        ]
    )


def router_hash(service: DiffusionService) -> str:
    """Of what routers read at start and cannot take up while they serve."""
    spec = service.spec
    return digest(
        [
            _dump(spec.model),
            [_dump(v) for v in spec.variants],
            spec.cache.isolation,
            spec.scheduling.policy,
            spec.router.embedding,
            spec.workers.max_batch,
        ]
    )


def _dump(model: Any) -> Object:
    found: Object = model.model_dump(mode="json", exclude={"allow_replace"})
    return found
