"""The operator with many services: memory, a reconcile of them all, from edit to plan, from load to levels.

    python bench/bench_operator.py [--services 20] [--workers 50]

A real API server and the operator's process; in the place of pods servers of the contract that answer at once,
so that what is measured is the operator. *Reconcile of all*: processor seconds of one round of every service,
each with reports, statistics of all workers, forecast, plan and what follows, in steady state (this machine's
cores are shared with the API server and the stand-ins). *All applied after restart*: from the moment a new
operator leads until it has applied every object of every service, and each loop has gone round. *Edit*:
`spec.slo.latencySeconds` of each service in turn, until its status has the new plan. *Load*: from a step to
1.85 times what the fleet carries in full until a worker is assigned a larger K. Writes bench/out/operator.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
import yaml
from cluster.control_plane import ControlPlane
from cluster.operator_process import OperatorProcess
from cluster.tools import UnavailableError, made
from operator_fleet.pods import Pods
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
NAMESPACE = "bench"
#: What is asked for, in megabytes and seconds.
LIMITS = {
    "memory_mb": 200.0,
    "reconcile_of_all_s": 1.0,
    "edit_to_plan_p95_s": 2.0,
    "load_to_levels_s": 10.0,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/out/operator.json")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gesso-bench-operator-"))
    try:
        plane = ControlPlane(folder, made())
    except UnavailableError as error:
        print(error)
        return 0
    try:
        plane.up()
        with _servers(folder, args.services, args.workers):
            found = _measured(plane, folder, args.services, args.workers)
    finally:
        plane.down()
        shutil.rmtree(folder, ignore_errors=True)
    found |= {
        "services": args.services,
        "workers_each": args.workers,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    table = Table(title=f"{args.services} services of {args.workers} workers each")
    for column in ("figure", "measured", "asked"):
        table.add_column(column)
    for name, value in found.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.3g}", f"{LIMITS[name]:g}" if name in LIMITS else "")
    Console(width=100).print(table)
    print(f"written: {args.out}")
    return 0


def _measured(plane: ControlPlane, folder: Path, services: int, workers: int) -> dict[str, Any]:
    plane.kubectl("create", "namespace", NAMESPACE)
    plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "crd/diffusionservices.gesso.dev")
    names = [f"svc-{s}" for s in range(1, services + 1)]
    plane.kubectl("apply", "-n", NAMESPACE, "-f", "-", text=_manifest(names, workers))
    os.environ["KUBECONFIG"] = str(plane.kubeconfig)
    pods = Pods(NAMESPACE)
    op = OperatorProcess(plane.kubeconfig, "first", NAMESPACE, folder)
    _until(lambda: _applied(op) == set(names), 60, "the services' objects")
    for s, name in enumerate(names, 1):
        (folder / f"rate-{s}").write_text(f"{0.1 * workers}")
        fleet = [
            (f"{name}-worker-{w}", name, "worker", f"127.1.{s}.{w + 1}") for w in range(workers)
        ]
        pods.run([*fleet, (f"{name}-router-0", name, "router", f"127.1.{s}.200")])
    _until(lambda: all(_ready(pods, n) for n in names), 120, "all services ready")
    assert op.end() == 0
    began = time.monotonic()
    op = OperatorProcess(plane.kubeconfig, "second", NAMESPACE, folder)
    _until(lambda: op.said("leading"), 30, "the operator to lead")
    led = time.monotonic()
    _until(lambda: min(_rounds(op, names), default=0) >= 1, 60, "a round of each service")
    found: dict[str, Any] = {
        "start_to_lead_s": led - began,
        "all_applied_after_restart_s": time.monotonic() - led,
    }
    time.sleep(20)
    found |= _steady(op, 20.0)
    edits = sorted(_edit(pods, name) for name in names)
    found["edit_to_plan_median_s"] = statistics.median(edits)
    found["edit_to_plan_p95_s"] = edits[min(len(edits) - 1, int(0.95 * len(edits)))]
    found["load_to_levels_s"] = statistics.mean(
        _step(folder, s, 0.45 * workers) for s in range(1, min(4, services) + 1)
    )
    found["memory_mb"] = max(
        found["memory_mb"], psutil.Process(op.process.pid).memory_info().rss / 2**20
    )
    op.end()
    pods.close()
    return found


def _steady(op: OperatorProcess, seconds: float) -> dict[str, float]:
    """Memory, processor time and rounds while nothing but time passes."""
    process = psutil.Process(op.process.pid)
    cpu, before, began = sum(process.cpu_times()[:2]), _round_sums(op), time.monotonic()
    time.sleep(seconds)
    after, took = _round_sums(op), time.monotonic() - began
    used = sum(process.cpu_times()[:2]) - cpu
    rounds = {k: after[k][0] - before[k][0] for k in after}
    seconds = {k: after[k][1] - before[k][1] for k in after}
    return {
        "memory_mb": process.memory_info().rss / 2**20,
        "cpu_share": used / took,
        "reconcile_of_all_s": used / statistics.mean(rounds.values()),
        "round_mean_s": sum(seconds.values()) / sum(rounds.values()),
    }


def _edit(pods: Pods, name: str) -> float:
    began = time.monotonic()
    pods.patch(name, {"slo": {"latencySeconds": 13}})
    _until(
        lambda: "latencySeconds 12 to 13" in pods.service(name)["status"]["plan"]["message"],
        30,
        f"a plan for {name}",
        0.02,
    )
    return time.monotonic() - began


def _step(folder: Path, service: int, rate: float) -> float:
    told = folder / f"assigned-{service}"
    told.unlink(missing_ok=True)
    began = time.time()
    (folder / f"rate-{service}").write_text(f"{rate}")
    _until(lambda: told.exists() and told.read_text().strip() != "", 60, "another level", 0.02)
    return float(told.read_text().split()[0]) - began


def _manifest(names: list[str], workers: int) -> str:
    body = yaml.safe_load((ROOT / "manifests/samples/tiny.yaml").read_text())
    documents = []
    for name in names:
        body["metadata"]["name"] = name
        body["spec"]["workers"] = {"min": 1, "max": workers, "replicas": workers, "maxBatch": 1}
        body["spec"]["slo"]["latencySeconds"] = 12
        documents.append(yaml.safe_dump(body))
    return "---\n".join(documents)


def _applied(op: OperatorProcess) -> set[str]:
    return {line["service"].partition("/")[2] for line in op.lines if line["message"] == "applied"}


def _ready(pods: Pods, name: str) -> bool:
    conditions = pods.service(name).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _round_sums(op: OperatorProcess) -> dict[str, tuple[float, float]]:
    """Rounds and their seconds by service."""
    text = op.get("/metrics")[1]
    found: dict[str, list[float]] = {}
    for kind, service, value in re.findall(
        r'gesso_operator_round_seconds_(count|sum)\{.*?service="(.*?)"\} (\S+)', text
    ):
        found.setdefault(service, [0.0, 0.0])[kind == "sum"] = float(value)
    return {k: (v[0], v[1]) for k, v in found.items()}


def _rounds(op: OperatorProcess, names: list[str]) -> list[float]:
    sums = _round_sums(op)
    return [sums.get(n, (0.0, 0.0))[0] for n in names]


def _until(check: Callable[[], Any], seconds: float, what: str, pause: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


@contextmanager
def _servers(folder: Path, services: int, workers: int) -> Iterator[None]:
    script = Path(__file__).parent / "operator_fleet" / "servers.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(services), str(workers)]
    )
    try:
        _until(lambda: (folder / "up").exists(), 60, "the servers")
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
