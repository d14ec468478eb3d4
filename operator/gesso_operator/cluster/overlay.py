"""Merges a user's partial pod template over the operator's; pure.

As Kubernetes' strategic merge: maps are merged, lists whose items have a name (containers, env, volumes, ports)
by that name, mounts by their path, other lists replaced. A null removes what it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What tells the items of a list apart, by the list's field.
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "ports": "containerPort",
    "topologySpreadConstraints": "topologyKey",
}


def merged(base: Any, over: Any, field: str = "") -> Any:
    """`over` laid over `base`; neither is changed. `field` is the name under which they stand."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        found = dict(base)
        for name, value in over.items():
            if value is None:
                found.pop(name, None)
            else:
                found[name] = merged(base[name], value, name) if name in base else value
        return found
    if _is_list(base) and _is_list(over) and field in _KEYS:
        return _by_key(base, over, _KEYS[field])
    return over


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _by_key(base: Sequence[Any], over: Sequence[Any], key: str) -> list[Any]:
    """Items of `base` in their order, merged with those of the same key, then what is new."""
    if not all(isinstance(item, Mapping) and key in item for item in (*base, *over)):
        return list(over)
    laid = {item[key]: item for item in over}
    found = [merged(item, laid.pop(item[key], {})) for item in base]
    return found + list(laid.values())
