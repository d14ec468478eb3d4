"""How many workers to ask for now, looking ahead: a dynamic programme over the sizes a fleet may have.

Time goes in steps. `values[j, n]` is what n workers are worth in step j, their cost included. Workers may be
let go at any step, and those asked for now serve after `lead` steps, at a start's cost each. The expected
values of all steps are known now: chances that something is learned on the way are not reckoned with, but the
programme is solved anew at each plan.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def to_ask(values: Floats, lead: int, start_costs: Floats) -> Ints:
    """For each number of workers that there may be now the number to ask for, both as places in the list of
    sizes.

    `values` has shape (steps, ..., sizes), `start_costs[n]` is what starting the first n of the sizes' workers
    costs. The result has the middle shape and a last axis over sizes. Equally good: what there is.
    """
    steps, size = len(values), values.shape[-1]
    places = np.arange(size)
    after = np.zeros(values.shape[1:])
    downs: list[Ints] = []
    ups: Ints | None = None
    for j in range(steps - 1, -1, -1):
        value = values[j] + after
        # The best of as many or fewer.
        after, down = _best_below(value, places)
        if j <= lead:
            downs.append(down)
        if j >= lead:
            net = value - start_costs
            above, up = _best_below(net[..., ::-1], places)
            above, up = above[..., ::-1] + start_costs, (size - 1 - up)[..., ::-1]
            if j == lead:
                ups = np.where(above > after, up, places)
            after = np.maximum(after, above)
    at = np.broadcast_to(places, values.shape[1:])
    first = at
    for j, down in enumerate(downs[::-1][:lead]):
        at = np.take_along_axis(down, at, -1)
        if j == 0:
            first = at
    if ups is None:
        return np.ascontiguousarray(first)
    grown = np.take_along_axis(ups, at, -1)
    return np.where(grown > at, np.maximum(grown, first), first)


def _best_below(value: Floats, places: Ints) -> tuple[Floats, Ints]:
    best = np.maximum.accumulate(value, axis=-1)
    place = np.maximum.accumulate(np.where(value >= best, places, 0), axis=-1)
    return best, place
