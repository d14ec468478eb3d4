"""Says which worker holds which model and gets which level: counts become names, with the fewest changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gesso_operator.planning.instance import Member
from gesso_operator.planning.problem import Counts


def assign(current: Mapping[str, int | None], mix: Mapping[int, int]) -> dict[str, int]:
    """A level for each worker, so that `mix` (workers by level) holds and the fewest workers change level.

    `current` maps each ready worker to its level, None for one that has none. Ties go by name, so that equal
    input gives equal output. Raises ValueError unless `mix` counts exactly the workers given.
    """
    wanted = Counter({k: n for k, n in mix.items() if n})
    if any(n < 0 for n in wanted.values()) or wanted.total() != len(current):
        raise ValueError(f"mix: {dict(mix)} is not allowed: it counts {len(current)} workers")
    given: dict[str, int] = {}
    for name in sorted(current):
        level = current[name]
        if level is not None and wanted[level] > 0:
            wanted[level] -= 1
            given[name] = level
    left = sorted(wanted.elements())
    # Who must change goes to the nearest level that is left, in order: least change of K in sum.
    movers = sorted((n for n in current if n not in given), key=lambda n: (current[n] or 0, n))
    given.update(zip(movers, left, strict=True))
    return dict(sorted(given.items()))


def assign_models(
    members: Sequence[Member], devices: Sequence[str], models: Sequence[str], held: Counts
) -> dict[str, str]:
    """A model for each worker, so that `held` ([device][model]) holds and the fewest workers change.

    Workers on their way to a model keep it as long as it is wanted; the last by name change first. Raises
    ValueError unless `held` counts the workers of each device class.
    """
    given: dict[str, str] = {}
    for device, row in zip(devices, held, strict=True):
        mine = sorted((m for m in members if m.device == device), key=lambda m: (m.ready, m.name))
        if sum(row) != len(mine):
            raise ValueError(f"held: {row} is not allowed: {device!r} has {len(mine)} workers")
        wanted = Counter({model: n for model, n in zip(models, row, strict=True) if n})
        movers = []
        for member in mine:
            if wanted[member.model] > 0:
                wanted[member.model] -= 1
                given[member.name] = member.model
            else:
                movers.append(member.name)
        given.update(zip(movers, wanted.elements(), strict=True))
    return dict(sorted(given.items()))


def placed(
    members: Sequence[Member],
    devices: Sequence[str],
    variants: Sequence[tuple[str, int]],
    counts: Counts,
) -> tuple[dict[str, str], dict[str, int]]:
    """Model and level of each worker under counts by [device][variant]."""
    models = tuple(dict.fromkeys(m for m, _ in variants))
    held = tuple(
        tuple(sum(n for n, (vm, _) in zip(row, variants, strict=True) if vm == m) for m in models)
        for row in counts
    )
    of_model = assign_models(members, devices, models, held)
    levels: dict[str, int] = {}
    for device, row in zip(devices, counts, strict=True):
        for model in models:
            mine = {
                m.name: m.level if m.model == model else None
                for m in members
                if m.device == device and of_model[m.name] == model
            }
            mix = {k: n for n, (vm, k) in zip(row, variants, strict=True) if vm == model}
            levels.update(assign(mine, mix))
    return of_model, levels


def mix_of(levels: Mapping[str, int | None], ladder: Sequence[int]) -> tuple[int, ...]:
    """Workers at each level of the ladder; workers without a level, or off the ladder, are not counted."""
    counts = Counter(levels.values())
    return tuple(counts[k] for k in ladder)
