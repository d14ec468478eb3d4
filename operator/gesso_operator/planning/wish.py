"""A move that would be an improvement, and what it is worth against what it disrupts."""

from __future__ import annotations

from dataclasses import dataclass

from gesso_operator.planning import gate
from gesso_operator.planning.gate import Direction
from gesso_operator.planning.problem import Counts, Problem, Table
from gesso_operator.planning.solve import Solution


@dataclass(frozen=True)
class Wish:
    """A move that would be an improvement, and whether the gate lets it pass."""

    direction: Direction
    goal: Solution | None
    stay: Solution | None
    verdict: gate.Verdict
    benefit: float = 0.0
    disruption: float = 0.0

    @property
    def granted_way(self) -> Direction:
        """The direction, if the gate lets it pass."""
        return self.direction if self.verdict.passes else Direction.NONE


NOTHING = Wish(Direction.NONE, None, None, gate.Verdict(False, 0.0, "no benefit"))


def weighed(
    problem: Problem, stay: Solution, goal: Solution, cost: float, threshold: float
) -> Wish:
    """The wish to go from `stay` to `goal`, weighed by the gate; `cost` in relative quality per second."""
    scale = max(problem.rate, 1e-9)
    benefit = (goal.objective + cost - stay.objective) / scale
    disruption = cost / scale
    verdict = gate.worth(benefit, disruption, threshold)
    return Wish(direction_of(problem, stay, goal), goal, stay, verdict, benefit, disruption)


def direction_of(problem: Problem, stay: Solution, goal: Solution) -> Direction:
    """Which way `goal` goes from `stay`, by the images per second that the mix can serve."""
    if goal.workers == stay.workers:
        return Direction.NONE
    faster = speed(problem, goal.workers) > speed(problem, stay.workers) * (1 + 1e-9)
    return Direction.FASTER if faster else Direction.SLOWER


def speed(problem: Problem, counts: Counts | Table) -> float:
    """Images per second of so many workers at each [device class][variant]."""
    return sum(
        n / problem.work_s[d][v] for d, row in enumerate(counts) for v, n in enumerate(row) if n
    )
