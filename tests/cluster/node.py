"""A whole cluster on this machine: the control plane, one node with containerd, Services and DNS.

One at a time: the node lives on an address of the loopback device and writes the machine's packet filter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from cluster.control_plane import NODE_IP, ControlPlane
from cluster.images import write_archive
from cluster.processes import alive, identity, wait_for

NODE = "n0"
_STAYS = "until cluster-down"
_NAMESPACE = "k8s.io"
#: In the order in which they end.
_PROCESSES = ("coredns", "kubelet", "kube-proxy", "scheduler", "manager")
IMAGES = (
    *("localhost/pause:1", "localhost/gesso-operator:test", "localhost/gesso-router:test"),
    *(
        "localhost/gesso-worker:test",
        "localhost/gesso-router:test2",
        "localhost/gesso-worker:test2",
    ),
    "localhost/gesso-operator:test2",
)


class InUseError(Exception):
    """There is one on this machine already."""


class Cluster(ControlPlane):
    """The control plane and a node."""

    @property
    def _state(self) -> Path:
        return self.folder / "state"

    def up(self, stays: bool = False) -> None:
        """Everything ready: node, Services, DNS. Cleans up after an earlier one that was cut short.

        `stays` says that it is to outlive this process. Raises InUseError where another one runs on this
        machine, RuntimeError where it does not come up.
        """
        owner = self._state / "owner"
        if owner.exists():
            told = owner.read_text()
            if told == _STAYS:
                raise InUseError("a test cluster is up already: `make cluster-down` ends it")
            if alive(told):
                raise InUseError("another process runs a test cluster on this machine")
        if self._state.exists():
            self.down()
        self._state.mkdir(parents=True)
        owner.write_text(_STAYS if stays else identity(os.getpid()))
        self._command("ip", "addr", "replace", f"{NODE_IP}/32", "dev", "lo")
        super().up()
        self._components()
        self._containerd()
        self._node()
        for image in IMAGES:
            self.make_image(image)

    def down(self) -> None:
        """Ends everything, and leaves no process, mount, network or filter rule behind."""
        if self.processes.running("apiserver"):
            kinds = "deploy,ds,sts,job,pod"
            with suppress(subprocess.TimeoutExpired):
                self.kubectl(
                    *("delete", kinds, "-A", "--all", "--wait=true", "--grace-period=1"),
                    check=False,
                    timeout=40.0,
                )
        for name in _PROCESSES:
            self.processes.end(name)
        super().down()
        self._end_containers()
        self.processes.end("containerd")
        self._end_network()
        self._end_mounts()
        shutil.rmtree(self._state, ignore_errors=True)

    def set_gpus(self, count: int) -> None:
        """Says that the node has so many GPUs."""
        patch = json.dumps(
            [
                {"op": "add", "path": f"/status/{part}/nvidia.com~1gpu", "value": str(count)}
                for part in ("capacity", "allocatable")
            ]
        )
        self.kubectl("patch", "node", NODE, "--subresource=status", "--type=json", "-p", patch)

    def load_image(self, archive: Path) -> None:
        """Imports an OCI archive into containerd."""
        self._ctr("images", "import", str(archive))

    def make_image(self, reference: str) -> None:
        """An image with a busybox in it, under a name."""
        archive = self._state / "image.tar"
        busybox = self.tools.debian / "bin/busybox"
        links = {
            f"/bin/{tool}": "/bin/busybox"
            for tool in ("sh", "sleep", "wget", "nslookup", "nc", "httpd")
        }
        command = ["/bin/sleep", "2147483647"]
        write_archive(archive, reference, {"/bin/busybox": busybox}, links, command)
        self.load_image(archive)
        archive.unlink()

    def _components(self) -> None:
        assert self.pki is not None
        path = self.pki.path
        for user, subject in (
            ("manager", "/CN=system:kube-controller-manager"),
            ("scheduler", "/CN=system:kube-scheduler"),
            ("kubelet", f"/O=system:nodes/CN=system:node:{NODE}"),
        ):
            self.pki.issue(user, subject, f"IP:{NODE_IP}")
            self.pki.kubeconfig(self.server, user)
        for name, component, more in (
            (
                "manager",
                "kube-controller-manager",
                (
                    f"--service-account-private-key-file={path('sa.key')}",
                    f"--root-ca-file={path('ca.crt')}",
                    *("--use-service-account-credentials=true", "--node-monitor-period=2s"),
                ),
            ),
            ("scheduler", "kube-scheduler", ()),
        ):
            config = path(f"{name}.kubeconfig")
            self.processes.start(
                name,
                self.tools.kube(component),
                *(f"--kubeconfig={config}", f"--authentication-kubeconfig={config}"),
                *(f"--authorization-kubeconfig={config}", "--bind-address=127.0.0.1"),
                *("--leader-elect=false", *more),
            )

    def _containerd(self) -> None:
        state, root = self._state, self.tools.debian
        (state / "cni").mkdir(exist_ok=True)
        network: dict[str, Any] = {
            "cniVersion": "0.4.0",
            "name": "k8s",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": "10.244.0.0/24"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(state / "addresses"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        (state / "cni" / "10-bridge.conflist").write_text(json.dumps(network))
        # Without the restriction every sandbox dies where CAP_SYS_RESOURCE is missing.
        (state / "containerd.toml").write_text(
            f"""version = 2
root = "{state}/root"
state = "{state}/run"
[grpc]
  address = "{self._socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{root}/usr/sbin/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{root}/usr/lib/cni"
    conf_dir = "{state}/cni"
