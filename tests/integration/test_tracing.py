"""Traces of a real router and real workers at a real collector, and the log lines that go with them."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from one_query import one_query, only_answer
from otlp_collector import Collector, Span

from gesso.api.local_state import StateDir
from gesso.builtin import TINY_CLIP, TINY_SDXL, builtin_names
from gesso.rpc.v1 import image_pb2, image_pb2_grpc, worker_pb2, worker_pb2_grpc
from gesso.vectors import packed
from gesso_operator.local.ports import free_port

pytestmark = pytest.mark.timeout(300)

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "tiny.yaml"
PROMPT = "a velvet zeppelin moored above Ouagadougou"
NEGATIVE = "no quixotic gargoyles"
ROUTE = "POST /v1/images/generations"
GENERATE = "gesso.v1.Worker/Generate"
LOOKUP = "gesso.v1.Worker/Lookup"
FETCH = "gesso.v1.Worker/FetchLatents"
SERVER, CLIENT = 2, 3


def traceparent(trace: str, *, sampled: bool = True) -> str:
    return f"00-{trace}-{secrets.token_hex(8)}-{'01' if sampled else '00'}"


@dataclass
class Fleet:
    """A service with two workers on this machine, and the collector that it was told of."""

    collector: Collector
    place: StateDir
    http_port: int
    grpc_port: int
    asked: list[str] = field(default_factory=list)

    def post(self, prompt: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
        self.asked.append(prompt)
        url = f"http://127.0.0.1:{self.http_port}/v1/images/generations"
        with httpx.Client(timeout=120, trust_env=False) as client:
            return client.post(url, headers=headers, json={"prompt": prompt, **body})

    def log(self, name: str) -> str:
        return self.place.log(name).read_text()

    @property
    def worker_logs(self) -> str:
        return self.log("worker-0") + self.log("worker-1")

    def workers(self) -> dict[str, str]:
        state = self.place.read_state()
        assert state is not None
        return {c.name: c.address for c in state.children if c.name.startswith("worker")}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if not {TINY_SDXL, TINY_CLIP} <= set(builtin_names()):
        pytest.skip("the builtin models are not there")
    folder = tmp_path_factory.mktemp("traced")
    grpc_port, http_port = free_port(), free_port()

    def gesso(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gesso.cli.main", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)

    with Collector() as collector:
        spec = SAMPLE.read_text().replace("latencySeconds: 4", "latencySeconds: 120")
        spec += f"  tracing: {{endpoint: '{collector.endpoint}', sampleRatio: 0}}\n"
        (folder / "tiny.yaml").write_text(spec)
        up = gesso(
            *("up", "tiny.yaml", "--grpc-port", str(grpc_port), "--http-port", str(http_port))
        )
        assert up.returncode == 0, up.stderr
        try:
            place = StateDir(folder / ".gesso" / "tiny")
            yield Fleet(collector, place, http_port, grpc_port)
        finally:
            gesso("down")


def tree(spans: list[Span]) -> dict[str, Span]:
    return {s.id: s for s in spans}


def path(span: Span, spans: list[Span]) -> list[str]:
    """Names from the request's own span down to this one."""
    by_id, found = tree(spans), [span.name]
    while span.parent in by_id:
        span = by_id[span.parent]
        found.insert(0, span.name)
    return found


