"""A whole cluster on this machine: the control plane, one node with containerd, Services and DNS.

One at a time: the node lives on an address of the loopback device and writes the machine's packet filter.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import yaml
from cluster.control_plane import ControlPlane
from cluster.images import write_archive
from cluster.leftovers import remove_groups, remove_links, unmount_below
from cluster.network import NODE_IP, Network
from cluster.orphans import locked
from cluster.processes import alive, identity, wait_for

NODE = "n0"
#: The owner of a cluster that outlives whoever started it.
STAYS = "until cluster-down"
_NAMESPACE = "k8s.io"
#: In the order in which they end.
_COMPONENTS = ("scheduler", "manager")
_PROCESSES = ("coredns", "kubelet", "kube-proxy", *_COMPONENTS)
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

    @property
    def _owner(self) -> Path:
        return self._state / "owner"

    @property
    def _network(self) -> Network:
        return Network(self._state, self.tools.debian)

    def owner(self) -> str:
        """Whose it is: STAYS, or the id of the process that it is for; empty where none runs."""
        with suppress(OSError):
            told = self._owner.read_text()
            if told == STAYS:
                return STAYS
            return told.split()[0] if alive(told) else ""
        return ""

    def up(self, stays: bool = False) -> None:
        """Everything ready: node, Services, DNS. Cleans up after an earlier one that was cut short.

        `stays` says that it is to outlive this process. Raises InUseError where another one runs on this
        machine, RuntimeError where it does not come up.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.folder.with_suffix(".lock")):
            if self.owner() == STAYS:
                raise InUseError("a test cluster is up already: `make cluster-down` ends it")
            if self.owner():
                raise InUseError(f"another process ({self.owner()}) runs one on this machine")
            if self._state.exists():
                self.down()
            self._state.mkdir(parents=True)
            self._owner.write_text(STAYS if stays else identity(os.getpid()))
        self._network.add_address()
        self._start()
        self._components()
        self._containerd()
        self._node()
        self.make_image(*IMAGES)

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
        self._stop()
        self._end_containers()
        self.processes.end("containerd")
        self._network.end()
        unmount_below(self.folder)
        remove_links(self._state / "logs")
        remove_groups()
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

    def make_image(self, *references: str) -> None:
        """An image with a busybox in it, under some names."""
        archive = self._state / "image.tar"
        busybox = self.tools.debian / "bin/busybox"
        links = {
            f"/bin/{tool}": "/bin/busybox"
            for tool in ("sh", "sleep", "wget", "nslookup", "nc", "httpd")
        }
        command = ["/bin/sleep", "2147483647"]
        write_archive(archive, references, {"/bin/busybox": busybox}, links, command)
        self.load_image(archive)
        archive.unlink()

    def _components(self) -> None:
        assert self.pki is not None
        for user, subject in (
            ("manager", "/CN=system:kube-controller-manager"),
            ("scheduler", "/CN=system:kube-scheduler"),
            ("kubelet", f"/O=system:nodes/CN=system:node:{NODE}"),
        ):
            self.pki.issue(user, subject, f"IP:{NODE_IP}")
            self.pki.kubeconfig(self.server, user)
        self._start_components()

    def kill_api_server(self) -> None:
        """Ends the API server as a crash of its machine would: what plans and controls there goes with it."""
        for name in _COMPONENTS:
            self.processes.end(name, signal.SIGKILL)
        super().kill_api_server()

    def start_api_server(self) -> None:
        """Starts what `kill_api_server` has ended; ready when it returns. Raises RuntimeError."""
        super().start_api_server()
        # While the cluster comes up, their turn comes later.
        if self.processes.running("kubelet"):
            self._start_components()

    def _start_components(self) -> None:
        assert self.pki is not None
        path = self.pki.path
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
        self._network.write_cni(state / "cni")
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
            # An image that no pod runs yet stays: none could be pulled again.
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "5s",
            # A mounted ConfigMap follows its object soon.
            "syncFrequency": "10s",
            "volumePluginDir": str(state / "plugins"),
            "podLogsDir": str(state / "logs"),
        }
        (state / "kubelet.yaml").write_text(yaml.safe_dump(config))
        env = self._network.filter_env()
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
            if not (self._state / "root").exists():
                return
            # It was killed, and its containers live on: only a new one can end them.
            self._containerd()
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
