"""A local fleet with two routers under load, over workers that compute nothing: nothing is lost."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gesso.builtin import TINY_CLIP, builtin_names
from gesso_simulator.workloads.arrivals import RateShape, poisson_arrivals
from gesso_simulator.workloads.sessions import SessionMix, prompts, requests

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from chaos.disturbed import disturbed, seconds_of
from chaos.faults import FAULTS
from chaos.fleets import FakeWorkersFleet, write_service

pytestmark = [
    pytest.mark.skipif(TINY_CLIP not in builtin_names(), reason="the builtin models are not there"),
    pytest.mark.timeout(300),
]

# Between two routers that go there is time for what the first let go of: a client asks no third time.
WANTED = {"kill-worker": 8.0, "restart-router": 25.0, "kill-router": 20.0}
CALM_S, PER_SECOND, SLO_S = 3.0, 2.0, 20.0


def test_nothing_that_was_accepted_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "bench"), prepend=":")
    service = tmp_path / "service.yaml"
    write_service(service, routers=2, slo_seconds=SLO_S)
    faults = [replace(f, after_s=WANTED[f.name]) for f in FAULTS if f.name in WANTED]
    seconds, rng = seconds_of(faults, CALM_S, 1.0), np.random.default_rng(3)
    arrivals = poisson_arrivals(RateShape(((0.0, PER_SECOND), (seconds, PER_SECOND))), rng)
    asked = requests(arrivals, prompts(SessionMix(), rng), rng)
    with FakeWorkersFleet(service, tmp_path / "state") as fleet:
        before = fleet.routers()
        found = asyncio.run(disturbed(fleet, asked, SLO_S, 0.95, faults, CALM_S, 1.0))
        after = fleet.routers()
        assert set(fleet.workers()) == {"worker-0", "worker-1"}
    everything = found["all"]
    assert everything["offered"] == len(asked) > 50
    assert everything["accepted_and_lost"] == 0, found["lost_because"]
    assert everything["lost"] == everything["failed"] == everything["refused"] == 0
    # It was not for want of faults: both routers are others now, on their own ports.
    assert {n: r[1:] for n, r in before.items()} == {n: r[1:] for n, r in after.items()}
    assert all(before[n][0] != after[n][0] for n in before)
    for name in ("restart-router", "kill-router"):
        assert any("SomeRoutersDown" in line for line in found["faults"][name]["said"]), name
    assert any("SomeWorkersDown" in line for line in found["faults"]["kill-worker"]["said"])
