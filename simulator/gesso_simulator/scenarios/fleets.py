"""The GPUs of the scenarios: published times, and what is assumed beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gesso.profile import Profile
from gesso_router.routing.predictors.thresholds import NIRVANA_STEPS
from gesso_simulator.scenarios.spec import DeviceClass, WorkerSpec

#: SD-XL at 50 steps on an A100, as published with Argus (Middleware'25): 4.20 s an image at K = 0, falling to
#: 0 in proportion to 50 - K, and the factor on the rates that its authors' solver uses.
PUBLISHED_SECONDS = 4.20
PUBLISHED_FACTOR = 1.65
#: Coefficient of variation of service times. Assumed.
JITTER = 0.02
#: Loading SD-XL onto the GPU, as measured by Argus's authors.
LOAD_SECONDS = 47.0

#: SDXL-Lightning by its name as a variant. Its share of SD-XL's time is from DiffServe's profile (MLSys'25:
#: 0.55 s against 6.1 s); its relative quality is assumed, the same for every prompt; so are its four steps.
LIGHTNING = "lightning"
LIGHTNING_TIME = 0.09
LIGHTNING_STEPS = 4
LIGHTNING_QUALITY = 0.88

#: The slower class of `two-gpu-classes`: its speed and fixed cost are assumed (the cost as large as SD-XL's
#: on an H800).
SLOW_SPEED = 0.55
SLOW_FIXED_SECONDS = 0.28

_Z95 = 1.6448536269514722


def p95_ratio(jitter: float) -> float:
    """95th percentile over mean of a log-normal time with this coefficient of variation."""
    sigma = math.sqrt(math.log1p(jitter**2))
    return math.exp(_Z95 * sigma - sigma**2 / 2)


def jitter_of(ratio: float) -> float:
    """The coefficient of variation of a log-normal time whose 95th percentile over mean is this; the inverse.

    A log-normal's ratio never exceeds exp(1.645^2 / 2) = 3.87; above, the variation at that is returned.
    """
    sigma = _Z95 - math.sqrt(max(0.0, _Z95**2 - 2 * math.log(max(1.0, ratio))))
    return math.sqrt(math.expm1(sigma**2))


def published(
    steps: int = NIRVANA_STEPS, device: str = "a100", speed: float = 1.0, fixed_seconds: float = 0.0
) -> Profile:
    """The published profile: one image at a time, no fixed cost; or a class so much slower, with one."""
    step = PUBLISHED_SECONDS / PUBLISHED_FACTOR / NIRVANA_STEPS / speed
    return Profile(device, steps, 0.0, fixed_seconds, (step,), p95_ratio(JITTER))


@dataclass(frozen=True)
class Other:
    """Another model that workers may hold: its relative quality, the same for every prompt, and its times."""

    name: str
    quality: float
    profile: Profile
    load_seconds: float = LOAD_SECONDS

    def on(self, device: Profile, slowdown: float = 1.0, fixed_seconds: float = 0.0) -> Profile:
        """Its times on another device, where a step takes so many times as long and an image so much more."""
        mine = self.profile
        return replace(
            mine,
            device=device.device,
            decode_seconds=mine.decode_seconds + fixed_seconds,
            step_seconds=tuple(s * slowdown for s in mine.step_seconds),
        )


def lightning(own: Profile) -> Other:
    """SDXL-Lightning beside a model of these times."""
    step = LIGHTNING_TIME * own.latency_seconds(0) / LIGHTNING_STEPS
    profile = Profile(own.device, LIGHTNING_STEPS, 0.0, 0.0, (step,), own.p95_ratio)
    return Other(LIGHTNING, LIGHTNING_QUALITY, profile)


def device_class(
    own: Profile, others: Mapping[str, tuple[Profile, float]], load_seconds: float = LOAD_SECONDS
) -> DeviceClass:
    """A GPU that holds the service's own model or one of others, by name: profile and seconds to load."""
    profiles = {"": own} | {name: profile for name, (profile, _) in others.items()}
    loads = {"": load_seconds} | {name: seconds for name, (_, seconds) in others.items()}
    return DeviceClass(own.device, profiles, loads)


def fleet(count: int, classes: tuple[DeviceClass, ...]) -> tuple[WorkerSpec, ...]:
    """So many workers, divided evenly over the classes, the first ones taking what is left."""
    each, left = divmod(count, len(classes))
    sizes = [each + (i < left) for i in range(len(classes))]
    devices = [device for device, size in zip(classes, sizes, strict=True) for _ in range(size)]
    return tuple(WorkerSpec(f"worker-{i}", device) for i, device in enumerate(devices))
