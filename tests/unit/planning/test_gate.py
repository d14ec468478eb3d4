"""The gate is total; hysteresis wants agreement, and more of it after reversals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesso_operator.planning.gate import Direction, HysteresisState, ask, moved, needed, worth
from gesso_operator.planning.settings import Settings

SETTINGS = Settings(ladder=(0, 10), latency_s=4)
ANY = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("benefit", "disruption", "passes"),
    [
        (0.02, 0.01, True),
        (0.01, 0.01, True),
        (0.009, 0.01, False),
        (0.0, 0.0, False),
        (-0.1, 0.0, False),
        (-0.1, -0.2, False),
        (0.1, 0.0, True),
        (0.1, -0.1, True),
        (math.nan, 0.1, False),
        (0.1, math.nan, False),
        (math.inf, 0.1, True),
        (math.inf, math.inf, False),
        (0.1, math.inf, False),
        (5e-324, 1e308, False),
    ],
)
def test_gate(benefit, disruption, passes):
    assert worth(benefit, disruption, 1.0).passes is passes


@given(ANY, ANY, ANY)
def test_gate_is_total(benefit, disruption, threshold):
    verdict = worth(benefit, disruption, threshold)
    assert not math.isnan(verdict.score)
    assert verdict.why
    if verdict.passes:
        assert benefit > 0


def run(wishes, state=None, jumped=False):
    state, granted = state or HysteresisState(), []
    for wish in wishes:
        state, yes = ask(state, wish, jumped, SETTINGS)
        if yes:
            state = moved(state, wish, SETTINGS)
        granted.append(yes)
    return granted, state


FASTER, SLOWER, NONE = Direction.FASTER, Direction.SLOWER, Direction.NONE


def test_faster_levels_come_sooner_than_slower_ones():
    assert run([FASTER] * 3)[0] == [False, True, False]
    assert run([SLOWER] * 6)[0] == [False] * 4 + [True, False]


def test_agreement_must_be_consecutive():
    assert not any(run([SLOWER, SLOWER, NONE, SLOWER, SLOWER, FASTER, SLOWER, SLOWER])[0])


def test_each_reversal_doubles_the_agreement_for_slower_levels():
    state = HysteresisState()
    waits = []
    for _ in range(4):
        _, state = run([FASTER] * 2, state)
        waits.append(needed(state, SLOWER, SETTINGS))
        _, state = run([SLOWER] * waits[-1], state)
    # The first slower move reverses the first faster one, and so on.
    assert waits == [5, 20, 80, 80]


def test_jump_of_the_load_clears_reversals():
    state = HysteresisState(reversals=3)
    assert ask(state, SLOWER, True, SETTINGS)[0].reversals == 0


def test_reversals_are_forgotten_in_quiet():
    state = HysteresisState(last=FASTER, reversals=1)
    assert run([NONE] * (SETTINGS.forget_plans - 1), state)[1].reversals == 1
    assert run([NONE] * SETTINGS.forget_plans, state)[1].reversals == 0


@given(st.lists(st.sampled_from([FASTER, SLOWER, NONE]), min_size=1, max_size=400))
def test_a_move_always_had_its_agreement(wishes):
    granted, _ = run(wishes)
    for i, yes in enumerate(granted):
        if yes:
            least = SETTINGS.faster_agreement if wishes[i] is FASTER else SETTINGS.slower_agreement
            assert wishes[i - least + 1 : i + 1] == [wishes[i]] * least
