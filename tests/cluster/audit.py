"""What an account has asked the API server for, and what it may: no right is granted that no test uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: (API group, resource or resource/subresource, verb).
Right = tuple[str, str, str]

#: Requests of service accounts, without their bodies.
POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


def used(log: Path, account: str) -> set[Right]:
    """The rights that `namespace:name` has used so far. Applying what is not there uses `create` too."""
    found: set[Right] = set()
    for right, code in _asked(log, account):
        if code != 403:
            found.add(right)
        if right[2] == "patch" and code == 201:
            found.add((*right[:2], "create"))
    return found


def refused(log: Path, account: str) -> set[Right]:
    """The rights that it has wanted for."""
    return {right for right, code in _asked(log, account) if code == 403}


def granted(roles: list[dict[str, Any]]) -> set[Right]:
    """What Roles and ClusterRoles allow."""
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _asked(log: Path, account: str) -> Iterator[tuple[Right, int]]:
    """What it has asked for, and the status of the answer."""
    for line in log.read_text().splitlines():
        event = json.loads(line)
        asked = event.get("objectRef") or {}
        if event["user"]["username"] != f"system:serviceaccount:{account}" or not asked:
            continue
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        code = (event.get("responseStatus") or {}).get("code", 0)
        yield (asked.get("apiGroup", ""), resource, event["verb"]), code
