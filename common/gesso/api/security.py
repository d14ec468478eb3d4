"""Who may talk to a service and how: TLS between its parts, API keys of its clients."""

from __future__ import annotations

from typing import Annotated, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from gesso.api.base import ApiModel, detail, fault
from gesso.tls_names import SERVER_NAME

Path = Annotated[str, Field(min_length=1, max_length=4096)]
SecretName = Annotated[str, Field(min_length=1, max_length=253)]


TLS_SOMEWHERE = "secretName, or directory for a fleet on one machine, is needed"
KEY_ALLOWED = "the name of a key in the Secret, without /"
KEYS_SOMEWHERE = "secretName, or file for a fleet on one machine, is needed"
Part = TypeVar("Part", bound=ApiModel)


def _somewhere(part: Part, secret: str | None, path: str | None, allowed: str) -> Part:
    if secret is None and path is None:
        faults = [detail((), allowed, "neither")]
        raise ValidationError.from_exception_data(type(part).__name__, faults)
    return part


class TlsSpec(ApiModel):
    """TLS of everything that listens, with one certificate for all parts."""

    secret_name: SecretName | None = Field(
        default=None,
        description="Secret of type kubernetes.io/tls with `tls.crt`, `tls.key` and `ca.crt`, as cert-manager "
        "writes it, in the service's namespace. Needed in a cluster; changes are taken up without a restart.",
    )
    directory: Path | None = Field(
        default=None, description="The same as files in a folder, for a fleet on one machine."
    )
    mutual: bool = Field(
        default=True,
        description="Whether workers, and the port by which a router is controlled, let in only who has a "
        "certificate of the same authority. Clients of the images API need none.",
    )
    server_name: str = Field(
        default=SERVER_NAME,
        min_length=1,
        max_length=253,
        description="Name that the certificate is made out to, beside those that clients use.",
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        return _somewhere(self, self.secret_name, self.directory, TLS_SOMEWHERE)


class KeysSpec(ApiModel):
    """API keys that clients of the images API must bring."""

    secret_name: SecretName | None = Field(
        default=None,
        description="Secret with the file of keys, in the service's namespace. Needed in a cluster.",
    )
    key: str = Field(
        default="keys.yaml",
        min_length=1,
        max_length=253,
        description="Key in the Secret.",
    )
    file: Path | None = Field(
        default=None, description="The same as a file, for a fleet on one machine."
    )

    @field_validator("key")
    @classmethod
    def _no_path(cls, value: str) -> str:
        if "/" in value:
            raise fault(KEY_ALLOWED, value)
        return value

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        return _somewhere(self, self.secret_name, self.file, KEYS_SOMEWHERE)


class SecuritySpec(ApiModel):
    """Who may talk to the service, and how. Absent parts are open to whoever reaches them."""

    tls: TlsSpec | None = Field(default=None, description="TLS between the parts and to clients.")
    keys: KeysSpec | None = Field(
        default=None,
        description="API keys of clients, with tenant and rate limit each. Absent: everybody may ask, and say "
        "which tenant they are.",
    )

    @property
    def on(self) -> bool:
        """Whether anything is guarded."""
        return self.tls is not None or self.keys is not None
