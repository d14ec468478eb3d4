"""Kubernetes' own types, as far as a DiffusionService carries them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from gesso.api.base import ApiModel

#: As Kubernetes has it: 500m, 2, 1.5Gi, 1e3.
QUANTITY_PATTERN = (
    r"^[+]?([0-9]+|[0-9]+[.][0-9]*|[.][0-9]+)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|[eE][+-]?[0-9]+)?$"
)


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


#: For the CRD: a quantity may be written as a number.
INT_OR_STRING: dict[str, JsonValue] = {"x-kubernetes-int-or-string": True}
Quantity = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(pattern=QUANTITY_PATTERN, max_length=64, json_schema_extra=INT_OR_STRING),
]
Name = Annotated[str, Field(min_length=1, max_length=253)]
LabelText = Annotated[str, Field(max_length=4096)]


class Resources(ApiModel):
    """What a container asks for and may use."""

    requests: dict[str, Quantity] = Field(
        default={}, max_length=16, description="What is kept free for it, by resource: `cpu: 500m`."
    )
    limits: dict[str, Quantity] = Field(
        default={},
        max_length=16,
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