"""
        )
        env = {"PATH": f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}"}
        self.processes.start(
            "containerd", root / "usr/bin/containerd", "-c", state / "containerd.toml", env=env
        )
        if not wait_for(lambda: self._ctr("version", check=False) == 0, 20.0):
            raise RuntimeError(f"containerd did not come up:\n{self.processes.tail('containerd')}")

    def _node(self) -> None:
        assert self.pki is not None
        path, state = self.pki.path, self._state
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_IP,
            "readOnlyPort": 0,
            "failCgroupV1": False,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(path("ca.crt"))},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(path("kubelet.crt")),
            "tlsPrivateKeyFile": str(path("kubelet.key")),
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "clusterDNS": [NODE_IP],
            "clusterDomain": "cluster.local",
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
            "nodeStatusUpdateFrequency": "5s",
            # A mounted ConfigMap follows its object soon.
            "syncFrequency": "10s",
            "volumePluginDir": str(state / "plugins"),
        }
        (state / "kubelet.yaml").write_text(yaml.safe_dump(config))
        env = self._filter_env()
        self.processes.start(
            "kubelet",
            self.tools.kube("kubelet"),
            f"--config={state / 'kubelet.yaml'}",
            f"--kubeconfig={path('kubelet.kubeconfig')}",
            *(
                f"--hostname-override={NODE}",
                f"--node-ip={NODE_IP}",
                f"--root-dir={state / 'kubelet'}",
            ),
            env=env,
        )
        self.processes.start(
            "kube-proxy",
            self.tools.kube("kube-proxy"),
            f"--kubeconfig={path('admin.kubeconfig')}",
            *(
                f"--hostname-override={NODE}",
                "--proxy-mode=iptables",
                "--cluster-cidr=10.244.0.0/16",
            ),
            *("--bind-address=127.0.0.1", "--conntrack-max-per-core=0"),
            env=env,
        )
        (state / "Corefile").write_text(
            f"cluster.local:53 {{\n  bind {NODE_IP}\n  kubernetes cluster.local {{\n"
            f"    kubeconfig {path('admin.kubeconfig')} c\n    ttl 1\n  }}\n}}\n"
        )
        self.processes.start("coredns", self.tools.go("coredns"), "-conf", state / "Corefile")
        if not wait_for(self._node_ready, 60.0, 0.2):
            raise RuntimeError(f"the node did not become ready:\n{self.processes.tail('kubelet')}")

    def _node_ready(self) -> bool:
        found = self.kubectl("get", "node", NODE, check=False)
        account = self.kubectl("get", "serviceaccount", "default", "-n", "default", check=False)
        return " Ready" in found.stdout and account.returncode == 0

    @property
    def _socket(self) -> Path:
        return self._state / "containerd.sock"

    def _ctr(self, *arguments: str, check: bool = True) -> int:
        ctr = self.tools.debian / "usr/bin/ctr"
        done = subprocess.run(
            [str(ctr), "-a", str(self._socket), "-n", _NAMESPACE, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.returncode

    def _listed(self, *arguments: str) -> list[str]:
        ctr = self.tools.debian / "usr/bin/ctr"
        done = subprocess.run(
            [str(ctr), "-a", str(self._socket), "-n", _NAMESPACE, *arguments, "ls", "-q"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout.split()

    def _end_containers(self) -> None:
        if not self.processes.running("containerd"):
            return
        for task in self._listed("tasks"):
            self._ctr("tasks", "kill", "-s", "SIGKILL", task, check=False)
        wait_for(
            lambda: all(
                self._ctr("tasks", "rm", t, check=False) == 0 for t in self._listed("tasks")
            ),
            5.0,
        )
        for container in self._listed("containers"):
            self._ctr("containers", "rm", container, check=False)

    def _end_network(self) -> None:
        """Takes out what kube-proxy and the bridge put in, and nothing else."""
        env = {**os.environ, **self._filter_env()}
        for name in ("iptables", "ip6tables"):
            folder = self._state / "filter"
            saved = subprocess.run(
                [str(folder / f"{name}-save")], env=env, capture_output=True, text=True, check=False
            ).stdout
            kept = "\n".join(line for line in saved.splitlines() if "KUBE" not in line) + "\n"
            if kept.strip():
                subprocess.run(
                    [str(folder / f"{name}-restore")], env=env, input=kept, text=True, check=False
                )
        self._command("ip", "link", "del", "cni0", check=False)
        self._command("ip", "addr", "del", f"{NODE_IP}/32", "dev", "lo", check=False)
        listed = subprocess.run(
            ["ip", "netns", "ls"], capture_output=True, text=True, check=False
        ).stdout
        for line in listed.splitlines():
            if line.startswith("cni-"):
                self._command("ip", "netns", "del", line.split()[0], check=False)

    def _end_mounts(self) -> None:
        mine = [
            line.split()[1]
            for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[1].startswith(str(self.folder))
        ]
        for mount in sorted(mine, reverse=True):
            self._command("umount", "-l", mount, check=False)

    def _filter_env(self) -> dict[str, str]:
        """Debian's iptables, from where it was unpacked."""
        root, folder = self.tools.debian, self._state / "filter"
        folder.mkdir(exist_ok=True)
        for family in ("iptables", "ip6tables"):
            for tool in ("", "-save", "-restore"):
                link = folder / f"{family}{tool}"
                if not link.is_symlink():
                    link.symlink_to(root / "usr/sbin/xtables-nft-multi")
        libraries = next(iter((root / "usr/lib").glob("*-linux-gnu")))
        return {
            "PATH": f"{folder}:{root}/usr/sbin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(libraries),
            "XTABLES_LIBDIR": str(libraries / "xtables"),
        }

    def _command(self, *command: str, check: bool = True) -> None:
        subprocess.run(command, check=check, capture_output=True, timeout=30)
