"""The ConfigMaps: what router and workers read at start, and the durable copy of the plan."""

from __future__ import annotations

import json
from typing import Any

import yaml

from gesso.api import DiffusionService, RouterSpec
from gesso_operator.cluster import names
from gesso_operator.cluster.objects.common import (
    MODEL_FOLDER,
    PLAN_FILE,
    SERVICE_FILE,
    Object,
    Owned,
    digest,
)

_CLAIM = "pvc://"


def claims_of(service: DiffusionService) -> tuple[str, ...]:
    """The volume claims that models lie in, each once."""
    others = [v.model.source for v in service.spec.variants if v.model is not None]
    sources = [service.spec.model.source, *others]
    found = [s.removeprefix(_CLAIM).partition("/")[0] for s in sources if s.startswith(_CLAIM)]
    return tuple(dict.fromkeys(found))


def _in_pod(source: str) -> str:
    """Where a source lies in a pod: a claim has become a folder below the mount of its name."""
    if not source.startswith(_CLAIM):
        return source
    return f"{MODEL_FOLDER}/{source.removeprefix(_CLAIM).strip('/')}"


def as_served(service: DiffusionService) -> Object:
    """The service as its processes read it, with models where they are mounted."""
    spec = json.loads(service.spec.model_dump_json(exclude_none=True, exclude_defaults=True))
    for model in (spec["model"], *(v["model"] for v in spec.get("variants", ()) if "model" in v)):
        model["source"] = _in_pod(model["source"])
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
            spec.workers.model_memory,
            *_guarded(service),
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
            *_guarded(service),
            *_shown(service),
        ]
    )


def _guarded(service: DiffusionService) -> list[Object]:
    """Nothing where nothing is guarded: pods of a service that says nothing of it stay as they are."""
    security = service.spec.security
    return [_dump(security)] if security.on else []


def _shown(service: DiffusionService) -> list[str]:
    """Nothing where the page shows what it shows unless somebody says otherwise."""
    console = service.spec.router.console
    return [] if console == RouterSpec().console else [console]


def _dump(model: Any) -> Object:
    found: Object = model.model_dump(mode="json", exclude={"allow_replace"})
    return found
