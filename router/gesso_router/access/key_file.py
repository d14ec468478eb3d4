"""The file of API keys: who calls, for which tenant, how often; keys as their SHA-256, or in plain."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from gesso.yaml_input import document_of

#: Bytes; 10,000 keys take about 2 MB.
MAX_FILE_BYTES = 4 * 2**20
_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_PLAIN = re.compile(r"[\x21-\x7e]{16,256}\Z")
Name = Annotated[str, Field(pattern=_NAME)]


class KeyFileError(ValueError):
    """The file cannot be used; the message says why, and holds no key."""


class UnreadableKeyFileError(KeyFileError):
    """The file cannot be opened or read: it may be so later, and be the same."""


class ApiKey(BaseModel):
    """One key. Rates count images; absent: as many as the fleet can make."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
    )

    name: Name
    tenant: Name = "default"
    key: str | None = Field(default=None, repr=False)
    sha256: str | None = Field(default=None, repr=False)
    images_per_minute: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)
    burst: int | None = Field(default=None, ge=1, le=100_000)

    @model_validator(mode="after")
    def _one_of_two(self) -> ApiKey:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("exactly one of key and sha256 is needed")
        if self.key is not None and not _PLAIN.match(self.key):
            raise ValueError("key: 16 to 256 printable ASCII characters without spaces are needed")
        if self.sha256 is not None and not _HASH.match(self.sha256):
            raise ValueError("sha256: 64 hexadecimal digits in lower case are needed")
        if self.burst is not None and self.images_per_minute is None:
            raise ValueError("burst: is of no use without imagesPerMinute")
        return self

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key."""
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        assert self.key is not None
        return hashlib.sha256(self.key.encode()).digest()

    @property
    def bucket(self) -> tuple[float, float] | None:
        """Images per second, and how many at once; a burst is half a minute's, if the file names none."""
        if self.images_per_minute is None:
            return None
        burst = self.burst or max(10.0, self.images_per_minute / 2)
        return self.images_per_minute / 60, float(burst)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    keys: tuple[ApiKey, ...] = Field(max_length=10_000)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of a file's text, YAML or JSON: `keys: [{name, tenant, key|sha256, imagesPerMinute, burst}]`.

    Raises KeyFileError.
    """
    try:
        content = document_of(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise KeyFileError(f"not YAML{where}") from None
    except RecursionError:
        raise KeyFileError("nested too deep") from None
    try:
        keys = _File.model_validate(content).keys
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the file"
        raise KeyFileError(f"{where}: {fault['msg']}") from None
    for what, values in (("name", [k.name for k in keys]), ("key", [k.digest for k in keys])):
        if len(set(values)) < len(values):
            raise KeyFileError(f"keys: two have the same {what}")
    return keys


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The same of a file. Raises KeyFileError, also where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise KeyFileError(f"larger than {MAX_FILE_BYTES} bytes")
        return parse_keys(data.decode())
    except OSError as error:
        raise UnreadableKeyFileError(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise KeyFileError("not UTF-8") from None
