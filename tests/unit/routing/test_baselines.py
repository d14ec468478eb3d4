"""Published policies and plain load balancers: where each sends a prompt, and at which K."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routing_kit import LADDER, SLOW, fleet, options

from gesso.plan import LevelPlan, Plan
from gesso.profile import Profile
from gesso_router.routing.baselines.argus import redirected
from gesso_router.routing.baselines.common import pick
from gesso_router.routing.baselines.nirvana import optimal_k, tolerated_k
from gesso_router.routing.policies import CENTRAL_QUEUE, ROUTES
from gesso_router.routing.quality import Match, Option
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal, WorkerView

STEPS = 10
ALONE = Profile("slow", STEPS, 0.0, 0.0, (1.0,))
LIGHT = Profile("slow", 1, 0.0, 0.0, (1.0,))
draws = st.floats(0.0, 1.0, exclude_max=True)


def worker(name: str, load: int = 0, level: int = 0, profile: Profile = SLOW, **more) -> WorkerView:
    """A worker with `load` requests, each of ten steps; the batch holds two."""
    active = min(load, profile.max_batch)
    work = (STEPS,) * active, (STEPS,) * (load - active)
    return WorkerView(name, profile, level, *work, **more)


def ask(similarity: float | None = None, held: tuple[int, ...] = LADDER[1:], **fields) -> Ask:
    found = [Option(0, 1.0)]
    if similarity is not None:
        match = Match("entry", "a", similarity, held)
        found += [Option(k, 1.0 - k / 100, match) for k in held]
    return Ask(tuple(found), STEPS, **{"deadline_seconds": 1000.0, **fields})


def sent(policy: str, wanted: Ask, view: FleetView, draw: float = 0.5) -> Choice:
    choice = ROUTES[policy](wanted, view, draw)
    assert isinstance(choice, Choice), choice
    return choice


def planned(view: FleetView, levels: list[LevelPlan], route=()) -> FleetView:
    return replace(view, plan=Plan(1, 0.0, tuple(levels), 0.0, "Test", "", route=route))


PLACED = tuple(ROUTES)


def test_every_policy_places_or_queues() -> None:
    assert set(ROUTES) | CENTRAL_QUEUE == {
        "QualityAware",
        "PromptAgnostic",
        "BacklogPrice",
        "Argus",
        "Nirvana",
        "Proteus",
        "ClipperHA",
        "ClipperHT",
        "RoundRobin",
        "LeastOutstanding",
    }
    assert not set(ROUTES) & CENTRAL_QUEUE


@pytest.mark.parametrize("policy", PLACED)
def test_without_a_worker_everyone_refuses(policy: str) -> None:
    for view, failed in ((fleet(), frozenset()), (fleet(worker("a")), frozenset("a"))):
        refusal = ROUTES[policy](ask(exclude=failed), view, 0.5)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "no-worker"


@pytest.mark.parametrize("policy", PLACED)
def test_a_retry_avoids_who_failed_and_may_be_late(policy: str) -> None:
    view = fleet(worker("a"), worker("b", 4))
    choice = sent(policy, ask(exclude=frozenset("a"), accept_late=True, deadline_seconds=0.1), view)
    assert choice.worker == "b"


@pytest.mark.parametrize("policy", PLACED)
@settings(max_examples=30)
@given(
    loads=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    levels=st.lists(st.sampled_from(LADDER), min_size=5, max_size=5),
    similarity=st.none() | st.floats(-1.0, 1.0),
    held=st.sets(st.sampled_from(LADDER[1:]), min_size=1),
    turn=st.integers(0, 100),
    draw=draws,
)
def test_every_choice_is_an_option_on_a_worker_with_its_estimate(
    policy: str,
    loads: list[int],
    levels: list[int],
    similarity: float | None,
    held: set[int],
    turn: int,
    draw: float,
) -> None:
    workers = [worker(f"w{i}", n, k) for i, (n, k) in enumerate(zip(loads, levels, strict=False))]
    view = replace(fleet(*workers), dispatched=turn)
    wanted = ask(similarity, tuple(sorted(held)), deadline_seconds=1e6)
    choice = sent(policy, wanted, view, draw)
    assert choice.worker in {w.name for w in workers}
    assert choice.option in wanted.options
    assert 0 <= choice.start_seconds < choice.finish_seconds


# Round robin, least outstanding.


def test_round_robin_takes_turns_whatever_the_load() -> None:
    view = fleet(worker("a", 5), worker("b"), worker("c"))
    chosen = [sent("RoundRobin", ask(0.99), replace(view, dispatched=i)).worker for i in range(6)]
    assert chosen == ["a", "b", "c", "a", "b", "c"]


def test_least_outstanding_takes_the_fewest_requests_and_turns_between_equals() -> None:
    view = fleet(worker("a", 2), worker("b", 1), worker("c", 1))
    chosen = {
        sent("LeastOutstanding", ask(0.99), replace(view, dispatched=i)).worker for i in range(3)
    }
    assert chosen == {"b", "c"}


@pytest.mark.parametrize("policy", ["RoundRobin", "LeastOutstanding"])
def test_plain_balancers_generate_in_full_and_never_shed(policy: str) -> None:
    choice = sent(policy, ask(0.99, deadline_seconds=0.01), fleet(worker("a", 9)))
    assert choice.skipped_steps == 0
    assert choice.finish_seconds > 0.01


# NIRVANA.


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        (float("nan"), 0),
        (-1.0, 0),
        (0.65, 0),
        (0.651, 5),
        (0.75, 5),
        (0.76, 10),
        (0.86, 15),
        (0.91, 20),
        (0.95, 20),
        (0.951, 25),
        (1.0, 25),
    ],
)
def test_nirvanas_thresholds(similarity: float, expected: int) -> None:
    assert optimal_k(similarity, (0, 5, 10, 15, 20, 25), 50) == expected
    assert tolerated_k(similarity, 50) == expected
    assert tolerated_k(similarity, 100) == 2 * expected


def test_the_optimal_k_is_the_largest_level_within_the_threshold() -> None:
    assert optimal_k(0.91, (0, 7, 18, 30), 50) == 18
    assert optimal_k(0.91, (0, 21), 50) == 0


def test_nirvana_takes_the_largest_held_level_the_threshold_allows() -> None:
    view = fleet(worker("a"))
    # Of ten steps, 0.91 tolerates four.
    assert sent("Nirvana", ask(0.91), view).skipped_steps == 4
    assert sent("Nirvana", ask(0.91, held=(2, 6)), view).skipped_steps == 2
    assert sent("Nirvana", ask(0.91, held=(6,)), view).skipped_steps == 0
    assert sent("Nirvana", ask(0.5), view).skipped_steps == 0
    assert sent("Nirvana", ask(), view).skipped_steps == 0


def test_nirvanas_k_does_not_react_to_load() -> None:
    for load in (0, 3, 30):
        assert sent("Nirvana", ask(0.91), fleet(worker("a", load))).skipped_steps == 4


def test_nirvana_weighs_each_entry_by_its_own_similarity() -> None:
    far, near = Match("far", "a", 0.66, (4,)), Match("near", "a", 0.91, (2,))
    found = Ask((Option(0, 1.0), Option(2, 0.9, near), Option(4, 0.8, far)), STEPS, 1000.0)
    assert sent("Nirvana", found, fleet(worker("a"))).skipped_steps == 2


def test_nirvana_goes_to_the_fewest_requests() -> None:
    view = fleet(worker("a", 2), worker("b", 1, level=6))
    assert sent("Nirvana", ask(0.91), view).worker == "b"


@pytest.mark.parametrize("policy", ["Nirvana", "Argus", "Proteus"])
def test_who_cannot_be_in_time_is_dropped(policy: str) -> None:
    view = fleet(worker("a", profile=ALONE), margin=1.25)
    in_time = ROUTES[policy](ask(deadline_seconds=12.5), view, 0.5)
    assert isinstance(in_time, Choice)
    refusal = ROUTES[policy](ask(deadline_seconds=12.4), view, 0.5)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "deadline"
    assert refusal.retry_after_seconds > 0
    untried = fleet(worker("a", profile=ALONE, proven=False))
    assert isinstance(ROUTES[policy](ask(deadline_seconds=1.0), untried, 0.5), Choice)


# Argus.

ARGUS_LEVELS = [LevelPlan(k, 1, 0.25) for k in LADDER]


def moved_to(target: int) -> tuple[tuple[float, ...], ...]:
    """Every prompt goes to one level, in one draw from slower ones, by chained moves from faster ones."""
    rows = []
    for i in range(len(LADDER)):
        goal = target if i <= target else i - 1
        rows.append(tuple(float(k == goal) for k in range(len(LADDER))))
    return tuple(rows)


@pytest.mark.parametrize("target", range(len(LADDER)))
@pytest.mark.parametrize("similarity", [0.5, 0.91])
def test_argus_serves_at_the_level_that_the_route_plan_gives(
    target: int, similarity: float
) -> None:
    workers = [worker(f"w{k}", level=k) for k in LADDER]
    view = planned(fleet(*workers), ARGUS_LEVELS, moved_to(target))
    choice = sent("Argus", ask(similarity), view)
    assert choice.worker == f"w{LADDER[target]}"
    assert choice.skipped_steps == LADDER[target]


def test_argus_falls_to_the_largest_held_level() -> None:
    view = planned(fleet(worker("w6", level=6)), ARGUS_LEVELS, moved_to(3))
    assert sent("Argus", ask(0.99, held=(2, 4)), view).skipped_steps == 4
    assert sent("Argus", ask(), view).skipped_steps == 0


@pytest.mark.parametrize(
    ("levels", "expected"), [((0, 6), 0), ((2, 4), 4), ((6,), 6), ((0, 2, 6), 2)]
)
def test_argus_takes_the_nearest_slower_level_with_a_worker_then_a_faster(
    levels: tuple[int, ...], expected: int
) -> None:
    view = planned(fleet(*(worker(f"w{k}", level=k) for k in levels)), ARGUS_LEVELS)
    # Of ten steps 0.91 tolerates four.
    assert sent("Argus", ask(0.91), view).worker == f"w{expected}"


def test_argus_partitions_hard() -> None:
    view = planned(
        fleet(worker("idle", level=0), worker("full", 5, level=4)), ARGUS_LEVELS, moved_to(2)
    )
    assert sent("Argus", ask(0.91), view).worker == "full"


def test_argus_spreads_while_someone_is_idle_then_fills() -> None:
    even = fleet(worker("a", 1), worker("b"), worker("c", 1))
    assert sent("Argus", ask(), even).worker == "b"
    wide = replace(SLOW, step_seconds=(1.0, 1.1, 1.2))
    busy = fleet(worker("a", 1, profile=wide), worker("b", 2, profile=wide))
    assert sent("Argus", ask(), busy).worker == "b"
    full = fleet(worker("a", 4, profile=wide), worker("b", 3, profile=wide))
    assert sent("Argus", ask(), full).worker == "b"


@settings(max_examples=30)
@given(
    st.lists(st.just(0.0) | st.floats(0.05, 1.0), min_size=2, max_size=6).filter(sum),
    st.integers(0, 10**6),
)
def test_a_draw_gives_an_index_and_a_fresh_draw(weights: list[float], seed: int) -> None:
    n = 1000
    drawn = [pick(weights, ((i + 0.5) / n + seed / 10**6) % 1.0) for i in range(n)]
    shares = Counter(index for index, _ in drawn)
    for index, weight in enumerate(weights):
        assert shares[index] / n == pytest.approx(weight / sum(weights), abs=3 / n)
    assert all(0.0 <= left < 1.0 for _, left in drawn)
    index, count = shares.most_common(1)[0]
    # What is left of the draw is uniform again.
    assert sum(left for i, left in drawn if i == index) / count == pytest.approx(0.5, abs=0.02)


def test_a_move_to_a_slower_level_is_drawn_again() -> None:
    rows = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5))
    n = 10_000
    found = Counter(redirected(2, rows, (i + 0.5) / n) for i in range(n))
    assert [found[k] / n for k in range(3)] == pytest.approx([0.25, 0.25, 0.5], abs=0.001)


# Proteus.


def test_proteus_sends_by_share_whichever_prompt_it_is() -> None:
    view = planned(
        fleet(worker("a", level=0), worker("b", level=4)),
        [LevelPlan(0, 1, 0.25), LevelPlan(4, 1, 0.75)],
    )
    for similarity in (0.5, 0.99):
        sent_to = [sent("Proteus", ask(similarity), view, i / 100) for i in range(100)]
        assert Counter(c.worker for c in sent_to) == {"a": 25, "b": 75}
        assert {c.skipped_steps for c in sent_to if c.worker == "b"} == {4}


def test_proteus_takes_the_least_loaded_worker_of_the_variant() -> None:
    levels = [LevelPlan(4, 2, 1.0), LevelPlan(0, 1, 0.0)]
    view = planned(
        fleet(worker("a", 2, level=4), worker("b", 1, level=4), worker("c", level=0)), levels
    )
    assert sent("Proteus", ask(0.99), view).worker == "b"


def test_proteus_leaves_out_variants_without_a_worker() -> None:
    view = planned(fleet(worker("a", level=0)), [LevelPlan(0, 1, 0.1), LevelPlan(4, 1, 0.9)])
    assert {sent("Proteus", ask(0.9), view, i / 10).worker for i in range(10)} == {"a"}


def test_proteus_serves_its_model_family() -> None:
    other = worker("light", profile=LIGHT, model="light")
    view = planned(fleet(worker("a"), other), [LevelPlan(0, 1, 0.5), LevelPlan(0, 1, 0.5, "light")])
    both = replace(ask(0.99), options=(*ask(0.99).options, Option(0, 0.88, None, "light")))
    chosen = [sent("Proteus", both, view, draw) for draw in (0.25, 0.75)]
    assert [(c.worker, c.option.model, c.skipped_steps) for c in chosen] == [
        ("a", "", 0),
        ("light", "light", 0),
    ]
    assert chosen[1].finish_seconds == pytest.approx(1.0)  # one step, not ten
    # Where the model may not serve the prompt, its worker gets none.
    assert {sent("Proteus", ask(0.99), view, i / 10).worker for i in range(10)} == {"a"}


def test_without_a_plan_proteus_uses_everyone() -> None:
    view = replace(fleet(worker("a", 1), worker("b")), plan=None)
    assert sent("Proteus", ask(), view).worker == "b"


# The price policies.


def test_backlog_price_does_not_hear_the_plan() -> None:
    view = fleet(worker("a"), price=1.0)
    hit = replace(ask(), options=options(1.0, 0.9, 0.8, 0.7))
    assert sent("QualityAware", hit, view).skipped_steps == 6
    assert sent("BacklogPrice", hit, view).skipped_steps == 0


def test_prompt_agnostic_sees_the_mean_prompt_only() -> None:
    mean = {("", k): q for k, q in zip(LADDER, (1.0, 0.99, 0.98, 0.2), strict=True)}
    view = replace(fleet(worker("a"), price=1.0), mean_quality=mean)
    for curve in ((1.0, 0.9, 0.8, 0.79), (1.0, 0.3, 0.2, 0.1)):
        hit = replace(ask(), options=options(*curve))
        assert sent("PromptAgnostic", hit, view).skipped_steps == 4
