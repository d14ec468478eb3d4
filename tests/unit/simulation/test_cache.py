"""The simulated cache: what it holds, what it finds, and whole runs that fill it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation_kit import LADDER, PLAIN, poisson, run_of

from gesso_router.routing.quality import Match
from gesso_simulator.data.sources import substitutes
from gesso_simulator.engine.cache import SimulatedCache
from gesso_simulator.engine.run import simulate
from gesso_simulator.inputs.prompts import PromptLog
from gesso_simulator.inputs.trace import Trace
from gesso_simulator.reports.result import SERVED, PolicyResult
from gesso_simulator.scenarios.build import Wishes, build_given
from gesso_simulator.scenarios.spec import F64, I64, Elastic, FleetEvent, ScenarioRun
from gesso_worker.cache.policy import ITEM_OVERHEAD_BYTES, entry_bytes

SIZE = 16
LATENT = 1000
STEPS = 20
#: Bytes of an entry that holds both levels above 0, of `SIZE` numbers.
ENTRY = 2 * (LATENT + ITEM_OVERHEAD_BYTES) + entry_bytes(SIZE)


def unit(vectors: F64) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def axes(count: int) -> np.ndarray:
    return np.eye(count, SIZE, dtype=np.float32)


def sessions(prompts: int, interleaved: int = 4) -> np.ndarray:
    """Sessions of five prompts each, near one another, so many of them interleaved."""
    rng = np.random.default_rng(0)
    themes = rng.standard_normal((prompts // 5 + interleaved, 64))
    order = np.arange(prompts)
    theme = themes[order // (5 * interleaved) * interleaved + order % interleaved]
    return unit(theme + 0.15 * rng.standard_normal((prompts, 64)))


def cache_of(vectors: np.ndarray, entries: float = 100) -> SimulatedCache:
    return SimulatedCache(vectors, LADDER, STEPS, int(entries * ENTRY), LATENT)


def keep(cache: SimulatedCache, prompt: int, worker: str = "w0", k: int = 0) -> None:
    cache.served(prompt, k, worker, 0.0, None, True)


def use(cache: SimulatedCache, match: Match, k: int) -> None:
    cache.served(0, k, "w0", 0.0, match, False)


def test_an_empty_cache_finds_nothing() -> None:
    cache = cache_of(axes(3))
    assert cache.lookup(0, 0.0) == ()
    assert cache.figures() == dict.fromkeys(cache.figures(), 0.0)
    cache.served(0, 0, "w0", 0.0, None, False)
    assert cache.lookup(0, 0.0) == ()


def test_levels_above_the_runs_k_are_found_where_they_were_made() -> None:
    vectors = unit(np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    cache = SimulatedCache(vectors, LADDER, STEPS, 10 * ENTRY, LATENT)
    keep(cache, 0, "w0")
    keep(cache, 2, "w1", k=5)
    near, far = cache.lookup(1, 0.0)
    assert (near.worker, near.held_levels) == ("w0", (5, 10))
    assert (far.worker, far.held_levels) == ("w1", (10,))
    assert near.similarity == pytest.approx(0.8)
    assert far.similarity == pytest.approx(0.6)
    keep(cache, 1, "w2", k=10)  # nothing above 10
    assert len(cache.lookup(1, 0.0)) == 2


def test_every_shard_answers_with_its_two_nearest_as_live() -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng.standard_normal((41, SIZE)))
    cache = cache_of(vectors)
    for prompt in range(40):
        keep(cache, prompt, f"w{prompt % 2}")
    found = cache.lookup(40, 0.0)
    cosine = vectors[:40] @ vectors[40]
    expected = sorted((float(c) for w in (0, 1) for c in np.sort(cosine[w::2])[-2:]), reverse=True)
    assert [m.similarity for m in found] == pytest.approx(expected)
    assert [m.worker for m in found].count("w0") == 2


def test_the_same_prompt_is_one_entry() -> None:
    cache = cache_of(axes(2))
    keep(cache, 0, k=5)
    keep(cache, 0)
    keep(cache, 2)  # prompt 0 asked again
    (found,) = cache.lookup(2, 0.0)
    assert found.held_levels == (5, 10)
    assert found.similarity == pytest.approx(1)
    assert cache.figures()["cache_entries"] == 1


def test_the_least_beneficial_and_frequently_used_goes_first() -> None:
    cache = cache_of(axes(6), entries=3)
    for prompt in range(3):
        keep(cache, prompt)
    used = next(m for m in cache.lookup(0, 0.0) if m.similarity > 0.99)
    use(cache, used, 10)
    other = next(m for m in cache.lookup(1, 0.0) if m.similarity > 0.99)
    use(cache, other, 5)
    for prompt in (3, 4):
        keep(cache, prompt)
    held = cache.entries("w0")
    # Prompt 2 had no use; of prompts 0 and 1 only the level that was used is worth its room.
    assert held[used.entry_id] == (10,)
    assert held[other.entry_id] == (5,)
    assert "w0-2" not in held
    keep(cache, 5)
    assert used.entry_id in cache.entries("w0")


def test_a_lost_shard_is_gone_and_the_worker_begins_anew() -> None:
    cache = cache_of(axes(3))
    keep(cache, 0, "w0")
    keep(cache, 1, "w1")
    (old,) = (m for m in cache.lookup(0, 0.0) if m.worker == "w0")
    cache.lost("w0", 1.0)
    assert {m.worker for m in cache.lookup(0, 2.0)} == {"w1"}
    assert cache.used_bytes("w0") == 0
    use(cache, old, 5)  # who had fetched the latent before goes on
    keep(cache, 0, "w0")
    assert cache.entries("w0").keys().isdisjoint({old.entry_id})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 29), st.sampled_from(LADDER), st.integers(0, 1))),
    st.floats(0, 6),
    st.integers(0, 5),
)
def test_bytes_stay_within_capacity_and_the_nearest_is_what_is_held(
    made: list[tuple[int, int, int]], entries: float, seed: int
) -> None:
    vectors = unit(np.random.default_rng(seed).standard_normal((30, SIZE)))
    cache = cache_of(vectors, entries)
    place: dict[str, int] = {}
    for i, (prompt, k, worker) in enumerate(made):
        name = f"w{worker}"
        before = cache.entries(name).keys()
        keep(cache, prompt, name, k)
        for entry in cache.entries(name).keys() - before:
            place[entry] = prompt
        assert cache.used_bytes(name) <= int(entries * ENTRY)
        held = [(e, lv) for w in ("w0", "w1") for e, lv in cache.entries(w).items()]
        found = cache.lookup((prompt + i) % 30, 0.0)
        assert bool(found) == bool(held)
        assert all(dict(held)[m.entry_id] == m.held_levels != () for m in found)
        if found:
            best = max(float(vectors[place[e]] @ vectors[(prompt + i) % 30]) for e, _ in held)
            assert found[0].similarity == pytest.approx(min(1.0, best), abs=1e-5)


@pytest.mark.parametrize(
    ("vectors", "latent", "problem"),
    [
        (2 * axes(2), LATENT, "vectors: shape"),
        (np.zeros(3, np.float32), LATENT, "vectors: shape"),
        (axes(2), 0, "latent_bytes: 0 is not allowed"),
    ],
)
def test_what_is_refused(vectors: np.ndarray, latent: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SimulatedCache(vectors, LADDER, STEPS, ENTRY, latent)


LOSS = np.array([0.0, 0.1, 0.2])


def quality_at(prompts: I64, similarity: F64) -> F64:
    """Full quality from the same prompt, less and less from others."""
    return 1.0 - LOSS * (1.0 - similarity)[:, None]


def looked_up(vectors: np.ndarray, entries: float = 100, **fields: object) -> ScenarioRun:
    """A run of each prompt once at 1.2 times the capacity at K = 0 of three workers."""
    count = len(vectors)
    arrivals = poisson(1.2 * 3, count / 3.6, seed=2)
    run = run_of(arrivals, workers=3, slo=5.0)
    prompt = np.arange(len(arrivals)) % count
    ones = np.ones((count, len(LADDER)))
    work = replace(
        run.workload,
        prompt=prompt,
        prompt_rows=np.arange(count),
        similarity=np.full(count, np.nan),
        quality=ones,
        predicted=ones,
    )
    capacity = int(entries * (ENTRY + 4 * (64 - SIZE)))

    def cache() -> SimulatedCache:
        return SimulatedCache(vectors, LADDER, STEPS, capacity, LATENT)

    return replace(run, workload=work, cache=cache, quality_at=quality_at, **fields)  # type: ignore[arg-type]


def watched(run: ScenarioRun) -> tuple[ScenarioRun, list[SimulatedCache]]:
    """The run, and the caches that are made for it."""
    made: list[SimulatedCache] = []

    def cache() -> SimulatedCache:
        assert run.cache is not None
        one = run.cache()
        assert isinstance(one, SimulatedCache)
        made.append(one)
        return one

    return replace(run, cache=cache), made


def same(one: PolicyResult, other: PolicyResult) -> bool:
    return (
        np.array_equal(one.finish_s, other.finish_s, equal_nan=True)
        and np.array_equal(one.relative_quality, other.relative_quality, equal_nan=True)
        and one.extra == other.extra
    )


@pytest.mark.parametrize(
    ("policy", "entries", "hits"),
    [
        ("QualityAware", 50, 0.4),
        ("BacklogPrice", 50, 0.4),
        ("Nirvana", 50, 0.4),
        ("Argus", 50, 0.05),
        # It skips all that it can, from whatever there is, and images so poor are not kept.
        ("ClipperHT", 3, 0.0),
    ],
)
def test_a_run_fills_its_cache_and_equal_runs_are_equal(
    policy: str, entries: int, hits: float
) -> None:
    run = looked_up(sessions(400), plan_interval_s=30.0)
    one = simulate(run, policy, seed=1)
    assert same(one, simulate(run, policy, seed=1))
    assert one.extra["cache_entries"] >= entries
    assert one.extra["cache_hit_ratio"] >= hits
    # The first three images cannot start from anything: nothing is made yet.
    assert (one.served_k[one.start_s < 0.8] == 0).all()
    ran = one.variant >= 0
    used = one.served_k > 0
    assert one.extra["cache_used_ratio"] == pytest.approx(used.sum() / ran.sum())
    assert used[ran].mean() > 0.1
    # Quality is by what the cache held: whole at K = 0, less from another prompt's latents.
    assert (one.relative_quality[ran & ~used] == 1).all()
    assert (one.relative_quality[used] < 1).all()
    assert set(one.predicted_k.tolist()) <= {-1, *LADDER}


def test_the_hit_ratio_grows_with_capacity() -> None:
    vectors = sessions(600, interleaved=40)
    found = [
        simulate(looked_up(vectors, entries), "Nirvana", seed=1).extra for entries in (0, 2, 8, 100)
    ]
    ratios = [extra["cache_hit_ratio"] for extra in found]
    assert ratios[0] == 0
    assert found[0]["cache_entries"] == 0
    assert ratios == sorted(ratios)
    assert ratios[3] > ratios[2] + 0.1 > ratios[1] + 0.2
    assert found[3]["cache_evictions"] == 0 < found[1]["cache_evictions"]


def test_without_room_only_full_generation_is_possible() -> None:
    result = simulate(looked_up(sessions(100), entries=0), "QualityAware", seed=1)
    assert set(result.served_k.tolist()) <= {-1, 0}
    assert (result.relative_quality[result.outcome == SERVED] == 1).all()


def test_the_tables_quality_counts_where_no_curve_is_given() -> None:
    run = looked_up(sessions(200))
    table = np.column_stack([np.ones(200), np.full(200, 0.7), np.full(200, 0.6)])
    run = replace(run, quality_at=None, workload=replace(run.workload, quality=table))
    result = simulate(run, "Nirvana", seed=1)
    ran = result.variant >= 0
    by_k = {0: 1.0, 5: 0.7, 10: 0.6}
    assert result.relative_quality[ran].tolist() == [by_k[k] for k in result.served_k[ran].tolist()]


def test_loss_of_a_worker_takes_its_entries_along() -> None:
    lost = tuple(FleetEvent(30.0, f"w{i}", "lost") for i in range(2))
    run, made = watched(looked_up(sessions(150), events=lost))
    result = simulate(run, "Nirvana", seed=1)
    assert {0, 1, 2} <= set(result.worker.tolist())
    assert [bool(made[0].entries(f"w{i}")) for i in range(3)] == [False, False, True]


def test_a_worker_that_is_let_go_takes_its_entries_along() -> None:
    lazy = poisson(0.1, 900, seed=3)
    run = looked_up(sessions(100), elastic=Elastic(1, 3, 3, 5.0, 0.9), plan_interval_s=60.0)
    work = replace(run.workload, arrival_s=lazy, prompt=np.arange(len(lazy)), duration_s=900.0)
    run, made = watched(replace(run, workload=work))
    result = simulate(run, "QualityAware", seed=1)
    assert result.fleet_size[-1][1] == 1
    assert len(set(result.worker.tolist())) > 1
    assert sum(bool(made[0].entries(f"w{i}")) for i in range(3)) == 1


def test_runs_without_a_cache_tell_nothing_of_it() -> None:
    assert simulate(run_of([1.0, 2.0], profile=PLAIN), "QualityAware", seed=1).extra == {}


def test_a_log_without_similarities_from_file_to_figures() -> None:
    vectors = sessions(300)
    log = PromptLog(np.arange(300), tuple(f"prompt {i}" for i in range(300)))
    trace = Trace(np.arange(2) * 60.0, np.full(2, 60.0), np.array([150, 250]))
    wishes = Wishes(log=log, workers=4, embed=lambda texts: vectors[: len(texts)], slo="3x")
    run = build_given(trace, wishes=wishes, sources=substitutes())
    result = simulate(run, "ClipperHT", seed=1)
    assert same(result, simulate(run, "ClipperHT", seed=1))
    used = result.served_k > 0
    assert used.mean() > 0.5
    # No cache finds more than one that holds every earlier prompt: what bounds reckon with.
    best = run.workload.quality[result.prompt[used], result.variant[used]]
    assert (result.relative_quality[used] <= best + 1e-12).all()
    assert (result.relative_quality[used] < best - 1e-6).any()


@pytest.mark.parametrize("eviction", ["LRU", "FIFO"])
def test_other_evictions_keep_other_latents(eviction: str) -> None:
    """What was used twice at a deep level outlives newer ones only by LCBFU."""
    size = entry_bytes(2) + ITEM_OVERHEAD_BYTES + 1
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    held = {}
    for name in ("LCBFU", eviction):
        cache = SimulatedCache(vectors, (0, 25), 50, 2 * size, 1, eviction=name)
        cache.served(0, 0, "w", 0.0, None, keep=True)
        (match,) = cache.lookup(0, 1.0)
        for _ in range(2):
            cache.served(0, 25, "w", 1.0, match, keep=False)
        for prompt in (1, 2, 3):
            cache.served(prompt, 0, "w", 2.0, None, keep=True)
        held[name] = set(cache.entries("w"))
    assert match.entry_id in held["LCBFU"]
    assert match.entry_id not in held[eviction]


def test_an_unknown_eviction_is_refused() -> None:
    with pytest.raises(ValueError, match="eviction: 'MRU' is not allowed: one of LCBFU, LRU, FIFO"):
        SimulatedCache(np.eye(2, dtype=np.float32), (0, 25), 50, 100, 1, eviction="MRU")
