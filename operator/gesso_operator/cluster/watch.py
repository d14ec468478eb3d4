"""The watches, by kopf: each event goes into the `World`; nothing else happens in a handler.

No handler writes, so that kopf adds neither finalizers nor annotations of its own, and none waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

import kopf

from gesso_operator.cluster import names
from gesso_operator.cluster.api import credentials
from gesso_operator.cluster.world import Body, World

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


class Sink(Protocol):
    """Where events go."""

    def service_event(self, kind: str | None, body: Body) -> None:
        """A DiffusionService came, changed or went."""

    def pod_event(self, kind: str | None, body: Body) -> None:
        """A pod came, changed or went."""

    def owned_event(self, kind: str | None, body: Body) -> None:
        """Another owned object came, changed or went."""


class _ForEver:
    """Seconds between tries: an API server that is away comes back, however long it takes."""

    def __iter__(self) -> Iterator[float]:
        seconds = 0.5
        while True:
            yield seconds
            seconds = min(_LONGEST_BACKOFF_S, 2 * seconds)


def registry(world: Sink) -> kopf.OperatorRegistry:
    """Handlers of every watch."""
    found = kopf.OperatorRegistry()

    @kopf.on.startup(registry=found)
    async def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)

    @kopf.on.login(registry=found)
    def _login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo:
        return credentials(settings)

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
    # A list of all pods at once would be most of the memory that is ever needed.
    settings.watching.chunk_size = 100
    settings.queueing.idle_timeout = 1.0
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = _ForEver()
    # Neither namespaces nor CRDs are looked at: a CRD that goes ends the watches, and the process with them.
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.persistence.finalizer = f"{names.GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    selector = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"
    for _, _, plural in (("", "v1", "pods"), *OWNED):
        settings.watching.label_selectors[plural] = selector


class Watches:
    """kopf in a thread and an event loop of its own.

    It takes the signals of the main thread's loop, and at its end cancels every task that began after it: both
    are its own there. Events come over to the loop that began it.
    """

    def __init__(self, world: World, namespaces: Collection[str]) -> None:
        """Must be made inside the event loop that owns the world. Watches nothing yet."""
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop, self._namespaces = loop, tuple(namespaces)
        self._registry = registry(_Handing(world, loop))
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    @property
    def open(self) -> bool:
        """Whether what exists has been listed."""
        return self._ready.is_set()

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    async def stop(self) -> None:
        """Ends the watches; waits a little."""
        self._stop.set()
        await asyncio.wait({self.ended}, timeout=5.0)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(
                kopf.operator(
                    registry=self._registry,
                    clusterwide=not self._namespaces,
                    namespaces=self._namespaces,
                    standalone=True,
                    stop_flag=self._stop,
                    ready_flag=self._ready,
                )
            )
        except BaseException as failure:
            error = failure
        # The loop is gone where nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        if error is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)


class _Handing:
    """Hands events over to the loop that owns the world, in their order."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop) -> None:
        self._world, self._loop = world, loop

    def service_event(self, kind: str | None, body: Body) -> None:
        self._loop.call_soon_threadsafe(self._world.service_event, kind, body)

    def pod_event(self, kind: str | None, body: Body) -> None:
        self._loop.call_soon_threadsafe(self._world.pod_event, kind, body)

    def owned_event(self, kind: str | None, body: Body) -> None:
        self._loop.call_soon_threadsafe(self._world.owned_event, kind, body)
