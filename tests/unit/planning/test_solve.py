"""The mix: equal to exhaustive search on small fleets; the price is the worth of capacity."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from gesso.plan import PromptClass, QualityCurve
from gesso_operator.planning.solve import Problem, best, held, pooled, solve

LADDERS = [(0, 25), (0, 10, 25), (0, 5, 15, 25)]


@st.composite
def problems(draw, most_workers=4):
    ladder = draw(st.sampled_from(LADDERS))
    levels = len(ladder)
    base = draw(st.floats(0.2, 5))
    work = tuple(base * (50 - k) / 50 for k in ladder)
    bound = tuple(draw(st.floats(0.3, 0.98)) for _ in ladder)
    classes = []
    weights = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    for c, weight in enumerate(weights):
        falls = draw(st.lists(st.floats(0, 0.3), min_size=levels - 1, max_size=levels - 1))
        quality = tuple(np.maximum(0.0, 1.0 - np.cumsum([0.0, *falls])).tolist())
        curve = QualityCurve(ladder, quality)
        classes.append(PromptClass(f"c{c}", weight / sum(weights), curve))
    workers = draw(st.integers(1, most_workers))
    current = [0] * levels
    for level in draw(st.lists(st.integers(0, levels - 1), max_size=workers)):
        current[level] += 1
    return Problem(
        ladder=ladder,
        work_s=work,
        bound=bound,
        rate=draw(st.floats(0.01, 3)) * workers / base,
        classes=tuple(classes),
        workers=workers,
        current=tuple(current),
        min_quality=draw(st.sampled_from([0.0, 0.8])),
        switch_cost=draw(st.sampled_from([0.0, 0.001, 0.05])),
        stray_share=draw(st.sampled_from([0.0, 0.05])),
    )


def served_value(problem, counts):
    """Best worth of serving with a fixed mix: a transport problem, in code of its own."""
    cells = [
        (c, i)
        for c, prompts in enumerate(problem.classes)
        for i in range(len(problem.ladder))
        if i == 0
        or (prompts.curve.quality[i] >= problem.min_quality and prompts.curve.quality[i] > 0)
    ]
    # Gain of serving an image over refusing it.
    gain = [problem.classes[c].curve.quality[i] + problem.shed_penalty for c, i in cells]
    level_rows = [
        [problem.work_s[i] if i == j else 0.0 for _, i in cells] for j in range(len(problem.ladder))
    ]
    class_rows = [[1.0 if c == j else 0.0 for c, _ in cells] for j in range(len(problem.classes))]
    limits = [n * b * problem.slack for n, b in zip(counts, problem.bound, strict=True)]
    rates = [problem.rate * c.weight for c in problem.classes]
    result = linprog([-g for g in gain], A_ub=level_rows + class_rows, b_ub=limits + rates)
    return -result.fun - problem.shed_penalty * problem.rate


def exhaustive(problem):
    """Best objective over every mix there is."""
    best = -np.inf
    for counts in itertools.product(range(problem.workers + 1), repeat=len(problem.ladder)):
        if sum(counts) != problem.workers:
            continue
        leavers = sum(max(0, was - now) for was, now in zip(problem.current, counts, strict=True))
        stray = sum(
            problem.stray_share * problem.rate / problem.workers * n * c.weight * c.curve.quality[i]
            for i, n in enumerate(counts)
            for c in problem.classes
        )
        best = max(best, served_value(problem, counts) - problem.switch_cost * leavers + stray)
    return best


@settings(max_examples=40, deadline=None)
@given(problems())
def test_solver_equals_exhaustive_search(problem):
    found = solve(problem)
    assert sum(found.workers) == problem.workers
    assert found.objective == pytest.approx(exhaustive(problem), rel=1e-6, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(problems(most_workers=20))
def test_solution_keeps_every_bound(problem):
    found = solve(problem)
    assert sum(found.served) + found.shed == pytest.approx(problem.rate, rel=1e-5)
    for i, n in enumerate(found.workers):
        assert found.served[i] * problem.work_s[i] <= n * problem.bound[i] + 1e-6


@settings(max_examples=40, deadline=None)
@given(problems(most_workers=20))
def test_holding_is_never_better_than_solving(problem):
    stay = held(problem)
    assert all(now >= was for now, was in zip(stay.workers, problem.current, strict=True))
    assert stay.objective <= solve(problem).objective + 1e-6


@settings(max_examples=40, deadline=None)
@given(problems(most_workers=20))
def test_search_is_left_out_only_where_it_would_find_nothing_better(problem):
    quick = best(problem, held(problem), pooled(problem))
    assert quick.objective == pytest.approx(solve(problem).objective, rel=1e-6, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(problems(most_workers=20))
def test_dual_lies_between_what_capacity_gained_and_lost_is_worth(problem):
    step = 1e-4
    less, here, more = (pooled(replace(problem, slack=1 + d)).objective for d in (-step, 0.0, step))
    seconds = problem.workers * step
    dual = pooled(problem).dual
    assert (more - here) / seconds - 1e-5 <= dual <= (here - less) / seconds + 1e-5


@settings(max_examples=60, deadline=None)
@given(problems(most_workers=20))
def test_price_sends_every_prompt_to_its_fastest_level_when_images_are_refused(problem):
    pool = pooled(problem)
    if pool.shed <= 0:
        return
    for c, prompts in enumerate(problem.classes):
        open_levels = [i for i in range(len(problem.ladder)) if problem.allowed(c, i)]
        worth = [prompts.curve.quality[i] - pool.price * problem.work_s[i] for i in open_levels]
        assert worth[-1] >= max(worth) - 1e-9


def two_classes(rate, workers=4, **more):
    ladder = (0, 10, 25)
    easy = PromptClass("easy", 0.5, QualityCurve(ladder, (1.0, 0.99, 0.98)))
    hard = PromptClass("hard", 0.5, QualityCurve(ladder, (1.0, 0.9, 0.6)))
    fields = {"current": (workers, 0, 0), "bound": (0.9, 0.9, 0.9), **more}
    return Problem(
        ladder, (1.0, 0.8, 0.5), rate=rate, classes=(easy, hard), workers=workers, **fields
    )


def test_price_is_zero_while_capacity_is_plenty():
    assert pooled(two_classes(rate=3.0)).price == 0.0
    assert solve(two_classes(rate=3.0)).workers == (4, 0, 0)


def test_price_counts_work_not_provided_seconds():
    # Between full and K=25 for the easy class: 0.02 of quality for half a second of work.
    assert pooled(two_classes(rate=4.0)).price == pytest.approx(0.02 / 0.5)


def test_easy_prompts_give_way_first():
    found = solve(two_classes(rate=4.5, workers=40, current=(40, 0, 0)))
    assert found.workers[0] > 0
    busy = two_classes(rate=45.0, workers=40, current=(40, 0, 0))
    assert solve(busy).quality_sum / 45.0 > 0.98


def test_too_much_load_is_refused_not_an_error():
    found = solve(two_classes(rate=100.0))
    assert found.workers == (0, 0, 4)
    assert found.shed == pytest.approx(100.0 - 4 * 0.9 / 0.5)


def test_floor_closes_levels_to_a_class():
    found = solve(two_classes(rate=100.0, min_quality=0.95))
    assert found.shed > 90
    assert found.served[2] <= 50 + 1e-6


def test_level_that_is_never_in_time_is_not_used():
    found = solve(two_classes(rate=2.0, bound=(0.0, 0.9, 0.9)))
    assert found.served[0] == 0.0
    assert found.shed == 0.0


def test_costly_switch_is_not_made():
    cheap, dear = two_classes(rate=4.0), two_classes(rate=4.0, switch_cost=100.0)
    assert solve(cheap).switches > 0
    assert solve(dear).switches == 0


def test_large_fleet_is_as_small_a_problem():
    big = two_classes(rate=4500.0, workers=4096, current=(4096, 0, 0), switch_cost=1e-4)
    found = solve(big)
    assert sum(found.workers) == 4096
    assert found.shed == 0.0
