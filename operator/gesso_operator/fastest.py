"""Whether a deadline can be made at all by the devices that there are; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from gesso.api import DiffusionService
from gesso.profile import Profile
from gesso_operator.planning import WorkerView


def fastest_image_seconds(profile: Profile, levels: Sequence[int]) -> float:
    """Latency of an image at the largest of `levels`, alone on its device and without waiting."""
    return profile.latency_seconds(max(levels))


def slo_below_fastest_image(service: DiffusionService, workers: Iterable[WorkerView]) -> str:
    """What is wrong with the deadline, as of the workers' measured profiles; empty where nothing is, or where
    what it takes to know has not been measured.

    One worker that makes it is enough. A variant that no worker has held yet may be the one that does.
    """
    variants = {
        "" if variant.model is None else variant.name: variant for variant in service.spec.variants
    }
    measured = [(w.model, w.profile) for w in workers if w.profile is not None]
    if set(variants) - {model for model, _ in measured}:
        return ""
    seconds, model, device = min(
        (fastest_image_seconds(profile, variants[model].levels), model, profile.device)
        for model, profile in measured
        if model in variants
    )
    least = math.ceil(1000 * seconds) / 1000
    deadline = service.spec.slo.latency_seconds
    if deadline >= seconds:
        return ""
    how = f"by {model}" if model else f"at K = {service.ladder[-1]}"
    return (
        f"spec.slo.latencySeconds: {deadline:g} is not allowed: at least {least:g}, which the fastest "
        f"possible image takes ({how} on {device}, measured)"
    )
