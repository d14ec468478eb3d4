"""How a request can end without an image; each front door maps these to its own statuses."""

from __future__ import annotations

import enum


class Ending(enum.Enum):
    """Why there is no image."""

    INVALID = "invalid"  # the request is malformed: the client's to mend
    UNKNOWN_CALLER = "unknown-caller"  # it brings no key, or one that is not known
    FORBIDDEN = "forbidden"  # its key does not allow this
    CONFLICT = "conflict"  # its idempotency key stands for another request
    SHED = "shed"  # refused at once: no room, no time, or more than the caller's rate
    UNAVAILABLE = "unavailable"  # no worker is there, or none could serve it after the retry
    DEADLINE = "deadline"  # accepted, but not served in time


class RequestError(Exception):
    """A request that ends without an image.

    `reason` is a stable word for machines, `param` the field at fault (INVALID only),
    `retry_after_seconds` when it is worth trying again.
    """

    def __init__(
        self,
        ending: Ending,
        reason: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.ending = ending
        self.reason = reason
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    @property
    def kind(self) -> str:
        """What a trace calls it."""
        return self.reason
