"""Which shards are asked: all where it is not known better, else those that answer for the prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from router_kit import PREDICTOR, Clock, ScriptedPool, service

from gesso.builtin import builtin_path
from gesso.codebook import FILE_NAME, CodebookError, read_codebook
from gesso.placement import ALL_KNOW, PLACED_FROM, PROBES
from gesso.rpc.v1 import worker_pb2
from gesso_router.core import Router
from gesso_router.fleet import Endpoint, Fleet
from gesso_router.metrics import registry_of
from gesso_router.probes import MOST_UNANNOUNCED, Probes, find_codebook
from gesso_router.workers import report_of

BOOK = read_codebook(builtin_path("builtin://tiny-clip") / FILE_NAME)
NAMES = [f"worker-{i}" for i in range(ALL_KNOW + 2)]
ALL = [Endpoint(n, f"h:{i + 1}", 0) for i, n in enumerate(NAMES)]


def rows(count: int) -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def probes() -> Probes:
    """Of ten workers that go by the placement in force."""
    made = Probes()
    made.apply(NAMES)
    made.learn(BOOK)
    settle(made)
    return made


def settle(probes: Probes, names: list[str] = NAMES) -> None:
    assert probes.placement is not None
    for name in names:
        probes.reported(name, probes.placement.version, 0)


def test_the_two_nearest_owners_are_asked(probes: Probes) -> None:
    assert probes.placement is not None
    for row in rows(40):
        asked = {e.name for e in probes.asked(row, ALL)}
        assert asked == set(probes.placement.nearest(row, PROBES))


def test_of_a_fleet_where_all_know_one_is_asked(probes: Probes) -> None:
    names = NAMES[:ALL_KNOW]
    probes.apply(names)
    settle(probes, names)
    assert probes.placement is not None
    asked = []
    for row in rows(200):
        (one,) = probes.asked(row, ALL[:ALL_KNOW])
        assert one.name == probes.placement.nearest(row, 1)[0]
        asked.append(one.name)
        (other,) = probes.asked(row, [e for e in ALL[:ALL_KNOW] if e != one])
        assert other.name == probes.placement.nearest(row, 2)[1]
    assert set(asked) == set(names)


def test_in_place_of_one_that_cannot_be_reached_the_next_is_asked(probes: Probes) -> None:
    assert probes.placement is not None
    for row in rows(20):
        first, second, third = probes.placement.nearest(row, 3)
        reachable = [e for e in ALL if e.name != first]
        assert {e.name for e in probes.asked(row, reachable)} == {second, third}


@pytest.mark.parametrize("told", [("", 0), ("another", 0), (None, MOST_UNANNOUNCED + 1)])
def test_who_is_not_settled_is_asked_too(probes: Probes, told: tuple) -> None:
    assert probes.placement is not None
    version = probes.placement.version if told[0] is None else told[0]
    probes.reported("worker-3", version, told[1])
    asked = [{e.name for e in probes.asked(row, ALL)} for row in rows(20)]
    assert all("worker-3" in names for names in asked)
    assert min(map(len, asked)) == PROBES
    assert probes.behind("worker-3") == (version != probes.placement.version)


def test_a_worker_that_never_reported_is_asked_and_told_nothing_yet() -> None:
    probes = Probes()
    probes.apply(NAMES)
    probes.learn(BOOK)
    assert probes.asked(rows(1)[0], ALL) == ALL
    assert not probes.behind("worker-0")


def test_few_workers_are_all_asked(probes: Probes) -> None:
    few = ALL[: PLACED_FROM - 1]
    probes.apply(e.name for e in few)
    assert probes.asked(rows(1)[0], few) == few
    assert not probes.behind("worker-0")


def test_without_a_codebook_or_under_another_size_all_are_asked(probes: Probes) -> None:
    bare = Probes()
    bare.apply(NAMES)
    assert bare.asked(rows(1)[0], ALL) == ALL
    assert probes.asked(np.ones(3, np.float32), ALL) == ALL


def test_after_a_change_of_the_fleet_all_are_asked_until_they_know(probes: Probes) -> None:
    probes.apply(NAMES[:9])
    assert probes.asked(rows(1)[0], ALL[:9]) == ALL[:9]
    assert all(probes.behind(n) for n in NAMES[:9])


def test_a_codebook_lies_beside_its_model(tmp_path: Path) -> None:
    found = find_codebook("builtin://tiny-clip")
    assert found is not None
    assert found.version == BOOK.version
    assert find_codebook(str(tmp_path)) is None
    assert find_codebook("ViT-L-14/openai") is None
    (tmp_path / FILE_NAME).write_bytes(b"no")
    with pytest.raises(CodebookError, match=FILE_NAME):
        find_codebook(str(tmp_path))


def test_the_metrics_tell_of_each_shard_and_of_what_was_asked() -> None:
    told = worker_pb2.StatsResponse(
        ready=True,
        cache_entries=7,
        cache_bytes=100,
        cache_disk_bytes=200,
        cache_disk_corrupt=1,
        cache_disk_unwritten=2,
        cache_disk_failed=3,
    )
    fleet = Fleet(50, 4, 3)
    fleet.apply(ALL[:2])
    fleet.reported("worker-1", report_of(told), 1.0)
    pool = ScriptedPool(probed=12)
    router = Router(service(), PREDICTOR, fleet, pool, clock=Clock())
    lines = generate_latest(registry_of(router)).decode().splitlines()
    assert "gesso_router_probed_shards_total 12.0" in lines
    for line in (
        'entries{worker="worker-1"} 7.0',
        'bytes{tier="memory",worker="worker-1"} 100.0',
        'bytes{tier="disk",worker="worker-1"} 200.0',
        'faults_total{fault="corrupt",worker="worker-1"} 1.0',
        'faults_total{fault="unwritten",worker="worker-1"} 2.0',
        'faults_total{fault="failed",worker="worker-1"} 3.0',
    ):
        assert f"gesso_router_worker_cache_{line}" in lines
    assert not any("worker-0" in line for line in lines)
