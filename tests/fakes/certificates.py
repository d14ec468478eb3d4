"""An authority and its certificates, made by openssl. Put `tests/fakes` on sys.path."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gesso.tls import SERVER_NAME

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


def authority(folder: Path, name: str = "authority") -> Path:
    """A new one; its certificate and key lie in the folder that is given back."""
    made = folder / name
    made.mkdir()
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", str(made / "ca.key"), "-out", str(made / "ca.crt")),
    )
    return made


def issue(
    by: Path, into: Path, names: tuple[str, ...] = (SERVER_NAME, "localhost"), serial: int = 1
) -> None:
    """Writes `tls.crt`, `tls.key` and `ca.crt` into a folder, each put in the old one's place at once."""
    into.mkdir(exist_ok=True)
    new, request, wanted = into / "new", by / "request", by / "wanted"
    alternatives = ",".join((*(f"DNS:{n}" for n in names), "IP:127.0.0.1"))
    wanted.write_text(f"subjectAltName={alternatives}\n")
    _openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", "/CN=part", "-keyout", str(into / "new.key"), "-out", str(request)),
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-days", "2", "-set_serial", str(serial)),
        *("-CA", str(by / "ca.crt"), "-CAkey", str(by / "ca.key")),
        *("-extfile", str(wanted), "-out", str(new)),
    )
    (into / "new.key").replace(into / "tls.key")
    new.replace(into / "tls.crt")
    copy = into / "new.ca"
    copy.write_bytes((by / "ca.crt").read_bytes())
    copy.replace(into / "ca.crt")
