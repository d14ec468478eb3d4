"""The programs of the test cluster: made once, into a cache outside the checkout that is keyed by version.

`python tests/cluster/tools.py` makes them; a second call finds them. Each part is made in a folder of its own
and renamed when it is whole, so that a call that was cut short is gone on from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KUBERNETES = "1.36.3"
#: Programs that `go install` makes: name, package, version.
GO_TOOLS = (
    ("coredns", "github.com/coredns/coredns", "v1.15.0"),
    ("helm3", "helm.sh/helm/v3/cmd/helm", "v3.22.0"),
    ("helm4", "helm.sh/helm/v4/cmd/helm", "v4.3.1"),
)
COMPONENTS = (
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy", "kubectl"),
)
#: Debian packages and the release that they are taken from: containerd must know cgroup v1.
DEBIAN = (
    *(f"{name}/trixie" for name in ("etcd-server", "etcd-client")),
    *(
        f"{name}/bookworm"
        for name in (
            *("containerd", "runc", "containernetworking-plugins", "busybox-static", "iptables"),
            *("conntrack", "libxtables12", "libip4tc2", "libip6tc2", "libnftnl11"),
            *("libnfnetlink0", "libnetfilter-conntrack3", "libmnl0"),
        )
    ),
)
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


class UnavailableError(Exception):
    """The cluster cannot be had on this machine; the message says why, and what would help."""


@dataclass(frozen=True)
class Tools:
    """Where the programs are."""

    root: Path

    def kube(self, component: str) -> Path:
        """A component of Kubernetes."""
        return self.root / _kube_key() / component

    def go(self, name: str) -> Path:
        """One of `GO_TOOLS`."""
        version = next(v for n, _, v in GO_TOOLS if n == name)
        return self.root / f"{name}-{version}" / name

    @property
    def debian(self) -> Path:
        """The root that the Debian packages are unpacked into."""
        return self.root / _debian_key() / "root"

    @property
    def kubectl(self) -> Path:
        """kubectl."""
        return self.kube("kubectl")


def cache_root() -> Path:
    """`$GESSO_CACHE/kube`, else below the user's cache folder."""
    base = os.environ.get("GESSO_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "gesso") / "kube"


def found() -> Tools | None:
    """The programs, if all of them are there."""
    root = cache_root()
    keys = [_kube_key(), _debian_key(), *(f"{n}-{v}" for n, _, v in GO_TOOLS)]
    return Tools(root) if all((root / key).is_dir() for key in keys) else None


def made(say: Callable[[str], None] = print) -> Tools:
    """The programs, made where they are not there yet. Raises UnavailableError."""
    tools = found()
    if tools is not None:
        return tools
    missing = [name for name in ("go", "apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing or sys.platform != "linux" or not _SOURCES.exists():
        what = ", ".join(missing) or "Debian on Linux"
        raise UnavailableError(
            f"no test cluster: {what} is not here. Set GESSO_KUBECONFIG to the kubeconfig of a cluster "
            "(`kind create cluster` makes one), or run where a Go toolchain and apt-get are"
        )
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / "lock"):
        _make(root, _debian_key(), "Debian's parts (etcd, containerd, runc, CNI)", _debian, say)
        _make(root, _kube_key(), f"Kubernetes {KUBERNETES} in one binary, minutes", _kube, say)
        for name, package, version in GO_TOOLS:
            key = f"{name}-{version}"
            _make(root, key, f"{name} {version}", _installer(name, package, version), say)
    return Tools(root)


def _make(
    root: Path, key: str, what: str, make: Callable[[Path], None], say: Callable[[str], None]
) -> None:
    if (root / key).is_dir():
        return
    say(f"[cluster tools] {what}")
    began = time.monotonic()
    partial = root / f"{key}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    make(partial)
    partial.rename(root / key)
    say(f"[cluster tools] {what}: {time.monotonic() - began:.0f} s")


def _kube(out: Path) -> None:
    version = "k8s.io/component-base/version"
    minor = KUBERNETES.split(".")[1]
    flags = f"-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
    _run(
        "go",
        "build",
        "-trimpath",
        "-ldflags",
        flags,
        "-o",
        str(out / "kube"),
        ".",
        cwd=HERE / "kube",
    )
    for component in COMPONENTS:
        (out / component).symlink_to("kube")


def _installer(name: str, package: str, version: str) -> Callable[[Path], None]:
    def install(out: Path) -> None:
        place = {"GOBIN": str(out), "GOFLAGS": "-mod=mod"}
        _run("go", "install", "-trimpath", "-ldflags", "-s -w", f"{package}@{version}", **place)
        made = next(out.iterdir())
        if made.name != name:
            made.rename(out / name)

    return install


def _debian(out: Path) -> None:
    """Downloads and unpacks packages with an apt set-up of its own, beside the system's."""
    for folder in ("debs", "root", "lists/partial", "cache/archives/partial"):
        (out / folder).mkdir(parents=True)
    mirror = next(
        line.split()[1] for line in _SOURCES.read_text().splitlines() if line.startswith("URIs:")
    )
    signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    (out / "sources.list").write_text(
        "".join(f"deb {signed} {mirror} {suite} main\n" for suite in ("bookworm", "trixie"))
    )
    (out / "status").touch()
    (out / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{out}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{out}/lists"; Dir::State::status "{out}/status"; Dir::Cache "{out}/cache";\n'
        'Acquire::Languages "none"; APT::Install-Recommends "false"; APT::Sandbox::User "root";\n'
    )
    config = {"APT_CONFIG": str(out / "apt.conf")}
    _run("apt-get", "-qq", "update", **config)
    _run("apt-get", "-qq", "download", *DEBIAN, cwd=out / "debs", **config)
    for package in (out / "debs").glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(out / "root"))
    for folder in ("debs", "lists", "cache"):
        shutil.rmtree(out / folder)


def _kube_key() -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((HERE / "kube" / name).read_bytes())
    return f"kubernetes-{KUBERNETES}-{digest.hexdigest()[:12]}"


def _debian_key() -> str:
    return f"debian-{hashlib.sha256(' '.join(DEBIAN).encode()).hexdigest()[:12]}"


def _run(*command: str, cwd: Path | None = None, **environment: str) -> None:
    env = {**os.environ, "CGO_ENABLED": "0", **environment}
    try:
        subprocess.run(
            command, cwd=cwd, env=env, check=True, capture_output=True, text=True, timeout=1800
        )
    except subprocess.CalledProcessError as error:
        tail = "\n".join(error.stderr.splitlines()[-5:])
        raise UnavailableError(f"no test cluster: {' '.join(command[:3])} failed: {tail}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"no test cluster: {' '.join(command[:3])}: {error}") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One at a time, in all processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Makes the programs; on a machine where they cannot be had, says so and goes on."""
    try:
        tools = made(lambda text: print(text, flush=True))
    except UnavailableError as error:
        print(f"[cluster tools] {error}; the tests that need a cluster skip", flush=True)
        return 0
    print(f"[cluster tools] in {tools.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
