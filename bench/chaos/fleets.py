"""The fleet that is disturbed: the tiny SD-XL's workers, or fake ones that take no CPU."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from gesso.cli import lifecycle
from gesso_simulator.demo.fleet import Fleet

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"
#: Small enough that latents are read from disk, too.
CACHE_MEMORY, CACHE_DISK = "512Ki", "256Mi"
_FAKE = "chaos.fake_worker"


class FakeWorkersFleet(Fleet):
    """Real routers and supervisor over fake workers: for tests, and to try the benchmark on a busy machine."""

    def __enter__(self) -> Fleet:
        bench = str(ROOT / "bench")
        path = os.environ.get("PYTHONPATH", "")
        if bench not in path.split(os.pathsep):
            os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (bench, path) if p)
        try:
            lifecycle.up(
                self.service,
                self.grpc_port,
                self.http_port,
                self.state_dir,
                False,
                self._up_timeout_s,
                ("--worker-module", _FAKE),
            )
        except BaseException:
            self._down()
            raise
        return self


def write_service(
    target: Path, routers: int, slo_seconds: float, policy: str = "QualityAware"
) -> None:
    """The tiny service with so many routers, another SLO, and a cache that lies on disk mostly."""
    data = yaml.safe_load(SAMPLE.read_text())
    data["spec"]["slo"]["latencySeconds"] = slo_seconds
    data["spec"]["router"]["replicas"] = routers
    data["spec"]["scheduling"]["policy"] = policy
    data["spec"]["cache"] |= {"capacity": CACHE_MEMORY, "disk": {"size": CACHE_DISK}}
    target.write_text(yaml.safe_dump(data, sort_keys=False))
