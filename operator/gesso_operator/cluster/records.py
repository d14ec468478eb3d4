"""What the operator keeps of pods and other objects: small frozen records, read from the API's; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gesso_operator.cluster import names

Body = Mapping[str, Any]
_LONGEST = 300
#: What Kubernetes says of a container that waits, as conditions tell it.
_WAITING = {
    "ImagePullBackOff": "ImagePullFailed",
    "ErrImagePull": "ImagePullFailed",
    "InvalidImageName": "ImagePullFailed",
    "ErrImageNeverPull": "ImagePullFailed",
    "CreateContainerConfigError": "BadContainerConfig",
    "CreateContainerError": "BadContainerConfig",
    "RunContainerError": "BadContainerConfig",
    "CrashLoopBackOff": "Crashing",
}


@dataclass(frozen=True)
class PodRecord:
    """One pod of a service. `reason` and `message` tell what keeps it from serving, if anything does; when it
    was created, and ready or not as it is now, is in ISO 8601.
    """

    name: str
    component: str
    uid: str = ""
    ip: str = ""
    ready: bool = False
    deleting: bool = False
    restarts: int = 0
    level: str = ""
    model: str = ""
    reason: str = ""
    message: str = ""
    created: str = ""
    ready_since: str = ""

    @property
    def stuck(self) -> bool:
        """Whether it will not come up unless somebody does something."""
        return bool(self.reason) and self.reason != "Restarting"


def pod_record(body: Body) -> PodRecord:
    """The record of a Pod."""
    meta, status = body.get("metadata") or {}, body.get("status") or {}
    labels = meta.get("labels") or {}
    containers = status.get("containerStatuses") or []
    reason, message = _trouble(status, containers)
    ready = _condition(status, "Ready")
    return PodRecord(
        name=meta["name"],
        component=labels.get(names.LABEL_COMPONENT, ""),
        uid=meta.get("uid", ""),
        ip=status.get("podIP") or "",
        ready=ready.get("status") == "True",
        deleting=bool(meta.get("deletionTimestamp")),
        restarts=sum(int(c.get("restartCount") or 0) for c in containers),
        level=labels.get(names.LABEL_LEVEL, ""),
        model=labels.get(names.LABEL_MODEL, ""),
        reason=reason,
        message=message[:_LONGEST],
        created=meta.get("creationTimestamp") or "",
        ready_since=ready.get("lastTransitionTime") or "",
    )


def _trouble(status: Body, containers: list[Body]) -> tuple[str, str]:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        told = str(scheduled.get("message") or "no node takes it")
        short = "nvidia.com/gpu" in told or "amd.com/gpu" in told or "gpu.intel.com" in told
        return ("InsufficientGPU" if short else "Unschedulable"), told
    for container in containers:
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting, ended = state.get("waiting"), state.get("terminated") or last.get("terminated")
        if waiting and waiting.get("reason") in _WAITING:
            reason = _WAITING[waiting["reason"]]
            told = str(waiting.get("message") or waiting["reason"])
            if reason == "Crashing" and ended:
                told = _last_words(ended) or told
            if reason == "BadContainerConfig" and "secret" in told.lower():
                reason = "SecretMissing"
            return reason, told
        if ended and not container.get("ready") and int(ended.get("exitCode") or 0):
            return "Restarting", _last_words(ended)
    return "", ""


def _last_words(ended: Body) -> str:
    """The last line that a process wrote before it ended."""
    lines = [line for line in str(ended.get("message") or "").splitlines() if line.strip()]
    said = lines[-1].strip() if lines else str(ended.get("reason") or "")
    return f"exit code {ended.get('exitCode')}: {said}"


def _condition(status: Body, kind: str) -> Body:
    found: Body = next((c for c in status.get("conditions") or [] if c.get("type") == kind), {})
    return found


def mark(body: Body) -> str:
    """Changes when somebody changes what an object should be; not, where that shows, when its status does."""
    meta = body.get("metadata") or {}
    return f"{meta.get('uid')} {meta.get('generation') or meta.get('resourceVersion')}"
