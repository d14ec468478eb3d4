"""Spans: what a router tells of each path of a request, and what the library that sends them may cost."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, SpanKind

sys.path.insert(0, str(Path(__file__).parents[1] / "router"))

from router_kit import PREDICTOR, Clock, Events, ScriptedPool, failing, job, router

from gesso import tracing
from gesso.tracing import CLOSE_S, GIVE_UP_S, MOST_WAITING, OFF, Tracing, carrier_of
from gesso_router.core import Router
from gesso_router.errors import RequestError
from gesso_router.http_api import create_app

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Seen:
    """A tracer, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider.get_tracer("test"))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def told(self) -> list[tuple[str, Any]]:
        return [(s.name, (s.attributes or {}).get("error.type")) for s in self.spans]


@pytest.fixture
def seen() -> Seen:
    return Seen()


def traced(seen: Seen, pool: ScriptedPool) -> Router:
    made = router(pool, Clock())
    again = Router(
        made.service, PREDICTOR, made.fleet, pool, clock=made._clock, tracing=seen.tracing
    )
    again.embedder = made.embedder
    return again


async def test_each_attempt_has_a_span_and_says_why_it_failed(seen: Seen) -> None:
    made = traced(seen, ScriptedPool(scripts={"a red star": [failing()]}))
    with seen.tracing.serve("request", {"traceparent": PARENT}):
        await made.generate(job(made.service), Events(), None)
    attempts = [s for s in seen.spans if s.name == "gesso.v1.Worker/Generate"]
    told = [s.attributes or {} for s in attempts]
    assert [(t["gesso.attempt"], t.get("error.type")) for t in told] == [(1, "lost"), (2, None)]
    assert len({t["gesso.worker"] for t in told}) == 2
    assert {s.kind for s in attempts} == {SpanKind.CLIENT}
    assert {s.context.trace_id for s in seen.spans if s.context} == {int(TRACE, 16)}


@pytest.mark.parametrize(
    ("fields", "ended"),
    [
        ({"slo_seconds": 0.001}, [("choose", "deadline"), ("generate_content tiny", "deadline")]),
        ({}, [("admit", "not-ready"), ("generate_content tiny", "not-ready")]),
    ],
    ids=["no time", "draining"],
)
async def test_a_refusal_tells_its_reason_in_the_span_that_it_ended_in(
    seen: Seen, fields: dict[str, Any], ended: list[tuple[str, str]]
) -> None:
    made = traced(seen, ScriptedPool())
    made.draining = not fields
    with seen.tracing.serve("request", {}), pytest.raises(RequestError):
        await made.generate(job(made.service, **fields), Events(), None)
    assert [t for t in seen.told if t[1]][:2] == ended


async def test_a_prompt_that_cannot_be_embedded_is_told(seen: Seen) -> None:
    made = traced(seen, ScriptedPool())
    with seen.tracing.serve("request", {}):
        await made.generate(job(made.service, "cannot be embedded"), Events(), None)
    assert ("embed", "no-embedding") in seen.told
    assert "cannot be embedded" not in "".join(s.to_json() for s in seen.spans)


async def test_a_client_that_leaves_ends_its_spans(seen: Seen) -> None:
    async def never(request: Any) -> int:
        await asyncio.sleep(60)
        return 0

    made = traced(seen, ScriptedPool(scripts={"a red star": [never]}))

    async def request() -> None:
        with seen.tracing.serve("request", {}):
            await made.generate(job(made.service), Events(), None)

    task = asyncio.create_task(request())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for name in ("gesso.v1.Worker/Generate", "generate_content tiny", "request"):
        assert (name, "CancelledError") in seen.told


