"""What must hold for QualityAware, case by case, each with the figure that decides it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from decisions.gather import Row, mean
from gesso_simulator.baselines.static import is_static

OURS = "QualityAware"
#: Share of the images, in `model-family`, that may miss the SLO.
_FAMILY_VIOLATIONS = 0.001


@dataclass(frozen=True)
class Check:
    """One demand: what it says, what was measured against which limit, and whether it holds."""

    case: str
    says: str
    measured: float
    limit: float
    holds: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def checks(table: Mapping[str, Mapping[str, Row]]) -> Iterator[Check]:
    """All demands that the results can tell of."""
    for case, rows in table.items():
        if OURS not in rows:
            continue
        name = case.split("@")[0]
        if name in ("twitter", "twitter-heavy", "two-gpu-classes"):
            yield from _near_the_bound(case, rows, 0.2)
            yield from _not_dominated(case, rows)
        elif name == "bursty":
            yield from _bursty(case, rows)
        elif name == "model-family":
            yield from _family(case, rows)
        elif name == "elastic":
            yield from _elastic(case, rows)
        elif name.startswith("constant"):
            yield _at_most(
                case,
                "plan changes after the first minute, at most in any run",
                rows[OURS]["late_plan_changes"]["most"],
                0,
            )
        elif name.startswith("flash"):
            limit = 90 if "family" in name else 30
            yield _at_most(
                case,
                "seconds until violations stay under 1 %, at most in any run",
                rows[OURS]["recovery_s"]["most"],
                limit,
            )
        elif name == "worker-loss":
            yield from _loss(case, rows)


def _at_most(case: str, says: str, measured: float, limit: float) -> Check:
    return Check(case, says, measured, limit, measured <= limit + 1e-12)


def _at_least(case: str, says: str, measured: float, limit: float) -> Check:
    return Check(case, says, measured, limit, measured >= limit - 1e-12)


def _near_the_bound(case: str, rows: Mapping[str, Row], points: float) -> Iterator[Check]:
    if "informed" not in rows:
        return
    ours, bound = rows[OURS], rows["informed"]
    more = 100 * (mean(ours, "violation_ratio") - mean(bound, "violation_ratio"))
    less = 100 * (mean(bound, "relative_quality") - mean(ours, "relative_quality"))
    yield _at_most(case, "violations above the informed bound's, points", more, 0.1)
    yield _at_most(case, "quality below the informed bound's, points", less, points)


def _not_dominated(case: str, rows: Mapping[str, Row]) -> Iterator[Check]:
    """No policy is better in one of the two without being worse in the other."""
    ours = rows[OURS]
    better = 0
    for name, row in rows.items():
        if name in (OURS, "informed", "clairvoyant"):
            continue
        violations = mean(row, "violation_ratio") - mean(ours, "violation_ratio")
        quality = mean(row, "relative_quality") - mean(ours, "relative_quality")
        better += (violations <= 0 and quality >= 0) and (violations < 0 or quality > 0)
    yield _at_most(
        case, "policies better in one of violations and quality, worse in none", better, 0
    )


def _bursty(case: str, rows: Mapping[str, Row]) -> Iterator[Check]:
    ours = rows[OURS]
    if "informed" in rows:
        bound = rows["informed"]
        share = (1 - mean(ours, "violation_ratio")) / (1 - mean(bound, "violation_ratio"))
        yield _at_least(case, "images in the SLO, share of the informed bound's", share, 0.995)
        less = 100 * (mean(bound, "relative_quality") - mean(ours, "relative_quality"))
        yield _at_most(case, "quality below the informed bound's, points", less, 0.1)
    if "Argus" in rows:
        ratio = mean(ours, "violation_ratio") / mean(rows["Argus"], "violation_ratio")
        yield _at_most(case, "violations over Argus's", ratio, 0.9)


def _family(case: str, rows: Mapping[str, Row]) -> Iterator[Check]:
    ours = rows[OURS]
    yield _at_most(
        case, "violations, per cent", 100 * mean(ours, "violation_ratio"), 100 * _FAMILY_VIOLATIONS
    )
    if "informed" in rows:
        less = 100 * (mean(rows["informed"], "relative_quality") - mean(ours, "relative_quality"))
        yield _at_most(case, "quality below the informed bound's, points", less, 0.4)
    yield from _above_static_mixes(case, rows, 0.3)
    yield _at_most(case, "switches, at most in any run", ours["switches"]["most"], 40)


def _above_static_mixes(case: str, rows: Mapping[str, Row], points: float) -> Iterator[Check]:
    """Of the static mixes that keep the violations too, none comes near in quality."""
    in_time = [
        mean(row, "relative_quality")
        for name, row in rows.items()
        if is_static(name) and mean(row, "violation_ratio") <= _FAMILY_VIOLATIONS
    ]
    if in_time:
        above = 100 * (mean(rows[OURS], "relative_quality") - max(in_time))
        says = f"quality above the best of {len(in_time)} static mixes in time, points"
        yield _at_least(case, says, above, points)


def _elastic(case: str, rows: Mapping[str, Row]) -> Iterator[Check]:
    ours = rows[OURS]
    hours = mean(ours, "worker_hours")
    yield _at_least(case, "attainment", 1 - mean(ours, "violation_ratio"), 0.995)
    yield _at_least(case, "quality, per cent", 100 * mean(ours, "relative_quality"), 97)
    if "clairvoyant" in rows:
        ratio = hours / mean(rows["clairvoyant"], "worker_hours")
        yield _at_most(case, "worker-hours over the clairvoyant bound's", ratio, 1.3)
    autoscaled = {
        name: row
        for name, row in rows.items()
        if name.startswith("HPA") and mean(row, "violation_ratio") <= 0.005
    }
    if autoscaled:
        best = min(autoscaled, key=lambda name: mean(autoscaled[name], "worker_hours"))
        ratio = hours / mean(autoscaled[best], "worker_hours")
        yield _at_most(
            case, f"worker-hours over those of {best}, the best HPA in time", ratio, 0.55
        )


def _loss(case: str, rows: Mapping[str, Row]) -> Iterator[Check]:
    ours = rows[OURS]
    yield _at_most(case, "requests lost, at most in any run", ours["lost"]["most"], 0)
    if "informed" not in rows:
        return
    bound = rows["informed"]
    more = 100 * (mean(ours, "violation_ratio") - mean(bound, "violation_ratio"))
    yield _at_most(case, "violations above the informed bound's, points", more, 0.1)
    late = mean(ours, "after_loss_violation_ratio")
    least = mean(ours, "after_loss_bound_violation_ratio")
    says = "violations above 6 workers' bound, from 30 s after the loss, points"
    yield _at_most(case, says, 100 * (late - least), 0.1)
    # As in overload elsewhere: the share of what the bound gets in time.
    says = "images in the SLO from 30 s after the loss, share of 6 workers' bound"
    yield _at_least(case, says, (1 - late) / (1 - least), 0.995)
