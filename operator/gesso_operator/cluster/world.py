"""What exists, as the watches tell it: services, their pods, and what else the operator owns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gesso_operator.cluster import names
from gesso_operator.cluster.names import Key
from gesso_operator.cluster.records import PodRecord, mark, pod_record

Body = Mapping[str, Any]
#: An object by its kind and key.
Thing = tuple[str, Key]


class World:
    """Kept by the watches' events; read by the services' loops. One event loop."""

    def __init__(self) -> None:
        """Empty."""
        self.services: dict[Key, Body] = {}
        self._pods: dict[Key, dict[str, PodRecord]] = {}
        self._marks: dict[Thing, str] = {}
        self._owners: dict[Thing, Key] = {}
        #: How often something that was known has been listed again: what went meanwhile is told by nobody.
        self.relisted = 0
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

    def known(self) -> dict[Thing, str]:
        """All that is known to exist, with what tells it from another of its name."""
        found = {(names.KIND, k): _uid(b) for k, b in self.services.items()}
        for service, pods in self._pods.items():
            found |= {("Pod", Key(service.namespace, n)): p.uid for n, p in pods.items()}
        return found | self._marks

    def gone(self, thing: Thing) -> None:
        """Something that was known is not there any more, though no watch told."""
        kind, key = thing
        meta: dict[str, Any] = {"namespace": key.namespace, "name": key.name}
        if kind == names.KIND:
            self.service_event("DELETED", {"metadata": meta})
            return
        if kind == "Pod":
            near = (s for s, pods in self._pods.items() if key.name in pods)
            service = next((s for s in near if s.namespace == key.namespace), None)
        else:
            service = self._owners.get(thing)
        if service is None:
            return
        body = {"kind": kind, "metadata": meta | {"labels": {names.LABEL_SERVICE: service.name}}}
        (self.pod_event if kind == "Pod" else self.owned_event)("DELETED", body)

    def service_event(self, kind: str | None, body: Body) -> None:
        """A DiffusionService came, changed or went; that its status did is nobody's business but ours."""
        key = _key(body)
        before = self.services.get(key)
        if before is not None and kind != "DELETED":
            self.relisted += kind is None
            if _uid(before) != _uid(body):
                # Another of its name: the watch was away while one went and the next came.
                del self.services[key]
                self._tell(key, False)
                before = None
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
        self.relisted += kind is None and before is not None
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
        self.relisted += kind is None and before is not None
        if kind == "DELETED":
            self._marks.pop(key, None)
            self._owners.pop(key, None)
        else:
            self._marks[key], self._owners[key] = mark(body), service
        if self._marks.get(key) != before:
            self._tell(service, True)

    def _tell(self, service: Key, owned: bool) -> None:
        for listener in self._listeners:
            listener(service, owned)


def _asked(body: Body) -> tuple[object, ...]:
    """What a user wants of a service: it changes with the spec, or when it is to go."""
    meta = body["metadata"]
    return meta.get("uid"), meta.get("generation"), meta.get("deletionTimestamp")


def _uid(body: Body) -> str:
    return str(body["metadata"].get("uid", ""))


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
