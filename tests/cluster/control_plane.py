"""An API server with its etcd, without a node: for CRDs, rules, RBAC and server-side apply."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.audit import POLICY
from cluster.network import NODE_IP
from cluster.orphans import Register
from cluster.pki import Pki
from cluster.processes import Processes, free_port, wait_for, with_argument
from cluster.tools import Tools

#: The second asks, as OpenShift does, who may block an owner's deletion.
_ADMISSION = "NodeRestriction,OwnerReferencesPermissionEnforcement"


class ControlPlane:
    """One etcd and one API server below a folder. `up` before anything else, `down` at the end."""

    def __init__(self, folder: Path, tools: Tools) -> None:
        """Starts nothing yet."""
        self.folder, self.tools = folder, tools
        self.processes = Processes(folder / "run")
        self.etcd_port, self.peer_port, self.port = free_port(), free_port(), free_port()
        self.pki: Pki | None = None

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "pki" / "admin.kubeconfig"

    def up(self) -> None:
        """Starts etcd and the API server; ready when it returns. Ends those whose tests were killed.

        Raises RuntimeError, with nothing left running.
        """
        register = Register()
        for folder in register.take_orphans():
            _kill(folder)
        register.add(self.folder)
        try:
            self._start()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Ends both, and removes what they wrote."""
        self._stop()
        Register().remove(self.folder)

    def _start(self) -> None:
        self.pki = Pki(self.folder / "pki")
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        hosts = [f"DNS:{n}" for n in names] + [
            f"IP:{ip}" for ip in ("127.0.0.1", "10.96.0.1", NODE_IP)
        ]
        self.pki.issue("apiserver", "/CN=kube-apiserver", ",".join(hosts))
        self.pki.issue("front-proxy", "/CN=front-proxy")
        self.pki.issue("admin", "/O=system:masters/CN=admin")
        self.pki.kubeconfig(self.server, "admin")
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self.processes.start(
            "etcd",
            self.tools.debian / "usr/bin/etcd",
            f"--data-dir={self.folder / 'etcd'}",
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--initial-cluster=default={peer}", "--unsafe-no-fsync"),
        )
        self.start_api_server()

    def _stop(self) -> None:
        # An API server whose etcd is gone hangs on its way out.
        for name in ("apiserver", "etcd"):
            self.processes.end(name, wait_s=3.0)
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def start_api_server(self) -> None:
        """Starts the API server on its port; ready when it returns. Raises RuntimeError."""
        assert self.pki is not None
        path = self.pki.path
        headers = "--requestheader"
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(json.dumps(POLICY))
        self.processes.start(
            "apiserver",
            self.tools.kube("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            *(
                "--bind-address=0.0.0.0",
                f"--secure-port={self.port}",
                f"--advertise-address={NODE_IP}",
            ),
            f"--client-ca-file={path('ca.crt')}",
            *(
                f"--tls-cert-file={path('apiserver.crt')}",
                f"--tls-private-key-file={path('apiserver.key')}",
            ),
            *(f"{headers}-client-ca-file={path('ca.crt')}", f"{headers}-allowed-names=front-proxy"),
            *(
                f"{headers}-username-headers=X-Remote-User",
                f"{headers}-group-headers=X-Remote-Group",
            ),
            f"{headers}-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={path('front-proxy.crt')}",
            f"--proxy-client-key-file={path('front-proxy.key')}",
            f"--service-account-key-file={path('sa.pub')}",
            f"--service-account-signing-key-file={path('sa.key')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            *("--authorization-mode=Node,RBAC", f"--enable-admission-plugins={_ADMISSION}"),
            *("--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP"),
            f"--kubelet-client-certificate={path('admin.crt')}",
            f"--kubelet-client-key={path('admin.key')}",
            "--endpoint-reconciler-type=lease",
            *(f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"),
        )
        if not wait_for(self.ready, 60.0, 0.1):
            raise RuntimeError(
                f"the API server did not come up:\n{self.processes.tail('apiserver')}"
            )

    @property
    def audit_log(self) -> Path:
        """What service accounts have asked for, a line of JSON each."""
        return self.folder / "audit.log"

    def kill_api_server(self) -> None:
        """Ends the API server as a crash would."""
        self.processes.end("apiserver", signal.SIGKILL)

    def ready(self) -> bool:
        """Whether the API server answers."""
        assert self.pki is not None
        trusted = ssl.create_default_context(cafile=self.pki.path("ca.crt"))
        try:
            with urllib.request.urlopen(
                f"{self.server}/readyz", timeout=5, context=trusted
            ) as reply:
                return bool(reply.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def kubectl(
        self, *arguments: str, check: bool = True, text: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator; `text` is its input. Raises RuntimeError with what it said."""
        return run_kubectl(self.tools.kubectl, self.kubeconfig, arguments, check, text, timeout)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)
        return found

    def kubeconfig_for(self, namespace: str, account: str) -> Path:
        """A kubeconfig that is a ServiceAccount."""
        assert self.pki is not None
        token = self.kubectl("create", "token", account, "-n", namespace).stdout.strip()
        return self.pki.write_kubeconfig(self.server, f"{namespace}-{account}", {"token": token})


def _kill(folder: Path) -> None:
    """Ends the control plane of a folder, which may be gone itself: pytest removes old ones."""
    for own in (f"--client-ca-file={folder / 'pki' / 'ca.crt'}", f"--data-dir={folder / 'etcd'}"):
        for pid in with_argument(own):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder / "etcd", ignore_errors=True)


def run_kubectl(
    kubectl: Path,
    kubeconfig: Path,
    arguments: tuple[str, ...],
    check: bool,
    text: str | None,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Runs kubectl. Raises RuntimeError with what it said where `check` and it failed."""
    done = subprocess.run(
        [str(kubectl), "--kubeconfig", str(kubeconfig), *arguments],
        capture_output=True,
        text=True,
        input=text,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done
