"""The catalogue is what the parts expose: no more, no less, with these labels; and its reference is current."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from router_kit import Clock, Events, ScriptedPool, job, router

from gesso.metrics.catalogue import CATALOGUE, LABELS, OPERATOR, PARTS, ROUTER, WORKER, Spec
from gesso.metrics.families import Histogram, counter, gauge, histogram
from gesso.metrics.reference import reference
from gesso.rpc.v1 import worker_pb2
from gesso_operator.cluster.manager import GAUGES
from gesso_operator.cluster.metrics import OperatorMetrics
from gesso_operator.cluster.names import Key
from gesso_router.metrics import registry_of
from gesso_router.routing.quality import Match
from gesso_worker.errors import StartError
from gesso_worker.metrics import families_of, serve_metrics

DOCS = Path(__file__).parents[3] / "docs"


def held_to(families: Iterable[Metric], specs: tuple[Spec, ...]) -> list[Metric]:
    found = list(families)
    assert {f.name for f in found} == {s.name for s in specs}
    for family in found:
        spec = CATALOGUE[family.name]
        assert (family.type, family.documentation) == (spec.kind, spec.says)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(spec.labels), sample
            assert sample.name in (*spec.samples, f"{family.name}_created"), sample
    return found


class OneService:
    """A manager of one service with every figure."""

    leads, status_writes = True, 3
    decisions = {(Key("n", "s"), "Steady", False): 4}  # noqa: RUF012

    def gauges(self):  # type: ignore[no-untyped-def]
        return {Key("n", "s"): dict.fromkeys(GAUGES, 1.5)}

    def rounds(self):  # type: ignore[no-untyped-def]
        return {Key("n", "s"): (2, 0.5)}


async def test_the_router_exposes_its_part() -> None:
    pool = ScriptedPool(matches=[Match("e", "b", 0.93, (10,))])
    made = router(pool, Clock())
    registry = registry_of(made)
    await made.generate(job(made.service, skipped_steps=10), Events())
    found = {f.name: f for f in held_to(registry.collect(), ROUTER)}
    served = {tuple(s.labels.values()): s.value for s in found["gesso_router_served"].samples}
    assert served == {("served_in_slo", "10", "QualityAware"): 1}
    similar = {
        s.labels["le"]: s.value
        for s in found["gesso_router_similarity"].samples
        if "le" in s.labels
    }
    assert (similar["0.925"], similar["0.95"], similar["+Inf"]) == (0, 1, 1)
    counts = {
        s.labels["stage"]: s.value
        for s in found["gesso_router_stage_seconds"].samples
        if s.name.endswith("_count")
    }
    stages = ("embed", "lookup", "queue", "encode", "fetch", "denoise", "decode", "total")
    assert counts == dict.fromkeys(stages, 1)


def test_the_operator_exposes_its_part() -> None:
    found = held_to(OperatorMetrics(OneService()).collect(), OPERATOR)  # type: ignore[arg-type]
    assert all(f.samples for f in found)


def stats() -> worker_pb2.StatsResponse:
    told = worker_pb2.StatsResponse(
        worker="w",
        ready=True,
        images_done=7,
        cache_disk_corrupt=2,
        cache_bytes=10,
        switch_error="no",
    )
    told.profile.step_seconds.extend((0.1, 0.15))
    told.last_switch.load_seconds = 3.0
    told.queued.add(request_id="r", remaining_steps=4)
    return told


def test_the_worker_exposes_its_part() -> None:
    found = held_to(families_of(stats()), WORKER)
    assert all(f.samples for f in found)
    never = {f.name: f for f in families_of(worker_pb2.StatsResponse())}
    assert never["gesso_worker_switch_seconds"].samples == []


async def test_the_worker_serves_its_metrics_until_it_is_shut_down() -> None:
    async def ask() -> worker_pb2.StatsResponse:
        return stats()

    server = serve_metrics("127.0.0.1:0", ask)
    port = server.server_address[1]
    try:

        def scrape() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())

        text = await asyncio.to_thread(scrape)
        assert "gesso_worker_cache_corrupt_total 2.0" in text
        assert 'gesso_worker_requests{state="queued"} 1.0' in text
        with pytest.raises(StartError, match=f"--metrics: 127.0.0.1:{port} cannot be bound"):
            serve_metrics(f"127.0.0.1:{port}", ask)
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


def test_the_reference_is_current_and_names_every_metric() -> None:
    told = (DOCS / "metrics.md").read_text()
    assert told == reference(), "run: make metrics"
    for spec in CATALOGUE.values():
        assert f"`{spec.name}" in told


def test_names_are_prometheus_own_and_every_label_is_bounded_and_used() -> None:
    assert len(CATALOGUE) == sum(map(len, PARTS.values()))
    for name in CATALOGUE:
        assert re.fullmatch(r"gesso_(router|worker|operator)_[a-z_]+[a-z]", name)
        assert not name.endswith("_total")
    assert {label for spec in CATALOGUE.values() for label in spec.labels} == set(LABELS)
    for never in ("prompt", "tenant", "request_id", "user"):
        assert never not in LABELS
    with pytest.raises(ValueError, match="have no bound"):
        Spec("gesso_router_x", "gauge", "", ("prompt",))


def test_what_is_not_declared_or_of_another_kind_cannot_be_exposed() -> None:
    with pytest.raises(KeyError):
        counter("gesso_router_secrets", 1)
    with pytest.raises(TypeError, match="gauge is not allowed: it is declared as a counter"):
        gauge("gesso_router_retries", 1)


@given(st.lists(st.floats(-1, 2), max_size=30))
def test_a_histogram_counts_every_value_at_or_below_each_bound(values: list[float]) -> None:
    told = Histogram((0.25, 0.5, 1.0))
    for value in values:
        told.observe(value)
    (family,) = [histogram("gesso_router_similarity", {(): told})]
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name.endswith("_bucket")}
    expected = {b: sum(v <= float(b) for v in values) for b in ("0.25", "0.5", "1.0", "+Inf")}
    assert buckets == expected


def test_a_histogram_whose_bounds_do_not_ascend_is_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        Histogram((1.0, 0.5))
