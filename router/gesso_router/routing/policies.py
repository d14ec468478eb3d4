"""Every way to place a prompt, by the name of its policy in `spec.scheduling.policy`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gesso_router.routing.baselines.argus import route_argus
from gesso_router.routing.baselines.nirvana import route_nirvana
from gesso_router.routing.baselines.plain import route_least_outstanding, route_round_robin
from gesso_router.routing.baselines.proteus import route_proteus
from gesso_router.routing.choose import ChoicePolicy, choose
from gesso_router.routing.view import Ask, Choice, FleetView, Refusal

#: One prompt, the fleet as it stands, and a draw that is uniform in [0, 1): where it goes, or why not.
Route = Callable[[Ask, FleetView, float], Choice | Refusal]

#: Policies that choose by price, and their constants.
PRICE_POLICIES: Mapping[str, ChoicePolicy] = {
    "QualityAware": ChoicePolicy(),
    "PromptAgnostic": ChoicePolicy(prompt_aware=False),
    "BacklogPrice": ChoicePolicy(use_plan_price=False),
}

#: Policies whose prompts wait in one queue for a window (see `clipper`), instead of being placed at once.
CENTRAL_QUEUE = frozenset({"ClipperHA", "ClipperHT"})

#: Policies that generate in full whatever the prompt: they need neither embedding nor look-up.
IN_FULL = frozenset({"ClipperHA", "RoundRobin", "LeastOutstanding"})


def price_route(policy: ChoicePolicy) -> Route:
    """The choice by price with these constants."""

    def route(ask: Ask, fleet: FleetView, draw: float) -> Choice | Refusal:
        return choose(ask, fleet, policy)

    return route


ROUTES: Mapping[str, Route] = {
    **{name: price_route(policy) for name, policy in PRICE_POLICIES.items()},
    "Argus": route_argus,
    "Nirvana": route_nirvana,
    "Proteus": route_proteus,
    "RoundRobin": route_round_robin,
    "LeastOutstanding": route_least_outstanding,
}