def test_one_trace_from_the_client_through_router_and_worker(fleet: Fleet) -> None:
    trace = secrets.token_hex(16)
    own = traceparent(trace)
    answer = fleet.post(PROMPT, {"traceparent": own, "x-request-id": "first"}, seed=1)
    assert answer.status_code == 200, answer.text
    image = "generate_content tiny"
    names = (ROUTE, image, "admit", "embed", "lookup", "choose")
    stages = ("queue", "encode", "denoise", "decode")
    spans = fleet.collector.until(trace, *names, GENERATE, LOOKUP, *stages)
    # Connected: everything hangs below the client's own span.
    roots = [s for s in spans if s.parent not in tree(spans)]
    assert [(r.name, r.parent, r.kind) for r in roots] == [(ROUTE, own.split("-")[2], SERVER)]
    by_name = {s.name: s for s in spans if s.name not in (GENERATE, LOOKUP)}
    for name in ("admit", "embed", "lookup", "choose"):
        assert path(by_name[name], spans) == [ROUTE, image, name]
    for name in stages:
        assert path(by_name[name], spans) == [ROUTE, image, GENERATE, GENERATE, name]
    # Each shard was asked, and answers within the question.
    asked = [s for s in spans if s.name == LOOKUP and s.kind == CLIENT]
    answered = [s for s in spans if s.name == LOOKUP and s.kind == SERVER]
    assert {s.attributes["gesso.worker"] for s in asked} == {"worker-0", "worker-1"}
    assert {s.parent for s in answered} == {s.id for s in asked}
    # What each tells.
    told = by_name[image].attributes
    assert told["gesso.request_id"] == "first"
    assert told["gen_ai.request.seed"] == 1
    request = by_name[ROUTE].attributes
    assert (request["http.route"], request["http.response.status_code"]) == (ROUTE[5:], 200)
    chosen = by_name["choose"].attributes
    assert (chosen["gesso.skipped_steps"], chosen["gesso.similarity"]) == (0, 0.0)
    assert {"gesso.price", "gesso.reason", "gesso.worker"} <= set(chosen)
    denoised = by_name["denoise"].attributes
    assert (denoised["gesso.steps"], denoised["gesso.skipped_steps"]) == (50, 0)
    assert denoised["gesso.batch.mean"] == 1.0
    # Times are of one clock, in order.
    assert by_name["encode"].ended <= by_name["denoise"].began + 0.005
    assert by_name["denoise"].ended <= by_name["decode"].began + 0.005
    for span in spans:
        parent = tree(spans).get(span.parent)
        assert span.began <= span.ended
        assert parent is None or parent.began - 0.005 <= span.began <= parent.ended + 0.005
    services = {s.resource["service.name"]: s.resource for s in spans}
    assert set(services) == {"gesso-router", "gesso-worker"}
    assert services["gesso-worker"]["service.instance.id"] in ("worker-0", "worker-1")
    assert services["gesso-router"]["service.namespace"] == "tiny"


def test_a_start_from_a_cached_latent_is_told(fleet: Fleet) -> None:
    fleet.post(PROMPT, seed=1)
    trace = secrets.token_hex(16)
    answer = fleet.post(PROMPT, {"traceparent": traceparent(trace)}, skipped_steps=10, seed=1)
    assert answer.status_code == 200, answer.text
    spans = {s.name: s for s in fleet.collector.until(trace, "fetch", "denoise", ROUTE)}
    assert spans["choose"].attributes["gesso.skipped_steps"] == 10
    assert spans["choose"].attributes["gesso.similarity"] == pytest.approx(1.0, abs=0.01)
    assert spans["fetch"].attributes["gesso.skipped_steps"] == 10
    denoised = spans["denoise"].attributes
    assert (denoised["gesso.steps"], denoised["gesso.skipped_steps"]) == (40, 10)


