"""Says which worker gets which level: the mix as counts becomes names, with the fewest changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


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


def mix_of(levels: Mapping[str, int | None], ladder: tuple[int, ...]) -> tuple[int, ...]:
    """Workers at each level of the ladder; workers without a level, or off the ladder, are not counted."""
    counts = Counter(levels.values())
    return tuple(counts[k] for k in ladder)
