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
DnsLabel = Annotated[str, Field(pattern=DNS_LABEL, max_length=63)]
#: Pods of NAME-worker carry its name and a hash of ten characters in a label, which may have 63.
SERVICE_NAME = r"^[a-z]([-a-z0-9]{0,43}[a-z0-9])?$"
#: As Kubernetes has it: 500m, 2, 1.5Gi, 1e3.
QUANTITY = r"^[+]?([0-9]+|[0-9]+[.][0-9]*|[.][0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$"
#: Host and port of a collector, without path, user or password.
COLLECTOR = r"^https?://([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$"
#: What is allowed by each pattern, in words.
PATTERNS = {
    DNS_LABEL: "a DNS label: a-z, 0-9 and -, at most 63 characters",
    SERVICE_NAME: "a DNS label that begins with a letter: a-z, 0-9 and -, at most 45 characters",
    QUANTITY: "a quantity such as 500m, 2 or 1.5Gi; with a fraction, in quotes",
    COLLECTOR: "http://HOST:PORT or https://HOST:PORT, without path, user or password",
}
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
