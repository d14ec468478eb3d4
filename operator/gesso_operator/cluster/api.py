"""The Kubernetes API as the operator needs it: a few verbs on objects as plain mappings, each with a deadline.

Over aiohttp, with kopf's credentials: the official client would be a tenth of the operator's memory. Objects
stay mappings: they are made from typed builders, and the API server checks them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import aiohttp
import kopf

from gesso_operator.cluster.names import API_VERSION, MANAGER, Key

DEADLINE_S = 10.0
_CONNECTIONS = 32
_TOKEN_SECONDS = 300.0
#: Objects of a page of a list.
_PAGE = 500
#: Of objects their metadata only: a list of whole pods would be most of the memory that is ever needed.
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
Object = dict[str, Any]

#: Plural names by apiVersion and kind.
PLURALS: Mapping[tuple[str, str], str] = {
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("v1", "Pod"): "pods",
    ("apps/v1", "Deployment"): "deployments",
    ("apps/v1", "StatefulSet"): "statefulsets",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("monitoring.coreos.com/v1", "PodMonitor"): "podmonitors",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("events.k8s.io/v1", "Event"): "events",
    (API_VERSION, "DiffusionService"): "diffusionservices",
}


class ApiError(Exception):
    """What the API server answered other than success, or why it did not. `status` 0: it was not reached."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """`reason` is the machine-readable one of Kubernetes' Status."""
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status, self.reason, self.message = status, reason, message

    @property
    def owner_unknown(self) -> bool:
        """Whether the API server has yet to learn of an owner's kind.

        Where it checks owners (OwnerReferencesPermissionEnforcement) it lists kinds every 30 s only, and
        answers so until then.
        """
        return self.status == 403 and "cannot find RESTMapping" in self.message


def path_of(api_version: str, kind: str, namespace: str, name: str = "", sub: str = "") -> str:
    """The URL path of an object, or of its kind's list. Raises KeyError on a kind that is not known."""
    plural = PLURALS[api_version, kind]
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{inside}/{plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")


class NoClusterError(Exception):
    """Nothing says where an API server is."""


def credentials(settings: kopf.OperatorSettings | None = None) -> kopf.ConnectionInfo:
    """Where the API server is and how to be let in: in the cluster by the pod's account, else by KUBECONFIG.

    Raises NoClusterError. An account's token is exchanged while it is valid: ask again now and then.
    """
    told = settings or kopf.OperatorSettings()
    try:
        found = kopf.login_with_service_account(settings=told) or kopf.login_with_kubeconfig(
            settings=told
        )
    except (OSError, kopf.LoginError, KeyError, AttributeError, ValueError) as error:
        raise NoClusterError(f"KUBECONFIG cannot be used: {error}") from None
    if found is None or not found.server:
        raise NoClusterError("neither a service account in a pod nor KUBECONFIG")
    return found


class Api:
    """One connection pool to the API server. Close it when done."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        """Opens nothing yet."""
        self._deadline_s = deadline_s
        self._info: kopf.ConnectionInfo | None = None
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[str, str] = {}
        self._asked_s = 0.0

    async def connect(self) -> None:
        """Finds out where the API server is. Raises NoClusterError."""
        info = credentials()
        try:
            context = info.as_ssl_context()
        except (OSError, ValueError) as error:
            raise NoClusterError(f"the certificates cannot be used: {error}") from None
        self._info = info
        self._headers, self._asked_s = info.as_http_headers(), time.monotonic()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=_CONNECTIONS)
        )

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """The object; None where there is none. Raises ApiError."""
        try:
            return await self.call("GET", path_of(api_version, kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def names(
        self, api_version: str, kind: str, namespace: str = "", selector: str = ""
    ) -> set[Key]:
        """What there is of a kind, in all namespaces where none is named; `selector` is of labels.

        Raises ApiError, also where the list is too old to be read to its end.
        """
        found: set[Key] = set()
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            path = f"{path_of(api_version, kind, namespace)}?{urlencode(query)}"
            page = await self.call("GET", path, accept=_METADATA)
            for item in page.get("items") or ():
                meta = item["metadata"]
                found.add(Key(meta["namespace"], meta["name"]))
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return found

    async def serves(self, group_version: str) -> bool:
        """Whether the API server knows a group and version. Raises ApiError."""
        try:
            await self.call("GET", f"/apis/{group_version}")
        except ApiError as error:
            if error.status in (403, 404):
                return False
            raise
        return True

    async def apply(self, body: Mapping[str, Any]) -> Object:
        """Server-side apply as the operator's field manager; what others own and this sets is taken over."""
        meta = body["metadata"]
        path = path_of(body["apiVersion"], body["kind"], meta["namespace"], meta["name"])
        return await self.call(
            "PATCH",
            f"{path}?fieldManager={MANAGER}&force=true",
            dict(body),
            "application/apply-patch+yaml",
        )

    async def patch(
        self, api_version: str, kind: str, namespace: str, name: str, body: Object, sub: str = ""
    ) -> Object:
        """A JSON merge patch of an object or of a subresource of it. Raises ApiError."""
        path = path_of(api_version, kind, namespace, name, sub)
        return await self.call(
            "PATCH", f"{path}?fieldManager={MANAGER}", body, "application/merge-patch+json"
        )

    async def create(self, body: Mapping[str, Any]) -> Object:
        """Creates an object. Raises ApiError."""
        path = path_of(body["apiVersion"], body["kind"], body["metadata"]["namespace"])
        return await self.call("POST", f"{path}?fieldManager={MANAGER}", dict(body))

    async def replace(self, body: Mapping[str, Any]) -> Object:
        """Replaces an object of the same resourceVersion. Raises ApiError (409 where it has changed)."""
        meta = body["metadata"]
        path = path_of(body["apiVersion"], body["kind"], meta["namespace"], meta["name"])
        return await self.call("PUT", f"{path}?fieldManager={MANAGER}", dict(body))

    async def delete(self, api_version: str, kind: str, namespace: str, name: str) -> None:
        """Deletes an object; that there is none is fine. Raises ApiError."""
        try:
            await self.call("DELETE", path_of(api_version, kind, namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """One request. Raises ApiError, also when the deadline passes or nobody answers."""
        if self._session is None or self._info is None:
            raise ApiError(0, "NotConnected", "the API server's address is not known yet")
        self._renew()
        headers = {**self._headers, "Accept": accept, "Content-Type": content}
        text = None if body is None else json.dumps(body)
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._session.request(
                    method, f"{self._info.server}{path}", data=text, headers=headers
                ) as response,
            ):
                data = await response.read()
        except TimeoutError:
            raise ApiError(0, "Timeout", f"no answer within {self._deadline_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, "Unreachable", f"the API server is not reached: {error}") from None
        try:
            found: Object = json.loads(data) if data else {}
        except ValueError:
            found = {}
        if response.status >= 400:
            raise ApiError(
                response.status,
                str(found.get("reason") or response.reason or "Error"),
                str(found.get("message") or data[:200].decode("utf-8", "replace")),
            )
        return found

    def _renew(self) -> None:
        """Reads the account's token again now and then: Kubernetes exchanges it before it ends."""
        now = time.monotonic()
        if now - self._asked_s > _TOKEN_SECONDS:
            self._asked_s = now
            with suppress(NoClusterError):
                self._headers = credentials().as_http_headers()
