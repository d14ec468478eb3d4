"""All objects of a service, in the order in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gesso_operator.cluster import names
from gesso_operator.cluster.objects import config, guards, router, worker
from gesso_operator.cluster.objects.common import Object, Owned


@dataclass(frozen=True)
class Defaults:
    """What the operator was installed with: images, and the administrator's partial pod templates."""

    router_image: str
    worker_image: str
    router_pod: Mapping[str, Any] = field(default_factory=dict)
    worker_pod: Mapping[str, Any] = field(default_factory=dict)
    monitors: bool = False


def desired(owned: Owned, defaults: Defaults, replicas: int) -> tuple[Object, ...]:
    """Everything but the plan; `replicas` is the number of worker pods."""
    spec, name = owned.service.spec, owned.name
    found = [
        config.service_config(owned),
        guards.service_account(owned, names.router(name), names.ROUTER),
        guards.service_account(owned, names.worker(name), names.WORKER),
        guards.disruption_budget(owned, names.router(name), names.ROUTER),
        guards.disruption_budget(owned, names.worker(name), names.WORKER),
        worker.headless_service(owned),
        router.service(owned),
    ]
    if spec.network_policy:
        found.append(guards.worker_policy(owned))
        if spec.security.on:
            found.append(guards.control_policy(owned))
    if defaults.monitors:
        found += guards.pod_monitors(owned)
    workers = worker.stateful_set(
        owned, spec.workers.image or defaults.worker_image, replicas, defaults.worker_pod
    )
    routers = router.deployment(
        owned, spec.router.image or defaults.router_image, defaults.router_pod
    )
    return (*found, workers, routers)


def unwanted(owned: Owned) -> tuple[tuple[str, str, str], ...]:
    """What must not be there though it once may have been: (apiVersion, kind, name)."""
    spec = owned.service.spec
    kept = {
        names.worker(owned.name): spec.network_policy,
        names.router(owned.name): spec.network_policy and spec.security.on,
    }
    return tuple(
        ("networking.k8s.io/v1", "NetworkPolicy", n) for n, keep in kept.items() if not keep
    )
