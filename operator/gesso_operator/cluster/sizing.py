"""How many worker pods there should be, and which leave first; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gesso.api import WorkersSpec

#: Seconds for which a worker that is to go gets no new requests before its pod goes, and the most that it may
#: take to hand its shard over meanwhile.
LEAVE_S, HAND_OVER_S = 3.0, 30.0


@dataclass(frozen=True)
class Size:
    """`pods` is what the StatefulSet is to have; `target` what is wanted; fewer since `leaving_since_s`."""

    pods: int
    target: int
    leaving_since_s: float | None = None

    def stays(self, ordinal: int) -> bool:
        """Whether a pod with this number is to go on serving."""
        return 0 <= ordinal < self.target

    def leaves(self, ordinal: int) -> bool:
        """Whether a pod with this number is there still, and on its way out."""
        return self.target <= ordinal < self.pods


def wanted(spec: WorkersSpec, planned: int | None, before: int | None) -> int:
    """How many workers are wanted: what is pinned, else what was planned, else what there was, in bounds."""
    if not spec.elastic:
        return spec.least
    found = planned if planned is not None else before
    return min(spec.most, max(spec.least, spec.least if found is None else found))


def resized(size: Size, target: int, now_s: float, handed_over: bool = True) -> Size:
    """After the wish for `target` workers: growing is at once, those that go are let finish first.

    A StatefulSet removes its highest numbers, so that these get no new requests for a while, and hand their
    shards over; a wish for more meanwhile takes them back.
    """
    if target >= size.pods:
        return Size(target, target)
    since = size.leaving_since_s if size.leaving_since_s is not None else now_s
    if target < size.target:
        since = now_s
    if now_s - since >= (LEAVE_S if handed_over else HAND_OVER_S):
        return Size(target, target)
    return replace(size, target=target, leaving_since_s=since)
