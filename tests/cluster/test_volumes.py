"""A worker on a volume of its own comes back with the latents that it had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster.installed import ROOT, Installed
from cluster.load import ask
from cluster.node import Cluster

from gesso.rpc.v1 import worker_pb2
from gesso_operator.clients import Clients, Failure
from gesso_operator.cluster.names import WORKER_PORT

SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"
WORKERS = "gesso.dev/service=stored,app.kubernetes.io/component=worker"
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {{name: by-hand}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: by-hand
  hostPath: {{path: {path}}}
"""
PROMPTS = [
    f"a {size} {colour} ring left of a small blue circle"
    for size in ("large", "small")
    for colour in ("red", "green", "yellow")
]


@pytest.fixture
def gesso(cluster: Cluster, tmp_path: Path) -> Iterator[Installed]:
    """Gesso, and a volume to be claimed."""
    found = Installed(cluster)
    found.prepare()
    found.install(tmp_path)
    folder = tmp_path / "volume"
    folder.mkdir()
    # A volume of this kind is not given to the pod's group.
    folder.chmod(0o777)
    cluster.kubectl("apply", "-f", "-", text=VOLUME.format(path=folder))
    yield found
    found.clear()
    cluster.kubectl("delete", "pvc", "--all", "--timeout=60s")
    cluster.kubectl("delete", "pv", "by-hand", "--timeout=60s")


def stats(gesso: Installed) -> worker_pb2.StatsResponse:
    """What the worker tells of itself."""
    ip = next((p["status"].get("podIP") for p in gesso.pods(WORKERS)), None)
    if ip is None:
        raise RuntimeError("no pod has an address yet")

    async def asked() -> worker_pb2.StatsResponse | Failure:
        clients = Clients()
        try:
            return await clients.stats(f"{ip}:{WORKER_PORT}")
        finally:
            await clients.close()

    reply = asyncio.run(asked())
    if isinstance(reply, Failure):
        raise RuntimeError(reply)
    return reply


@pytest.mark.timeout(240)
def test_killed_it_is_warm_again(gesso: Installed) -> None:
    body = yaml.safe_load(SAMPLE.read_text())
    body["metadata"]["name"] = "stored"
    body["spec"]["workers"]["replicas"] = 1
    body["spec"]["cache"] = {"disk": {"size": "64Mi", "storageClassName": "by-hand"}}
    kubectl = gesso.cluster.kubectl
    kubectl("apply", "-f", "-", text=yaml.safe_dump(body))

    def ready() -> bool:
        return gesso.condition("stored", "Ready").get("status") == "True"

    gesso.wait("ready", ready, 120)
    host = gesso.address("stored")
    for prompt in PROMPTS:
        assert ask(host, prompt)[0] == 200

    def written() -> bool:
        before = stats(gesso)
        time.sleep(0.5)
        now = stats(gesso)
        still = now.cache_disk_bytes == before.cache_disk_bytes
        return now.cache_entries == len(PROMPTS) and still

    gesso.wait("all of it on disk", written, 30)
    before = stats(gesso)
    assert 0 < before.cache_disk_bytes <= before.cache_disk_capacity_bytes == 64 * 2**20
    uid = gesso.pods(WORKERS)[0]["metadata"]["uid"]
    force = ("--grace-period=0", "--force", "--wait=false")
    kubectl("delete", "pod", "stored-worker-0", *force)

    def back() -> bool:
        pods = gesso.pods(WORKERS)
        return [p["metadata"]["uid"] for p in pods] != [uid] and stats(gesso).ready

    gesso.wait("another pod", back, 120)
    after = stats(gesso)
    assert after.images_done == 0
    assert (after.cache_entries, after.cache_disk_corrupt) == (len(PROMPTS), 0)
    gesso.wait("ready again", ready, 60)
    assert ask(host, PROMPTS[0])[0] == 200
