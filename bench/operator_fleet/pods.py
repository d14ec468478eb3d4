"""Pods that run already, as a kubelet would report them, for a cluster without a node."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from gesso_operator.cluster.api import Api
from gesso_operator.cluster.names import API_VERSION, KIND

Pod = tuple[str, str, str, str]


class Pods:
    """Makes and looks at objects through the API server that KUBECONFIG names."""

    def __init__(self, namespace: str) -> None:
        self._namespace, self._loop, self._api = namespace, asyncio.new_event_loop(), Api()
        self._do(self._api.connect())

    def close(self) -> None:
        """Ends the connections."""
        self._do(self._api.close())
        self._loop.close()

    def run(self, pods: list[Pod]) -> None:
        """Makes pods (name, service, component, address) that are ready."""

        async def all_of_them() -> None:
            await asyncio.gather(*(self._run(*pod) for pod in pods))

        self._do(all_of_them())

    def service(self, name: str) -> dict[str, Any]:
        """A DiffusionService as it is."""
        found = self._do(self._api.get(API_VERSION, KIND, self._namespace, name))
        assert found is not None
        return found

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Changes a DiffusionService's spec."""
        self._do(self._api.patch(API_VERSION, KIND, self._namespace, name, {"spec": spec}))

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _run(self, name: str, service: str, component: str, address: str) -> None:
        labels = {
            "app.kubernetes.io/name": "gesso",
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/managed-by": "gesso-operator",
            "gesso.dev/service": service,
        }
        container = {"name": component, "image": "localhost/none:1"}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self._namespace, "labels": labels},
            "spec": {
                "containers": [container],
                "serviceAccountName": f"{service}-{component}",
                "automountServiceAccountToken": False,
            },
        }
        await self._api.create(body)
        running = {"ready": True, "restartCount": 0, "imageID": "", "state": {"running": {}}}
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "PodScheduled", "status": "True"},
            ],
            "containerStatuses": [{**container, **running}],
        }
        await self._api.patch("v1", "Pod", self._namespace, name, {"status": status}, "status")
