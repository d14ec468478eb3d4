"""The simulated worker against a simulation that goes tick by tick."""

from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation_kit import BATCHED, PLAIN

from gesso.profile import Profile
from gesso_simulator.engine.worker import Job, SimulatedWorker


def finishes(profile: Profile, jobs: list[tuple[float, int]]) -> dict[int, float]:
    """When each job, given as (arrival, steps), leaves a simulated worker."""
    worker = SimulatedWorker(0, "w", profile, "", profile.max_batch)
    events: list[tuple[float, int, int, int]] = []
    for i, (at, _) in enumerate(jobs):
        heapq.heappush(events, (at, 0, i, 0))
    left: dict[int, float] = {}
    order = 1
    while events:
        now, kind, i, version = heapq.heappop(events)
        if kind == 0:
            at = worker.push(Job(i, 0, 0, jobs[i][1], 1.0, now), now)
        elif version != worker.version:
            continue
        else:
            done, leaves, at = worker.advance(now)
            for job in done:
                left[job.request] = leaves
        if at is not None:
            order += 1
            heapq.heappush(events, (at, 1, order, worker.version))
    return left


def by_ticks(profile: Profile, jobs: list[tuple[float, int]]) -> dict[int, float]:
    """The same, one tick of the batch after the other."""
    waiting = sorted(range(len(jobs)), key=lambda i: (jobs[i][0], i))
    batch: list[list[int]] = []
    now, left = 0.0, {}
    while waiting or batch:
        if not batch and jobs[waiting[0]][0] > now:
            now = jobs[waiting[0]][0]
        while waiting and len(batch) < profile.max_batch and jobs[waiting[0]][0] <= now + 1e-12:
            i = waiting.pop(0)
            batch.append([i, jobs[i][1]])
            now += profile.encode_seconds
        now += profile.tick_seconds(len(batch))
        for entry in batch:
            entry[1] -= 1
        done = [entry for entry in batch if not entry[1]]
        batch = [entry for entry in batch if entry[1]]
        now += profile.decode_seconds * len(done)
        left.update((entry[0], now) for entry in done)
    return left


def test_an_image_alone_takes_what_the_profile_says() -> None:
    assert finishes(PLAIN, [(3.0, 20)])[0] == pytest.approx(4.0)
    assert finishes(BATCHED, [(0.0, 20)])[0] == pytest.approx(BATCHED.latency_seconds(0))


def test_one_at_a_time_is_first_in_first_out() -> None:
    left = finishes(PLAIN, [(0.0, 20), (0.1, 10), (0.2, 5)])
    assert [left[i] for i in range(3)] == pytest.approx([1.0, 1.5, 1.75])


# Arrivals lie off the ticks: at a tie the two may join one tick apart, and both are right.
@given(
    st.lists(
        st.tuples(st.integers(0, 60).map(lambda n: n * 0.0337 + 0.00011), st.integers(1, 20)),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_segments_give_what_ticks_give(jobs: list[tuple[float, int]]) -> None:
    slow, fast = by_ticks(BATCHED, jobs), finishes(BATCHED, jobs)
    assert slow.keys() == fast.keys()
    # Encoding and decoding hold the batch up; whoever comes during that joins a tick earlier or later.
    slack = BATCHED.step_seconds[-1] * 2 + len(jobs) * (
        BATCHED.encode_seconds + BATCHED.decode_seconds
    )
    for i, at in slow.items():
        assert fast[i] == pytest.approx(at, abs=slack)


def test_a_view_tells_what_is_left() -> None:
    worker = SimulatedWorker(0, "w", PLAIN, "", 1)
    end = worker.push(Job(0, 0, 0, 20, 1.0, 0.0), 0.0)
    assert end == pytest.approx(1.0)
    assert worker.push(Job(1, 0, 10, 10, 1.0, 0.1), 0.1) is None
    view = worker.view(0.26)
    assert view.active == (15,)
    assert view.queued == (10,)
    assert view.backlog_seconds == pytest.approx(25 * 0.05)
    assert not math.isnan(worker.active[0].start_s)