def test_a_fetch_from_another_worker_is_in_the_trace_of_both(fleet: Fleet) -> None:
    """As a router asks for it whose choice falls on a worker without the latents."""
    fleet.post(PROMPT, seed=1)
    workers = fleet.workers()
    trace = secrets.token_hex(16)
    channels = {name: grpc.insecure_channel(address) for name, address in workers.items()}
    stubs = {name: worker_pb2_grpc.WorkerStub(channel) for name, channel in channels.items()}
    # An entry of its own, wherever the router's went.
    embedding = packed([1.0] + [0.0] * 63)
    first = worker_pb2.WorkerGenerateRequest(
        request_id="left", prompt=PROMPT, seed=1, embedding=embedding, keep_latents=True
    )
    list(stubs["worker-0"].Generate(first, timeout=60))
    asked = one_query(embedding=embedding, limit=1)
    (match,) = only_answer(stubs["worker-0"].Lookup(asked, timeout=10))
    second = worker_pb2.WorkerGenerateRequest(
        request_id="fetched",
        prompt=PROMPT,
        seed=1,
        skipped_steps=10,
        source=worker_pb2.LatentSource(
            entry_id=match.entry_id, worker="worker-0", address=workers["worker-0"]
        ),
    )
    metadata = (("traceparent", traceparent(trace)), ("x-request-id", "theirs"))
    events = list(stubs["worker-1"].Generate(second, timeout=60, metadata=metadata))
    assert events[-1].image.skipped_steps == 10
    spans = fleet.collector.until(trace, FETCH, "fetch", "decode", GENERATE)
    ends = [s for s in spans if s.name == FETCH and s.kind == SERVER]
    assert [path(s, spans) for s in ends] == [[GENERATE, "fetch", FETCH, FETCH]]
    assert ends[0].resource["service.instance.id"] == "worker-0"
    assert '"request": "theirs"' in fleet.log("worker-1")
    for channel in channels.values():
        channel.close()


def test_grpc_clients_bring_their_trace_and_those_who_decline_are_not_traced(fleet: Fleet) -> None:
    traces = {sampled: secrets.token_hex(16) for sampled in (True, False)}
    with grpc.insecure_channel(f"127.0.0.1:{fleet.grpc_port}") as channel:
        stub = image_pb2_grpc.ImageServiceStub(channel)
        for sampled in (False, True):
            call = stub.Generate(
                image_pb2.GenerateRequest(prompt=PROMPT, negative_prompt=NEGATIVE, seed=2),
                timeout=120,
                metadata=(("traceparent", traceparent(traces[sampled], sampled=sampled)),),
            )
            events = list(call)
            assert events[-1].image.data
            assert dict(call.trailing_metadata())["x-request-id"] == events[-1].request_id
    fleet.post(PROMPT)  # sampleRatio is 0
    service = "gesso.v1.ImageService/Generate"
    spans = fleet.collector.until(traces[True], service, "decode")
    assert {s.attributes["rpc.system.name"] for s in spans if "rpc.method" in s.attributes} == {
        "grpc"
    }
    assert fleet.collector.of(traces[False]) == []
    # Nobody's trace began here.
    assert "" not in {s.parent for s in fleet.collector.spans if s.kind == SERVER}


def test_logs_of_router_and_worker_tell_of_a_request_by_its_id(fleet: Fleet) -> None:
    trace = secrets.token_hex(16)
    headers = {"traceparent": traceparent(trace), "x-request-id": "order-4711"}
    answer = fleet.post(PROMPT, headers, negative_prompt=NEGATIVE)
    assert answer.headers["x-request-id"] == "order-4711"
    assert answer.json()["data"][0]["gesso"]["request_id"] == "order-4711"
    fleet.collector.until(trace, ROUTE, "decode")
    for text, part in ((fleet.log("router"), "router"), (fleet.worker_logs, "worker")):
        lines = [json.loads(line) for line in text.splitlines()]
        (line,) = [x for x in lines if x.get("request") == "order-4711"]
        assert (line["part"], line["message"], line["trace"]) == (part, "image", trace)
        assert list(line)[:2] == ["time", "level"]


def test_no_byte_that_left_a_process_holds_a_prompt(fleet: Fleet) -> None:
    """Last of this fleet: after all that came before."""
    assert fleet.post(PROMPT, user="u" * 500).status_code == 400
    assert len(fleet.collector.raw) > 3
    bytes_out = b"".join(fleet.collector.raw)
    logs = (fleet.log("router") + fleet.worker_logs + fleet.log("supervisor")).encode()
    assert b"gesso.prompt_hash" in bytes_out
    for text in (*set(fleet.asked), PROMPT, NEGATIVE):
        for word in (text, *text.split()):
            if len(word) > 5:
                assert word.encode() not in bytes_out
                assert word.encode() not in logs
