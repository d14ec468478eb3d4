"""TLS between parts: certificate, key and authority from a folder, taken up anew when they change.

The folder is as Kubernetes and cert-manager lay out a TLS Secret: `tls.crt`, `tls.key`, `ca.crt`. Every part
has a certificate for the same name, so that a part is known as one wherever it runs.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from gesso.api.security import TlsSpec
from gesso.files import Stamp, stamp_of
from gesso.tls_names import SERVER_NAME

log = logging.getLogger(__name__)

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
#: Seconds between two looks at the files.
WATCH_S = 1.0


class TlsError(ValueError):
    """The files cannot be used; the message names the file, and holds nothing of it."""


@dataclass(frozen=True)
class Material:
    """What the files held, in PEM."""

    certificate: bytes
    key: bytes
    authority: bytes


class Tls:
    """The TLS of one process. Safe for threads: gRPC asks for certificates from its own."""

    def __init__(
        self,
        folder: Path,
        *,
        mutual: bool = True,
        server_name: str = SERVER_NAME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mutual`: servers of parts let only parts in. Raises TlsError."""
        self.folder = folder
        self.mutual = mutual
        self.server_name = server_name
        self._clock = clock
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._looked_s = clock()
        self._material = read(folder)
        #: What HTTPS connections are made with, once there is an HTTPS server.
        self._context: ssl.SSLContext | None = None
        #: The last fault that was told, and of which files.
        self._told: tuple[tuple[Stamp | None, ...], str] | None = None
        #: Counts changes that were taken up.
        self.version = 1

    @classmethod
    def wanted_by(cls, spec: TlsSpec | None, folder: Path) -> Tls:
        """As `spec.security.tls` wants it, with the files of a folder. Raises TlsError."""
        if spec is None:
            return cls(folder)
        return cls(folder, mutual=spec.mutual, server_name=spec.server_name)

    def refresh(self) -> int:
        """Takes up changed files, at most once a second; gives the version in force.

        What cannot be used is told in the log, and what was before stays.
        """
        with self._lock:
            now = self._clock()
            if now - self._looked_s < WATCH_S:
                return self.version
            self._looked_s = now
            stamps = self._look()
            if stamps == self._stamps:
                return self.version
            try:
                material = read(self.folder)
                context = None if self._context is None else self._loaded()
                if self._look() != stamps:
                    raise TlsError(f"{self.folder}: files change")
            except TlsError as error:
                # Half of a change may lie there: a later look sees the rest.
                if self._told != (stamps, str(error)):
                    log.warning("TLS kept as it was: %s", error)
                    self._told = (stamps, str(error))
                return self.version
            self._material, self._context, self._stamps = material, context, stamps
            self.version += 1
            log.info("TLS files in force, version %d", self.version)
            return self.version

    def server_credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        """Of a gRPC server; each connection gets the certificate that is in force by then."""
        told = 0

        def configuration() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            version = self.refresh()
            if version == told:
                return None
            told = version
            material = self._material
            return grpc.ssl_server_certificate_configuration(
                [(material.key, material.certificate)], material.authority if mutual else None
            )

        first = configuration()
        assert first is not None
        # None means unchanged, which the stubs do not know.
        return grpc.dynamic_ssl_server_credentials(first, configuration, mutual)  # type: ignore[arg-type]

    def channel(
        self, address: str, options: tuple[tuple[str, object], ...] = ()
    ) -> grpc.aio.Channel:
        """A channel to another part, whose certificate must be of the authority and the name."""
        material = self._material
        credentials = grpc.ssl_channel_credentials(
            material.authority, material.key, material.certificate
        )
        named = (("grpc.ssl_target_name_override", self.server_name), *options)
        return grpc.aio.secure_channel(address, credentials, options=named)

    def http_context(self) -> ssl.SSLContext:
        """Of an HTTPS server; each connection gets the certificate in force by then. Raises TlsError."""
        first = self._context = self._loaded()

        def present(
            connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, of: ssl.SSLContext
        ) -> None:
            self.refresh()
            # One that is loaded anew may be left half loaded, so that it is another each time.
            connection.context = self._context or first

        first.sni_callback = present
        return first

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _load(context, self.folder)
        return context

    def _look(self) -> tuple[Stamp | None, ...]:
        return tuple(stamp_of(self.folder / name) for name in (CERTIFICATE, KEY, AUTHORITY))


def open_channel(
    tls: Tls | None, address: str, options: tuple[tuple[str, object], ...] = ()
) -> grpc.aio.Channel:
    """A channel to another part, with TLS or without."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return tls.channel(address, options)


def add_port(server: grpc.aio.Server, address: str, tls: Tls | None, *, mutual: bool) -> int:
    """Has a server listen, with TLS or without; gives the port. Raises RuntimeError if it cannot be bound."""
    if tls is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, tls.server_credentials(mutual=mutual))


def read(folder: Path) -> Material:
    """The files of a folder, checked: the key is the certificate's, the authority is one. Raises TlsError."""
    found = {}
    for name in (CERTIFICATE, KEY, AUTHORITY):
        try:
            found[name] = (folder / name).read_bytes()
        except OSError as error:
            raise TlsError(f"{folder / name}: {error.strerror or error}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, folder)
    try:
        context.load_verify_locations(cadata=found[AUTHORITY].decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise TlsError(f"{folder / AUTHORITY}: no certificates in PEM") from None
    return Material(found[CERTIFICATE], found[KEY], found[AUTHORITY])


def _load(context: ssl.SSLContext, folder: Path) -> None:
    try:
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
    except (ssl.SSLError, OSError, ValueError):
        raise TlsError(
            f"{folder / CERTIFICATE}: no certificate, or {KEY} is not its key (PEM, no password)"
        ) from None
