"""The watches, by kopf: each event goes into the `World`; nothing else happens in a handler.

No handler writes, so that kopf adds neither finalizers nor annotations of its own, and none waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import kopf

from gesso_operator.cluster import names
from gesso_operator.cluster.world import World

#: A watch that is silent for so long is opened again: the API server sends bookmarks each minute.
SILENCE_S = 70.0
#: A watch is opened anew after so long in any case.
LONGEST_WATCH_S = 600
_LONGEST_BACKOFF_S = 8.0

#: What the operator owns and looks at, besides pods: (group, version, plural).
OWNED = (
    ("", "v1", "configmaps"),
    ("", "v1", "services"),
    ("apps", "v1", "statefulsets"),
    ("apps", "v1", "deployments"),
)


class _ForEver:
    """Seconds between tries: an API server that is away comes back, however long it takes."""

    def __iter__(self) -> Iterator[float]:
        seconds = 0.5
        while True:
            yield seconds
            seconds = min(_LONGEST_BACKOFF_S, 2 * seconds)


def registry(world: World) -> kopf.OperatorRegistry:
    """Handlers of every watch."""
    found = kopf.OperatorRegistry()

    @kopf.on.startup(registry=found)
    async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)

    @kopf.on.login(registry=found)
    def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=found)
    async def _service(event: Mapping[str, Any], **_: Any) -> None:
        world.service_event(event["type"], event["object"])

    @kopf.on.event("", "v1", "pods", registry=found)
    async def _pod(event: Mapping[str, Any], **_: Any) -> None:
        world.pod_event(event["type"], event["object"])

    for group, version, plural in OWNED:

        @kopf.on.event(group, version, plural, registry=found, id=f"owned-{plural}")
        async def _owned(event: Mapping[str, Any], **_: Any) -> None:
            world.owned_event(event["type"], event["object"])

    return found


def configure(settings: kopf.OperatorSettings) -> None:
    """Deadlines, and a selector, so that only what the operator owns is sent to it."""
    settings.watching.inactivity_timeout = SILENCE_S
    settings.watching.server_timeout = LONGEST_WATCH_S
    settings.watching.client_timeout = LONGEST_WATCH_S + SILENCE_S
    settings.watching.connect_timeout = 10.0
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = _ForEver()
    settings.posting.enabled = False
    settings.persistence.finalizer = f"{names.GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    selector = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"
    for _, _, plural in (("", "v1", "pods"), *OWNED):
        settings.watching.label_selectors[plural] = selector


async def watch(
    world: World, namespaces: Collection[str], stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """Watches until told to stop. Raises what kopf cannot go on from."""
    await kopf.operator(
        registry=registry(world),
        clusterwide=not namespaces,
        namespaces=tuple(namespaces),
        standalone=True,
        stop_flag=stop,
        ready_flag=ready,
    )
