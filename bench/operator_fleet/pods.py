"""Pods that run already, as a kubelet would report them, for a cluster without a node."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubernetes import client, config


class Pods:
    """Makes and looks at objects through the API server."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        config.load_kube_config(kubeconfig)
        self._namespace = namespace
        self._core, self._custom = client.CoreV1Api(), client.CustomObjectsApi()

    def run(self, pods: list[tuple[str, str, str, str]]) -> None:
        """Makes pods (name, service, component, address) that are ready."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda pod: self._run(*pod), pods))

    def service(self, name: str) -> dict[str, Any]:
        """A DiffusionService as it is."""
        found: dict[str, Any] = self._custom.get_namespaced_custom_object(
            "gesso.dev", "v1alpha1", self._namespace, "diffusionservices", name
        )
        return found

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Changes a DiffusionService's spec."""
        self._custom.patch_namespaced_custom_object(
            "gesso.dev", "v1alpha1", self._namespace, "diffusionservices", name, {"spec": spec}
        )

    def _run(self, name: str, service: str, component: str, address: str) -> None:
        labels = {
            "app.kubernetes.io/name": "gesso",
            "app.kubernetes.io/component": component,
            "app.kubernetes.io/managed-by": "gesso-operator",
            "gesso.dev/service": service,
        }
        container = {"name": component, "image": "localhost/none:1"}
        body = {
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "containers": [container],
                "serviceAccountName": f"{service}-{component}",
                "automountServiceAccountToken": False,
            },
        }
        self._core.create_namespaced_pod(self._namespace, body)
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "PodScheduled", "status": "True"},
            ],
            "containerStatuses": [
                {
                    **container,
                    "ready": True,
                    "restartCount": 0,
                    "imageID": "",
                    "state": {"running": {}},
                }
            ],
        }
        self._core.patch_namespaced_pod_status(name, self._namespace, {"status": status})
