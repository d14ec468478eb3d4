"""Kubernetes' own types, as far as a DiffusionService carries them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator

from gesso.api.base import PATTERNS, QUANTITY, ApiModel, fault

#: Labels by which the operator finds a pod, and Gesso's own: not a pod template's to set.
OWN_PREFIX = "gesso.dev/"
OWN_KEYS = tuple(
    f"app.kubernetes.io/{part}" for part in ("name", "instance", "component", "managed-by")
)
OWN_KEYS_ALLOWED = (
    f"any key but those of Gesso, which are {OWN_PREFIX}* and app.kubernetes.io/name, instance, component and "
    "managed-by"
)


def whole_as_text(value: object) -> object:
    """A quantity that is written as a whole number, as text. A fraction needs quotes, as the API server has
    it.
    """
    if isinstance(value, float):
        raise fault(PATTERNS[QUANTITY], value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


#: For the CRD: a quantity may be written as a number.
INT_OR_STRING: dict[str, JsonValue] = {"x-kubernetes-int-or-string": True}
Quantity = Annotated[
    str,
    Field(pattern=QUANTITY, max_length=64, json_schema_extra=INT_OR_STRING),
    BeforeValidator(whole_as_text),
]
Name = Annotated[str, Field(min_length=1, max_length=253)]
LabelText = Annotated[str, Field(max_length=4096)]


class Resources(ApiModel):
    """What a container asks for and may use."""

    requests: dict[str, Quantity] = Field(
        default={}, max_length=8, description="What is kept free for it, by resource: `cpu: 500m`."
    )
    limits: dict[str, Quantity] = Field(
        default={},
        max_length=8,
        description="What it may use at most, by resource: `memory: 16Gi`, `nvidia.com/gpu: 1`.",
    )


class Toleration(ApiModel):
    """A taint of nodes that pods put up with, as in a pod's spec."""

    key: str | None = Field(
        default=None, max_length=316, description="The taint's key; absent: any."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="`Equal` (the default) compares the value, `Exists` does not."
    )
    value: str | None = Field(default=None, max_length=63, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; absent: any."
    )
    toleration_seconds: int | None = Field(
        default=None, description="For `NoExecute`: how long the pod stays; absent: for ever."
    )


class PodMetadata(ApiModel):
    """Labels and annotations of pods."""

    labels: dict[str, LabelText] = Field(default={}, max_length=64, description="Further labels.")
    annotations: dict[str, LabelText] = Field(
        default={}, max_length=64, description="Further annotations."
    )

    @field_validator("labels", "annotations")
    @classmethod
    def _not_our_own(cls, value: dict[str, str]) -> dict[str, str]:
        own = [key for key in value if key.startswith(OWN_PREFIX) or key in OWN_KEYS]
        if own:
            raise fault(OWN_KEYS_ALLOWED, own)
        return value


class PodTemplate(ApiModel):
    """What pods are to have besides what Gesso gives them, laid over it: maps are merged, containers,
    environment variables and volumes by their name, mounts by their path, other lists are replaced.
    """

    metadata: PodMetadata = Field(default=PodMetadata(), description="Labels and annotations.")
    spec: dict[str, Any] = Field(
        default={},
        description="Part of a pod's spec, as Kubernetes has it; the containers are named `router` and "
        "`worker`.",
    )


class SecretKey(ApiModel):
    """One key of a Secret in the service's namespace."""

    name: Name = Field(description="The Secret's name.")
    key: Name = Field(default="token", description="The key in it.")


class Storage(ApiModel):
    """A volume that is claimed for each pod."""

    size: Quantity = Field(description="Its size, as a quantity: `20Gi`.")
    storage_class_name: str | None = Field(
        default=None,
        max_length=253,
        description="Its storage class; absent: the cluster's default.",
    )
