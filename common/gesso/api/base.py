"""What every type of the API shares: camelCase on the wire, frozen, unknown fields refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

GROUP = "gesso.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DiffusionService"

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DnsLabel = Annotated[str, Field(pattern=DNS_LABEL)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ApiModel(BaseModel):
    """Base of all API types. Written and read with camelCase names; built in Python with either."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=False,
    )


def fault(allowed: str, value: object) -> PydanticCustomError:
    """A value that is not allowed: what is."""
    return PydanticCustomError(
        "not_allowed", "{allowed}", {"allowed": allowed, "value": str(value)}
    )


def detail(loc: tuple[int | str, ...], allowed: str, value: object) -> InitErrorDetails:
    """The same at a place, for faults across fields."""
    return InitErrorDetails(type=fault(allowed, value), loc=loc, input=value)
