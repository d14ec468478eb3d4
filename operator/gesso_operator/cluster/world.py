"""What exists, as the watches tell it: services, their pods, and what else the operator owns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gesso_operator.cluster import names
from gesso_operator.cluster.names import Key
from gesso_operator.cluster.records import PodRecord, mark, pod_record

Body = Mapping[str, Any]


class World:
    """Kept by the watches' events; read by the services' loops. One event loop."""

    def __init__(self) -> None:
        """Empty."""
        self.services: dict[Key, Body] = {}
        self._pods: dict[Key, dict[str, PodRecord]] = {}
        self._marks: dict[tuple[str, Key], str] = {}
        self._listeners: list[Callable[[Key, bool], None]] = []

    def on_change(self, listener: Callable[[Key, bool], None]) -> None:
        """Has `listener` called with a service's key, and whether an owned object changed, at each change."""
        self._listeners.append(listener)

    def pods(self, service: Key, component: str) -> list[PodRecord]:
        """The pods of a component, in order of their number, then name."""
        found = [p for p in self._pods.get(service, {}).values() if p.component == component]
        return sorted(found, key=lambda p: (names.ordinal(p.name), p.name))

    def mark_of(self, kind: str, key: Key) -> str | None:
        """The mark of an owned object as last seen; None where there is none, or nobody looks at its kind."""
        return self._marks.get((kind, key))

    def service_event(self, kind: str | None, body: Body) -> None:
        """A DiffusionService came, changed or went; that its status did is nobody's business but ours."""
        key = _key(body)
        before = self.services.get(key)
        if kind == "DELETED":
            self.services.pop(key, None)
            self._pods.pop(key, None)
        else:
            self.services[key] = body
        if kind == "DELETED" or before is None or _asked(body) != _asked(before):
            self._tell(key, False)

    def pod_event(self, kind: str | None, body: Body) -> None:
        """A pod came, changed or went."""
        key, service = _key(body), _service_of(body)
        if service is None:
            return
        pods = self._pods.setdefault(service, {})
        before = pods.get(key.name)
        if kind == "DELETED":
            pods.pop(key.name, None)
        else:
            pods[key.name] = pod_record(body)
        if _without_labels(pods.get(key.name)) != _without_labels(before):
            self._tell(service, False)

    def owned_event(self, kind: str | None, body: Body) -> None:
        """Another owned object came, changed or went."""
        key, service = (str(body.get("kind")), _key(body)), _service_of(body)
        if service is None:
            return
        before = self._marks.get(key)
        if kind == "DELETED":
            self._marks.pop(key, None)
        else:
            self._marks[key] = mark(body)
        if self._marks.get(key) != before:
            self._tell(service, True)

    def _tell(self, service: Key, owned: bool) -> None:
        for listener in self._listeners:
            listener(service, owned)


def _asked(body: Body) -> tuple[object, ...]:
    """What a user wants of a service: it changes with the spec, or when it is to go."""
    meta = body["metadata"]
    return meta.get("uid"), meta.get("generation"), meta.get("deletionTimestamp")


def _without_labels(pod: PodRecord | None) -> PodRecord | None:
    """What is worth a look: the operator labels pods itself."""
    return None if pod is None else replace(pod, level="", model="")


def _key(body: Body) -> Key:
    meta = body["metadata"]
    return Key(meta["namespace"], meta["name"])


def _service_of(body: Body) -> Key | None:
    meta = body["metadata"]
    name = (meta.get("labels") or {}).get(names.LABEL_SERVICE)
    return Key(meta["namespace"], name) if name else None
