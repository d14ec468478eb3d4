"""Why there is no image."""

from __future__ import annotations

import grpc


class GenerateError(Exception):
    """A request that ended without an image; `code` is gRPC's."""

    def __init__(
        self, message: str, code: grpc.StatusCode, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        #: When it is worth trying again; None if nothing is known of that.
        self.retry_after_seconds = retry_after_seconds


class InvalidRequestError(GenerateError):
    """The request is malformed: the message names field, value and what is allowed."""


class UnauthenticatedError(GenerateError):
    """No API key, or one that is not known."""


class RefusedError(GenerateError):
    """No room, no time, or more than this key's rate: see `retry_after_seconds`."""


class LateError(GenerateError):
    """Accepted, but not served in time."""


class UnavailableError(GenerateError):
    """No router answers, no worker is ready, or none could serve it."""


_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.ALREADY_EXISTS: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RefusedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: LateError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}


def error_of(error: grpc.RpcError) -> GenerateError:
    """The same in the client's own words."""
    code = getattr(error, "code", lambda: grpc.StatusCode.UNKNOWN)()
    details = str(getattr(error, "details", lambda: "")() or code.name)
    metadata = dict(getattr(error, "trailing_metadata", lambda: ())() or ())
    millis = metadata.get("retry-after-ms")
    seconds = float(millis) / 1000 if millis is not None else None
    return _BY_CODE.get(code, GenerateError)(details, code, seconds)
