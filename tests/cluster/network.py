"""What a node puts into the machine's network: an address, a bridge with its pods, and filter rules."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

#: Where pods find the API server, and where the node lives: an address of the loopback device.
NODE_IP = "10.255.0.1"
_BRIDGE = "cni0"


class Network:
    """Below a folder, with Debian's iptables from where it was unpacked."""

    def __init__(self, state: Path, debian: Path) -> None:
        """Changes nothing yet."""
        self._state, self._debian = state, debian

    def add_address(self) -> None:
        """The node's address."""
        _ip("addr", "replace", f"{NODE_IP}/32", "dev", "lo", check=True)

    def write_cni(self, folder: Path) -> None:
        """How containerd is to connect a pod."""
        folder.mkdir(exist_ok=True)
        bridge: dict[str, Any] = {
            "type": "bridge",
            "bridge": _BRIDGE,
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self._state / "addresses"),
            },
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        network = {"cniVersion": "0.4.0", "name": "k8s", "plugins": [bridge, ports]}
        (folder / "10-bridge.conflist").write_text(json.dumps(network))

    def filter_env(self) -> dict[str, str]:
        """The environment in which `iptables` is Debian's."""
        folder = self._state / "filter"
        folder.mkdir(exist_ok=True)
        for family in ("iptables", "ip6tables"):
            for tool in ("", "-save", "-restore"):
                link = folder / f"{family}{tool}"
                if not link.is_symlink():
                    link.symlink_to(self._debian / "usr/sbin/xtables-nft-multi")
        libraries = next(iter((self._debian / "usr/lib").glob("*-linux-gnu")))
        return {
            "PATH": f"{folder}:{self._debian}/usr/sbin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(libraries),
            "XTABLES_LIBDIR": str(libraries / "xtables"),
        }

    def end(self) -> None:
        """Takes out what kube-proxy and the bridge put in, and nothing else."""
        env = {**os.environ, **self.filter_env()}
        for family in ("iptables", "ip6tables"):
            tool = str(self._state / "filter" / family)
            saved = subprocess.run(
                [f"{tool}-save"], env=env, capture_output=True, text=True, check=False
            ).stdout
            kept = "".join(f"{line}\n" for line in saved.splitlines() if "KUBE" not in line)
            if kept != saved and kept.strip():
                subprocess.run([f"{tool}-restore"], env=env, input=kept, text=True, check=False)
        _ip("link", "del", _BRIDGE)
        _ip("addr", "del", f"{NODE_IP}/32", "dev", "lo")
        for line in _ip("netns", "ls").splitlines():
            if line.startswith("cni-"):
                _ip("netns", "del", line.split()[0])


def _ip(*arguments: str, check: bool = False) -> str:
    return subprocess.run(
        ["ip", *arguments], check=check, capture_output=True, text=True, timeout=30
    ).stdout
