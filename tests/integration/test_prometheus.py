"""A real Prometheus scrapes a real fleet: every metric arrives, every query is answered."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import grpc
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from router_process import Process, free_ports, spawn

from gesso.builtin import TINY_CLIP, TINY_SDXL, builtin_names
from gesso.metrics.catalogue import OPERATOR, ROUTER, SAMPLES, WORKER
from gesso.rpc.v1 import image_pb2, image_pb2_grpc, router_pb2, router_pb2_grpc
from gesso_operator.cluster.manager import GAUGES
from gesso_operator.cluster.names import Key
from gesso_operator.local.ports import free_port

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "manifests" / "samples" / "tiny.yaml"
PROMETHEUS = shutil.which("prometheus")
DEADLINE_S = 300.0

pytestmark = [
    pytest.mark.skipif(PROMETHEUS is None, reason="no Prometheus: apt-get install prometheus"),
    pytest.mark.skipif(
        not {TINY_SDXL, TINY_CLIP} <= set(builtin_names()),
        reason="the builtin models are not there",
    ),
    pytest.mark.timeout(900),
]


def until(holds, seconds=DEADLINE_S):
    """Polls another process until a condition holds."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"not in {seconds} s"
        time.sleep(0.2)
    return found


class NotReadyError(Exception):
    """Prometheus listens already and is still replaying its log: 503 and a line of plain text."""


class Server:
    """Prometheus' HTTP API."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, what, **query):
        url = f"{self.url}{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                told = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:
                    raise NotReadyError from error
                told = json.loads(error.read())
        assert told["status"] == "success", (query, told)
        return told["data"]

    def up(self):
        try:
            targets = self.ask("targets")["activeTargets"]
        except (NotReadyError, OSError):
            return False
        faults = [t["lastError"] for t in targets if t["health"] == "down" and t["lastError"]]
        assert not [f for f in faults if "parse" in f or "invalid" in f], faults
        return len(targets) == 4 and all(t["health"] == "up" for t in targets)


def operator_metrics():
    """The operator's own collector over a manager's figures made up: no cluster is needed for it."""
    from prometheus_client import CollectorRegistry, start_http_server

    from gesso_operator.cluster.metrics import OperatorMetrics

    class Manager:
        leads, status_writes = True, 3
        decisions = {(Key("n", "s"), "Steady", False): 4, (Key("n", "s"), "LoadRose", True): 1}  # noqa: RUF012

        def gauges(self):
            return {Key("n", "s"): dict.fromkeys(GAUGES, 1.0)}

        def rounds(self):
            return {Key("n", "s"): (2, 0.5)}

    registry = CollectorRegistry()
    registry.register(OperatorMetrics(Manager()))
    return start_http_server(0, "127.0.0.1", registry)[0]


@contextlib.contextmanager
def worker_processes(folder, service):
    """Two workers on the tiny model; gives the addresses of their gRPC and of their metrics."""
    addresses = [tuple(f"127.0.0.1:{free_port()}" for _ in range(2)) for _ in range(2)]
    processes = []
    try:
        for i, (listen, metrics) in enumerate(addresses):
            with (folder / f"worker-{i}.log").open("wb") as log:
                command = [sys.executable, "-m", "gesso_worker.server", "--name", f"worker-{i}"]
                flags = ["--listen", listen, "--metrics", metrics, "--service", str(service)]
                processes.append(subprocess.Popen([*command, *flags], stderr=log))
        yield addresses
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(20) for process in processes]
    assert codes == [0, 0], "a worker with metrics ends as one without"


@contextlib.contextmanager
def patient_router(folder, service):
    """A router that has longer to load than the other tests' ones."""
    grpc_port, http_port = free_ports()
    stderr = folder / "router.log"
    flags = {
        "--grpc": f"127.0.0.1:{grpc_port}",
        "--http": f"127.0.0.1:{http_port}",
        "--service": str(service),
        "--state-dir": str(folder / "state"),
    }
    popen = spawn(stderr, flags)
    try:
        until(lambda: '"message": "serving"' in stderr.read_text() or popen.poll() is not None)
        assert popen.poll() is None, stderr.read_text()
        yield Process(popen, grpc_port, http_port, stderr)
    finally:
        popen.kill()
        popen.wait()


