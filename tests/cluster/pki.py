"""Keys and certificates of a test cluster, and the kubeconfigs that use them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

#: Keys on a curve take no time to make, unlike RSA's.
_CURVE = ("-pkeyopt", "ec_paramgen_curve:P-256")
_NEW_KEY = ("-newkey", "ec", *_CURVE, "-nodes")


class Pki:
    """One authority in a folder."""

    def __init__(self, folder: Path) -> None:
        """Makes the authority, and the key that signs ServiceAccounts' tokens."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._openssl(
            *("req", "-x509", *_NEW_KEY, "-days", "30", "-subj", "/CN=test-ca"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", "ca.key", "-out", "ca.crt"),
        )
        self._openssl("genpkey", "-algorithm", "EC", *_CURVE, "-out", "sa.key")
        self._openssl("pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub")

    def path(self, name: str) -> Path:
        """A file in the folder."""
        return self.folder / name

    def issue(self, name: str, subject: str, alternatives: str = "") -> None:
        """NAME.key and NAME.crt, for servers and clients."""
        self._openssl(
            *("req", *_NEW_KEY, "-subj", subject),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        extensions = "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        extensions += "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        if alternatives:
            extensions += f"subjectAltName={alternatives}\n"
        self.path(f"{name}.ext").write_text(extensions)
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.crt"),
        )
        self.path(f"{name}.key").chmod(0o600)

    def kubeconfig(self, server: str, user: str) -> Path:
        """USER.kubeconfig, by the certificate issued under that name."""
        return self.write_kubeconfig(
            server,
            user,
            {
                "client-certificate": str(self.path(f"{user}.crt")),
                "client-key": str(self.path(f"{user}.key")),
            },
        )

    def write_kubeconfig(self, server: str, name: str, user: dict[str, str]) -> Path:
        """NAME.kubeconfig for any way to say who one is."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": server,
                        "certificate-authority": str(self.path("ca.crt")),
                    },
                }
            ],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path = self.path(f"{name}.kubeconfig")
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60
        )