async def test_http_requests_that_make_images_are_traced_and_nothing_else(seen: Seen) -> None:
    made = traced(seen, ScriptedPool())
    transport = httpx.ASGITransport(create_app(made, tracing=seen.tracing))
    async with httpx.AsyncClient(transport=transport, base_url="http://r") as http:
        for path in ("/healthz", "/metrics", "/v1/models", "/console/state"):
            await http.get(path)
        assert seen.spans == []
        ok = await http.post(
            "/v1/images/generations?note=secret-in-the-query",
            json={"prompt": "a secret star", "n": 2},
            headers={"traceparent": PARENT, "x-request-id": "mine"},
        )
        bad = await http.post("/v1/images/generations", json={"prompt": "a secret star", "n": 99})
    assert (ok.status_code, bad.status_code) == (200, 400)
    images = [s for s in seen.spans if s.name == "generate_content tiny"]
    ids = {(s.attributes or {})["gesso.request_id"] for s in images}
    assert ids == {"mine-0", "mine-1"}
    requests = [s for s in seen.spans if s.name == "POST /v1/images/generations"]
    assert [(s.attributes or {})["http.response.status_code"] for s in requests] == [200, 400]
    assert "secret" not in "".join(s.to_json() for s in seen.spans)


def test_off_makes_nothing_and_takes_nothing_along() -> None:
    with OFF.serve("x", {"traceparent": PARENT}) as span, OFF.span("y") as inner:
        assert span is inner is INVALID_SPAN
        assert OFF.metadata() == ()
    assert OFF.begin("x", {}) is INVALID_SPAN
    OFF.record("x", INVALID_SPAN, 0, 1)
    OFF.close()


@pytest.mark.parametrize("process", ["gesso_router.server", "gesso_worker.lifecycle"])
def test_off_loads_nothing_that_sends_spans(process: str) -> None:
    code = f"import sys, {process}; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert out.returncode == 0, out.stderr
    loaded = set(out.stdout.split())
    assert "gesso.tracing" in loaded
    assert not {"opentelemetry.sdk.trace", "opentelemetry.exporter"} & loaded


def test_a_trace_that_is_not_sampled_costs_no_spans_and_is_not_carried(seen: Seen) -> None:
    with seen.tracing.serve("x", {"traceparent": PARENT[:-2] + "00"}), seen.tracing.span("y"):
        assert seen.tracing.metadata() == ()
    assert seen.spans == []


def test_malformed_trace_context_begins_a_new_trace(seen: Seen) -> None:
    for bad in ("", "00-xyz-1-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "a" * 5000):
        with seen.tracing.serve("x", {"traceparent": bad}):
            assert seen.tracing.metadata()[0][0] == "traceparent"
    odd = {"traceparent": PARENT, "tracestate": "\x00=;,,=" + "a" * 5000}
    with seen.tracing.serve("y", odd):
        assert TRACE in seen.tracing.metadata()[0][1]
    assert all(s.parent is None for s in seen.spans if s.name == "x")


def test_of_metadata_only_the_trace_context_is_read() -> None:
    metadata = [("traceparent", PARENT), ("authorization", "k"), ("tracestate", b"\xff")]
    assert carrier_of(metadata) == {"traceparent": PARENT}
    assert carrier_of(None) == {}


@pytest.fixture
def silent() -> Iterator[str]:
    """Where somebody listens who never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(4)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_what_waits_for_a_dead_collector_is_bounded_and_nobody_waits_with_it(silent: str) -> None:
    made = tracing.start(silent, "router", "tiny", "i", 1.0)
    try:
        slowest = 0.0
        for _ in range(3 * MOST_WAITING):
            began = time.monotonic()
            with made.serve("x", {}):
                pass
            slowest = max(slowest, time.monotonic() - began)
        provider: Any = made._provider
        (processor,) = provider._active_span_processor._span_processors
        assert len(processor._batch_processor._queue) <= MOST_WAITING
        assert slowest < CLOSE_S
    finally:
        began = time.monotonic()
        made.close(0.2)
        assert time.monotonic() - began < 0.2 + GIVE_UP_S + 1.0


def test_a_ratio_of_none_begins_no_trace_but_goes_on_with_one(silent: str) -> None:
    made = tracing.start(silent, "worker", "tiny", "i")
    try:
        assert not made.begin("x", {}).is_recording()
        assert made.begin("x", {"traceparent": PARENT}).is_recording()
    finally:
        made.close(0.1)