def apply(router, workers):
    """Tells the router its workers, and waits until it may send to them."""
    with grpc.insecure_channel(f"127.0.0.1:{router.grpc_port}") as channel:
        stub = router_pb2_grpc.RouterControlStub(channel)
        request = router_pb2.ApplyPlanRequest(
            plan=router_pb2.Plan(revision=1, made_at=1.0, reason="Test"),
            workers=[
                router_pb2.WorkerEndpoint(name=f"worker-{i}", address=listen)
                for i, (listen, _) in enumerate(workers)
            ],
        )
        stub.ApplyPlan(request, timeout=10)
        until(lambda: stub.Report(router_pb2.ReportRequest(), timeout=5).workers_ready == 2)


def generate(router, prompt):
    with grpc.insecure_channel(f"127.0.0.1:{router.grpc_port}") as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        events = list(stub.Generate(image_pb2.GenerateRequest(prompt=prompt), timeout=240))
    assert events[-1].WhichOneof("event") == "image"


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """A Prometheus that has scraped a router, two workers and an operator's metrics a few times."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    operator = operator_metrics()
    service = folder / "tiny.yaml"
    service.write_text(SAMPLE.read_text().replace("latencySeconds: 4", "latencySeconds: 240"))
    # One after the other: a busy machine is slow to import torch three times at once.
    with (
        patient_router(folder, service) as router,
        worker_processes(folder, service) as workers,
    ):
        apply(router, workers)
        for prompt in ("a large red star", "a large red star", "a small blue ring"):
            generate(router, prompt)
        targets = {
            "router": [f"127.0.0.1:{router.http_port}"],
            "worker": [metrics for _, metrics in workers],
            "operator": [f"127.0.0.1:{operator.server_address[1]}"],
        }
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "manifests" / "rules" / "gesso.yaml")],
            "scrape_configs": [
                {
                    "job_name": job,
                    "honor_labels": True,
                    "static_configs": [
                        {"targets": [t], "labels": {"namespace": "n", "pod": f"{job}-{i}"}}
                        for i, t in enumerate(addresses)
                    ],
                }
                for job, addresses in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            PROMETHEUS,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            server = Server(port)
            until(server.up)
            time.sleep(4)  # a rate needs two scrapes
            generate(router, "a large red star")
            time.sleep(3)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            operator.shutdown()
            operator.server_close()


def test_every_metric_arrives_with_its_kind(scraped):
    kinds = {name: told[0]["type"] for name, told in scraped.ask("metadata").items()}
    for spec in (*ROUTER, *WORKER, *OPERATOR):
        # OpenMetrics names a counter's family without what its samples end with.
        told = kinds.get(spec.name) or kinds.get(f"{spec.name}_total")
        assert told == spec.kind, spec.name
    names = set(scraped.ask("label/__name__/values"))
    # What has no value before something goes wrong.
    silent = {"gesso_worker_switch_seconds"}
    assert set(SAMPLES) - silent <= names
    ours = {n for n in names if n.startswith("gesso_") and not n.endswith("_created")}
    assert ours <= set(SAMPLES)


def queries():
    for path in sorted((ROOT / "manifests" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "10s")
                yield f"{path.stem}: {panel['title']}", re.sub(r"\$\w+", ".*", text)


def test_every_panel_gets_an_answer(scraped):
    empty = [t for t, q in queries() if not scraped.ask("query", query=q)["result"]]
    # No change of model and no verdict of a judge came in these seconds.
    rare = {
        "gesso-services: Last change of model",
        "gesso-services: Error of predicted quality",
    }
    assert set(empty) <= rare


def test_every_rule_is_evaluated_without_a_fault(scraped):
    groups = until(lambda: scraped.ask("rules")["groups"])
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 10
    until(lambda: all(r["health"] == "ok" for r in scraped.ask("rules")["groups"][0]["rules"]), 30)
    assert not [r["name"] for r in rules if r.get("lastError")]


def test_the_figures_are_those_of_what_was_served(scraped):
    def value(query):
        (found,) = scraped.ask("query", query=query)["result"]
        return float(found["value"][1])

    assert value("sum(gesso_router_images_total)") == 4
    assert value("sum(gesso_worker_images_total)") >= 4
    assert value('sum(gesso_router_stage_seconds_count{stage="total"})') == 4
    assert value("count(gesso_worker_ready == 1)") == 2
    assert value("sum(gesso_router_served_total)") == 4
    # The same prompt came again: its own entry was found.
    assert (
        value(
            'sum(gesso_router_similarity_count) - sum(gesso_router_similarity_bucket{le="0.999"})'
        )
        >= 1
    )
