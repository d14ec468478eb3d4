"""One request's way through the denoising steps: its own scheduler, and each step as three numbers.

The samplers served here, Euler and DDIM without noise, are linear in the sample x and the model's output m:
a step is ``x' = keep * x + gain * m`` on the model input ``scale * x``. So requests at unlike timesteps are
stepped together with one multiply-add. Formulas: Karras et al. 2022, algorithm 2 (Euler); Song et al. 2021,
equations 12 and 16 with eta = 0 (DDIM); Salimans and Ho 2022 (v-prediction). They give what diffusers'
``step`` gives.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from diffusers import DDIMScheduler, EulerDiscreteScheduler

SCHEDULERS: Final = ("Euler", "DDIM")


@dataclass(frozen=True, slots=True)
class StepCoefficients:
    """One denoising step: `x' = keep * x + gain * unet(scale * x, timestep)`."""

    timestep: float
    scale: float
    keep: float
    gain: float


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler of the named kind, with the noise schedule of the model's own `config`.

    Clipping is off: it is meant for pixels and would cut latents. Raises ValueError for an unknown name.
    """
    if name == "Euler":
        return EulerDiscreteScheduler.from_config(config)
    if name == "DDIM":
        # SD-XL's own configuration says False to all three; one saved from Euler does not say.
        fixed = {"clip_sample": False, "thresholding": False}
        return DDIMScheduler.from_config(config, **{"set_alpha_to_one": False, **config, **fixed})
    raise ValueError(
        f"spec.model.scheduler: {name!r} is not allowed: one of {', '.join(SCHEDULERS)}"
    )


class Trajectory:
    """The steps of one request from K on, with a scheduler of its own (diffusers' cannot be shared).

    `step` is the index of the next step, from `begin` to `steps`, where the run is over.
    """

    __slots__ = ("begin", "coefficients", "scheduler", "step", "steps")

    def __init__(self, template: Any, steps: int, begin: int = 0) -> None:
        """`template` is copied, never changed. Raises ValueError unless 0 <= begin < steps."""
        if not 0 <= begin < steps:
            raise ValueError(f"skipped_steps: {begin} is not allowed: 0 to {steps - 1}")
        self.scheduler = copy.deepcopy(template)
        self.scheduler.set_timesteps(steps)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin)
        self.steps = steps
        self.begin = begin
        self.step = begin
        self.coefficients = step_coefficients(self.scheduler)

    @property
    def remaining(self) -> int:
        """Steps still to do."""
        return self.steps - self.step

    @property
    def init_noise_sigma(self) -> float:
        """What unit noise is multiplied by to make the latent before step 0."""
        return float(self.scheduler.init_noise_sigma)


def step_coefficients(scheduler: Any) -> tuple[StepCoefficients, ...]:
    """Every step of a scheduler whose timesteps are set. Raises ValueError for one not linear or not finite."""
    if isinstance(scheduler, EulerDiscreteScheduler):
        steps = _euler(scheduler)
    elif isinstance(scheduler, DDIMScheduler):
        steps = _ddim(scheduler)
    else:
        raise ValueError(f"scheduler: {type(scheduler).__name__} is not allowed: Euler or DDIM")
    for step in steps:
        if not all(map(math.isfinite, (step.timestep, step.scale, step.keep, step.gain))):
            raise ValueError(f"scheduler: the step at timestep {step.timestep} is not finite")
    return steps


def _euler(scheduler: Any) -> tuple[StepCoefficients, ...]:
    kind = scheduler.config.prediction_type
    sigmas = [float(s) for s in scheduler.sigmas]
    steps = []
    for t, sigma, after in zip(scheduler.timesteps.tolist(), sigmas, sigmas[1:], strict=False):
        # x' = x + (x - x0) / sigma * dt, with x0 = c_skip * x + c_out * m
        c_skip, c_out = _denoised(kind, sigma)
        ratio = (after - sigma) / sigma
        steps.append(
            StepCoefficients(
                timestep=float(t),
                scale=1 / math.sqrt(sigma**2 + 1),
                keep=1 + (1 - c_skip) * ratio,
                gain=-c_out * ratio,
            )
        )
    return tuple(steps)


def _denoised(kind: str, sigma: float) -> tuple[float, float]:
    """(c_skip, c_out) of the denoised sample `c_skip * x + c_out * m`, x of variance sigma^2 + 1."""
    if kind == "epsilon":
        return 1.0, -sigma
    if kind == "v_prediction":
        return 1 / (sigma**2 + 1), -sigma / math.sqrt(sigma**2 + 1)
    if kind in ("sample", "original_sample"):
        return 0.0, 1.0
    raise ValueError(f"scheduler: prediction_type {kind!r} is not allowed: epsilon or v_prediction")


def _ddim(scheduler: Any) -> tuple[StepCoefficients, ...]:
    config = scheduler.config
    if config.clip_sample or config.thresholding:
        raise ValueError("scheduler: clip_sample and thresholding are not allowed with latents")
    stride = config.num_train_timesteps // scheduler.num_inference_steps
    alphas = [float(a) for a in scheduler.alphas_cumprod]
    steps = []
    for t in scheduler.timesteps.tolist():
        alpha = alphas[t]
        before = alphas[t - stride] if t >= stride else float(scheduler.final_alpha_cumprod)
        a, b = math.sqrt(alpha), math.sqrt(1 - alpha)
        a1, b1 = math.sqrt(before), math.sqrt(1 - before)
        if config.prediction_type == "epsilon":
            keep, gain = a1 / a, b1 - a1 * b / a
        elif config.prediction_type == "v_prediction":
            keep, gain = a1 * a + b1 * b, b1 * a - a1 * b
        elif config.prediction_type == "sample":
            keep, gain = b1 / b, a1 - b1 * a / b
        else:
            kind = config.prediction_type
            raise ValueError(
                f"scheduler: prediction_type {kind!r} is not allowed: epsilon or v_prediction"
            )
        steps.append(StepCoefficients(float(t), 1.0, keep, gain))
    return tuple(steps)
