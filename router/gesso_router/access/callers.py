"""Tells who calls by their API key, holds each to its rate, and takes up the file of keys as it changes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gesso.files import Stamp, stamp_of
from gesso_router.access.key_file import ApiKey, KeyFileError, UnreadableKeyFileError, read_keys
from gesso_router.access.limits import Bucket
from gesso_router.errors import Ending, RequestError
from gesso_router.validation import Job

log = logging.getLogger(__name__)

#: Between two looks at the file.
WATCH_S = 1.0
#: Where a caller's users have tenants of their own, within its tenant.
MAX_USER_BYTES = 64


@dataclass(frozen=True)
class Caller:
    """Who a request comes from: the names of its key and tenant, both empty where no keys are asked for."""

    name: str = ""
    tenant: str = ""

    def owns(self, job: Job) -> Job:
        """The job as this caller's: what it calls its tenant is one within the caller's own.

        Raises RequestError (INVALID) where that is too long.
        """
        if not self.name:
            return job
        if len(job.tenant.encode()) > MAX_USER_BYTES:
            message = (
                f"user: {len(job.tenant.encode())} bytes is not allowed: at most {MAX_USER_BYTES}"
            )
            raise RequestError(Ending.INVALID, "invalid_value", message, param="user")
        tenant = f"{self.tenant}/{job.tenant}" if job.tenant else self.tenant
        return replace(job, tenant=tenant, owner=self.tenant)


ANYBODY = Caller()


class Callers:
    """Of one router; without a file, everybody may call. Lives on one event loop."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeyFileError if the file cannot be used."""
        self._path = path
        self._clock = clock
        self._keys: tuple[tuple[bytes, ApiKey], ...] = ()
        self._buckets: dict[str, Bucket] = {}
        self._stamp: Stamp | None = None
        #: The last fault that was told, and of which file.
        self._told: tuple[Stamp | None, str] | None = None
        if path is not None:
            self._stamp = stamp_of(path)
            self._take(read_keys(path))

    @property
    def open(self) -> bool:
        """Whether anybody may call."""
        return self._path is None

    def of(self, authorization: str | None) -> Caller:
        """Who brings this `Authorization`: `Bearer KEY`, or `Basic` with the key for a password.

        Raises RequestError (UNKNOWN_CALLER).
        """
        if self.open:
            return ANYBODY
        key = _presented(authorization)
        if key is None:
            raise RequestError(
                Ending.UNKNOWN_CALLER,
                "missing_api_key",
                "an API key is needed: Authorization: Bearer KEY",
            )
        known = self._known(key)
        if known is None:
            raise RequestError(
                Ending.UNKNOWN_CALLER, "invalid_api_key", "the API key is not one that is known"
            )
        return Caller(known.name, known.tenant)

    def spend(self, caller: Caller, images: int) -> None:
        """Takes so many images off a caller's rate. Raises RequestError (SHED, INVALID)."""
        bucket = self._buckets.get(caller.name)
        if bucket is None:
            return
        if images > bucket.burst:
            message = (
                f"n: {images} is not allowed: at most {bucket.burst:g} at once with this API key"
            )
            raise RequestError(Ending.INVALID, "invalid_value", message, param="n")
        self._buckets[caller.name], wait_s = bucket.take(images, self._clock())
        if wait_s > 0:
            raise RequestError(
                Ending.SHED,
                "rate_limit_exceeded",
                f"more than {bucket.rate * 60:g} images per minute, which is this API key's limit",
                retry_after_seconds=wait_s,
            )

    def refund(self, caller: Caller, images: int, error: Exception) -> None:
        """Gives back what was taken for images that were not made, unless workers spent their time on them."""
        accepted = isinstance(error, RequestError) and error.ending is Ending.DEADLINE
        bucket = self._buckets.get(caller.name)
        if bucket is not None and not accepted:
            self._buckets[caller.name] = bucket.give_back(images)

    @contextlib.contextmanager
    def charged(self, caller: Caller, images: int) -> Iterator[None]:
        """Takes so many images off a caller's rate for a block that makes them; see `spend` and `refund`."""
        self.spend(caller, images)
        try:
            yield
        except Exception as error:
            self.refund(caller, images, error)
            raise

    async def watch(self) -> None:
        """Takes up the file whenever it has changed, until cancelled; what cannot be used is told, and left."""
        while self._path is not None:
            await asyncio.sleep(WATCH_S)
            try:
                await self.refresh()
            except Exception as error:  # a watch that ends would leave revoked keys in force
                self._kept(None, type(error).__name__)  # its text may hold a key

    async def refresh(self) -> None:
        """Takes up the file if it has changed."""
        path = self._path
        if path is None:
            return
        stamp = await asyncio.to_thread(stamp_of, path)
        if stamp == self._stamp:
            self._told = None
            return
        try:
            keys = await asyncio.to_thread(read_keys, path)
        except UnreadableKeyFileError as error:
            # Its mode may change, which leaves the stamp as it is: each look reads it again.
            self._kept(stamp, str(error))
        except KeyFileError as error:
            self._stamp = stamp
            self._kept(stamp, str(error))
        else:
            self._stamp = stamp
            self._take(keys)
            log.info("keys in force", extra={"file": str(path), "keys": len(keys)})

    def _kept(self, stamp: Stamp | None, cause: str) -> None:
        """Tells a fault of a file once, not at each look."""
        if self._told == (stamp, cause):
            return
        self._told = (stamp, cause)
        log.error("keys kept as they were", extra={"file": str(self._path), "cause": cause})

    def _take(self, keys: tuple[ApiKey, ...]) -> None:
        now = self._clock()
        self._keys = tuple((k.digest, k) for k in keys)
        buckets = {}
        for key in keys:
            if key.bucket is None:
                continue
            rate, burst = key.bucket
            known = self._buckets.get(key.name)
            if known is None or (known.rate, known.burst) != (rate, burst):
                known = Bucket.full(rate, burst, now)
            buckets[key.name] = known
        self._buckets = buckets

    def _known(self, key: bytes) -> ApiKey | None:
        """Compares with every key, each in constant time: how long it takes tells nothing of any of them."""
        digest = hashlib.sha256(key).digest()
        found = None
        for known, api_key in self._keys:
            if hmac.compare_digest(known, digest):
                found = api_key
        return found


def _presented(authorization: str | None) -> bytes | None:
    scheme, _, value = (authorization or "").strip().partition(" ")
    value = value.strip()
    if not value:
        return None
    if scheme.lower() == "bearer":
        return value.encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(value, validate=True).partition(b":")
        except (ValueError, binascii.Error):
            return None
        return password if colon else None
    return None
