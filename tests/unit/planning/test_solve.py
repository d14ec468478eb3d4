"""The mix: equal to exhaustive search on small fleets; prices are the worth of capacity."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso.plan import PromptClass, QualityCurve
from gesso_operator.planning.exhaustive import exhaustive, mixes
from gesso_operator.planning.pooled import pooled, relaxed
from gesso_operator.planning.problem import Problem
from gesso_operator.planning.solve import best, held, solve

LADDERS = [(0,), (0, 25), (0, 10, 25)]


@st.composite
def problems(draw, most_workers=5, elastic=True):
    ladder = draw(st.sampled_from(LADDERS))
    other = draw(st.booleans())
    variants = (*(("", k) for k in ladder), *((("lightning", 0),) if other else ()))
    models = len({m for m, _ in variants})
    devices = draw(st.integers(1, 2))
    size = len(variants)
    work, bound = [], []
    for _ in range(devices):
        base = draw(st.floats(0.2, 5))
        own = [base * (50 - k) / 50 for k in ladder]
        can_hold = draw(st.integers(0, 4)) > 0
        work.append((*own, *((base * 0.1 if can_hold else np.inf,) if other else ())))
        bound.append(tuple(draw(st.floats(0.3, 0.98)) if np.isfinite(w) else 0.0 for w in work[-1]))
    weights = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    classes = []
    for c, weight in enumerate(weights):
        falls = draw(st.lists(st.floats(0, 0.3), min_size=size - 1, max_size=size - 1))
        quality = tuple(np.maximum(0.0, 1.0 - np.cumsum([0.0, *falls])).tolist())
        curve = QualityCurve(tuple(range(size)), quality)
        classes.append(PromptClass(f"c{c}", weight / sum(weights), curve))
    workers = draw(st.integers(devices, most_workers))
    split = [workers] if devices == 1 else [workers - workers // 2, workers // 2]
    held_counts, current = [], []
    for d, n in enumerate(split):
        possible = [v for v in range(size) if np.isfinite(work[d][v])]
        at = draw(st.lists(st.sampled_from(possible), min_size=n, max_size=n))
        model_of = [0 if not variants[v][0] else 1 for v in at]
        held_counts.append(tuple(model_of.count(m) for m in range(models)))
        # Some workers of the own model have no level yet.
        known = at[: draw(st.integers(0, n))]
        current.append(tuple(known.count(v) for v in range(size)))
    load = tuple(
        tuple(draw(st.sampled_from([0.0, 0.01, 0.2])) for _ in range(models))
        for _ in range(devices)
    )
    least = most = tuple(split)
    if elastic and draw(st.booleans()):
        least = (max(0, split[0] - 1), *split[1:])
        most = (split[0] + 1, *split[1:])
    return Problem(
        devices=tuple(f"gpu{d}" for d in range(devices)),
        variants=variants,
        work_s=tuple(work),
        bound=tuple(bound),
        rate=draw(st.floats(0.01, 3)) * workers / work[0][0],
        classes=tuple(classes),
        held=tuple(held_counts),
        current=tuple(current),
        least=least,
        most=most,
        min_quality=draw(st.sampled_from([0.0, 0.8])),
        level_cost=draw(st.sampled_from([0.0, 0.001, 0.05])),
        load_cost=load,
        worker_cost=draw(st.sampled_from([0.0, 0.05])),
        # Starting a worker loads the own model.
        start_cost=max(row[0] for row in load) + draw(st.sampled_from([0.0, 0.05])),
        mismatch_cost=draw(st.sampled_from([0.0, 0.01, 0.1])),
        stray_share=draw(st.sampled_from([0.0, 0.05])),
    )


@settings(max_examples=40, deadline=None)
@given(problems(most_workers=4))
def test_solver_equals_exhaustive_search(problem):
    found = solve(problem)
    value, _ = exhaustive(problem)
    assert found.objective == pytest.approx(value, rel=1e-6, abs=1e-6)
    for d, row in enumerate(found.workers):
        assert problem.least[d] <= sum(row) <= problem.most[d]


@settings(max_examples=15, deadline=None)
@given(problems(most_workers=4, elastic=False))
def test_solver_equals_exhaustive_search_where_models_stay(problem):
    problem = replace(problem, keep_models=True)
    assert solve(problem).objective == pytest.approx(exhaustive(problem)[0], rel=1e-6, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(problems(most_workers=5, elastic=False))
def test_holding_is_the_best_of_the_mixes_that_keep_everyone(problem):
    kept = replace(problem, keep=True, keep_models=True)
    assert list(mixes(kept))
    assert held(problem).objective == pytest.approx(exhaustive(kept)[0], rel=1e-6, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(problems(most_workers=20))
def test_solution_keeps_every_bound(problem):
    found = solve(problem)
    assert found.total_served + found.shed == pytest.approx(problem.rate, rel=1e-5)
    for d, row in enumerate(found.workers):
        for m in range(len(problem.models)):
            mine = [v for v in range(len(row)) if problem.model_of[v] == m]
            used = sum(
                found.served[d][v] * problem.need_s(d, v) for v in mine if found.served[d][v] > 0
            )
            assert used <= problem.slack * sum(row[v] for v in mine) + 1e-6


@settings(max_examples=30, deadline=None)
@given(problems(most_workers=20, elastic=False))
def test_search_is_left_out_only_where_it_would_find_nothing_better(problem):
    quick = best(problem, held(problem), relaxed(problem))
    assert quick.objective == pytest.approx(solve(problem).objective, rel=1e-6, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(problems(most_workers=20, elastic=False))
def test_pools_bound_every_mix_of_the_models_held_and_are_bounded_by_free_models(problem):
    pool = pooled(problem)
    assert pool.objective <= relaxed(problem) + 1e-6 * (1 + abs(pool.objective))
    free = replace(
        problem,
        keep_models=True,
        level_cost=0.0,
        load_cost=(),
        mismatch_cost=0.0,
        stray_share=0.0,
    )
    assert solve(free).objective == pytest.approx(pool.objective, rel=1e-6, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(problems(most_workers=20, elastic=False))
def test_dual_lies_between_what_capacity_gained_and_lost_is_worth(problem):
    if len(problem.pools) != 1 or problem.held[0][0] == 0:
        return
    step = 1e-4
    less, here, more = (pooled(replace(problem, slack=1 + d)).objective for d in (-step, 0.0, step))
    seconds = problem.workers * step
    dual = pooled(problem).dual
    assert (more - here) / seconds - 1e-5 <= dual <= (here - less) / seconds + 1e-5


def one_pool(rate, workers=4, curves=None, **more):
    """Two classes on workers that take 1, 0.8 and 0.5 s at K = 0, 10 and 25."""
    variants = (("", 0), ("", 10), ("", 25))
    easy, hard = curves or ((1.0, 0.99, 0.98), (1.0, 0.9, 0.6))
    fields = {
        "devices": ("gpu",),
        "variants": variants,
        "work_s": ((1.0, 0.8, 0.5),),
        "bound": ((0.9, 0.9, 0.9),),
        "rate": rate,
        "classes": (
            PromptClass("easy", 0.5, QualityCurve((0, 10, 25), easy)),
            PromptClass("hard", 0.5, QualityCurve((0, 10, 25), hard)),
        ),
        "held": ((workers,),),
        "current": ((workers, 0, 0),),
        "least": (workers,),
        "most": (workers,),
        "mismatch_cost": 0.05,
        "stray_share": 0.05,
        **more,
    }
    return Problem(**fields)


def test_price_is_zero_while_capacity_is_plenty():
    assert pooled(one_pool(rate=3.0)).price == 0.0
    assert solve(one_pool(rate=3.0)).workers == ((4, 0, 0),)


def test_price_counts_work_not_provided_seconds():
    # Between full and K=25 for the easy class: 0.02 of quality for half a second of work.
    assert pooled(one_pool(rate=4.0)).price == pytest.approx(0.02 / 0.5)


def test_easy_prompts_give_way_first():
    pool = pooled(one_pool(rate=4.5))
    assert pool.quality_sum / 4.5 > 0.98
    assert pool.shed == 0


def test_too_much_load_is_refused_not_an_error():
    problem = one_pool(rate=100.0)
    found = solve(problem)
    assert found.workers == ((0, 0, 4),)
    assert found.shed == pytest.approx(100.0 - 4 * 0.9 / 0.5)
    # At that price each prompt takes its fastest level.
    price = pooled(problem).price
    for prompts in problem.classes:
        worth = [q - price * w for q, w in zip(prompts.curve.quality, (1.0, 0.8, 0.5), strict=True)]
        assert worth[-1] == max(worth)


def test_floor_closes_levels_to_a_class():
    found = pooled(one_pool(rate=100.0, min_quality=0.95))
    assert found.shed > 90
    assert found.served[0][2] <= 50 + 1e-6


def test_level_that_is_never_in_time_is_not_used():
    found = solve(one_pool(rate=2.0, bound=((0.0, 0.9, 0.9),)))
    assert found.served[0][0] == 0.0
    assert found.shed == 0.0


def with_lightning(rate, cost, lightning=0, workers=8):
    variants = (("", 0), ("", 25), ("lightning", 0))
    quality = QualityCurve((0, 25, 26), (1.0, 0.9, 0.88))
    return Problem(
        devices=("gpu",),
        variants=variants,
        work_s=((2.5, 1.25, 0.23),),
        bound=((0.9, 0.9, 0.9),),
        rate=rate,
        classes=(PromptClass("all", 1.0, quality),),
        held=((workers - lightning, lightning),),
        current=((workers - lightning, 0, lightning),),
        least=(workers,),
        most=(workers,),
        load_cost=((cost, cost),),
    )


def test_distilled_model_is_loaded_where_levels_do_not_carry_the_load():
    assert solve(with_lightning(3.0, 0.01)).workers[0][2] == 0
    loaded = solve(with_lightning(8.0, 0.01))
    assert loaded.workers[0][2] >= 1
    assert loaded.shed == 0
    assert pooled(with_lightning(8.0, 0.01)).shed > 2


def test_costly_load_is_not_made_for_quality_alone():
    assert solve(with_lightning(5.5, 100.0)).switches == 0


def test_second_of_the_faster_device_is_worth_more():
    slow_fast = Problem(
        devices=("fast", "slow"),
        variants=(("", 0), ("", 25)),
        work_s=((1.0, 0.5), (2.0, 1.0)),
        bound=((0.9, 0.9), (0.9, 0.9)),
        rate=5.0,
        classes=(PromptClass("all", 1.0, QualityCurve((0, 25), (1.0, 0.9))),),
        held=((3,), (3,)),
        current=((3, 0), (3, 0)),
        least=(3, 3),
        most=(3, 3),
    )
    worth = dict(pooled(slow_fast).worth)
    assert worth["fast", ""] == pytest.approx(2 * worth["slow", ""])


def test_large_fleet_is_as_small_a_problem():
    found = solve(one_pool(rate=4500.0, workers=4096, level_cost=1e-6))
    assert sum(found.workers[0]) == 4096
    assert found.shed == 0.0
    assert found.workers[0][0] < 4096


@settings(max_examples=40, deadline=None)
@given(problems(most_workers=20, elastic=False), st.floats(1.0, 2.0))
def test_more_load_never_lowers_what_is_served(problem, factor):
    more = replace(problem, rate=problem.rate * factor)
    before = sum(map(sum, pooled(problem).served))
    assert sum(map(sum, pooled(more).served)) >= before * (1 - 1e-6) - 1e-9


@settings(max_examples=40, deadline=None)
@given(problems(most_workers=20, elastic=False), st.floats(1.0, 1.5))
def test_more_capacity_never_costs_quality_or_images(problem, factor):
    more = replace(problem, slack=factor)
    assert pooled(more).objective >= pooled(problem).objective - 1e-6
