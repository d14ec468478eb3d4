"""One request's way through the denoising steps: its own scheduler, and each step as three numbers.

The samplers served here are linear in the sample x, the model's output m and the denoised sample of the step
before, d: a step is ``x' = keep * x + gain * m + past * d`` on the model input ``scale * x``, and its own
denoised sample is ``skip * x + out * m``. So requests at unlike timesteps, of unlike samplers, are stepped
together with a few multiply-adds. Formulas: Karras et al. 2022, algorithm 2 (Euler); Song et al. 2021,
equations 12 and 16 with eta = 0 (DDIM); Lu et al. 2022, algorithm 2 (DPM++ 2M); Salimans and Ho 2022
(v-prediction). They give what diffusers' ``step`` gives.

DPM++ 2M looks one step back. A run that starts at K > 0 takes its first step at first order, as at K = 0, and
has its history from there on: what diffusers' own scheduler does from `set_begin_index(K)`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

SCHEDULERS: Final = ("Euler", "DDIM", "DPM++ 2M")


#: Below so many steps diffusers ends at first order, where told to.
_FEW_STEPS: Final = 15


@dataclass(frozen=True, slots=True)
class StepCoefficients:
    """One denoising step: `x' = keep * x + gain * m + past * d`, m = unet(scale * x, timestep).

    d is the denoised sample of the step before; that of this one is `skip * x + out * m`.
    """

    timestep: float
    scale: float
    keep: float
    gain: float
    skip: float
    out: float
    past: float = 0.0


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
    if name == "DPM++ 2M":
        kind = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
        return DPMSolverMultistepScheduler.from_config(config, **kind, thresholding=False)
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
        self.coefficients = step_coefficients(self.scheduler, begin)

    @property
    def remaining(self) -> int:
        """Steps still to do."""
        return self.steps - self.step

    @property
    def init_noise_sigma(self) -> float:
        """What unit noise is multiplied by to make the latent before step 0."""
        return float(self.scheduler.init_noise_sigma)


def step_coefficients(scheduler: Any, begin: int = 0) -> tuple[StepCoefficients, ...]:
    """Every step of a scheduler whose timesteps are set; the one at `begin` does not look back.

    Raises ValueError for one not linear or not finite.
    """
    if isinstance(scheduler, EulerDiscreteScheduler):
        steps = _euler(scheduler)
    elif isinstance(scheduler, DDIMScheduler):
        steps = _ddim(scheduler)
    elif isinstance(scheduler, DPMSolverMultistepScheduler):
        steps = _dpm(scheduler, begin)
    else:
        raise ValueError(
            f"scheduler: {type(scheduler).__name__} is not allowed: one of {', '.join(SCHEDULERS)}"
        )
    for step in steps:
        if not all(map(math.isfinite, astuple(step))):
            raise ValueError(f"scheduler: the step at timestep {step.timestep} is not finite")
    return steps


def _euler(scheduler: Any) -> tuple[StepCoefficients, ...]:
    kind = scheduler.config.prediction_type
    sigmas = [float(s) for s in scheduler.sigmas]
    steps = []
    for t, sigma, after in zip(scheduler.timesteps.tolist(), sigmas, sigmas[1:], strict=False):
        # x' = x + (x - x0) / sigma * dt, with x0 = skip * x + out * m; x has the variance sigma^2 + 1.
        alpha = 1 / math.sqrt(sigma**2 + 1)
        skip, out = _denoised(kind, alpha, sigma * alpha)
        skip *= alpha
        ratio = (after - sigma) / sigma
        steps.append(
            StepCoefficients(
                timestep=float(t),
                scale=alpha,
                keep=1 + (1 - skip) * ratio,
                gain=-out * ratio,
                skip=skip,
                out=out,
            )
        )
    return tuple(steps)


def _ddim(scheduler: Any) -> tuple[StepCoefficients, ...]:
    config = scheduler.config
    if config.clip_sample or config.thresholding:
        raise ValueError("scheduler: clip_sample and thresholding are not allowed with latents")
    stride = config.num_train_timesteps // scheduler.num_inference_steps
    alphas = [float(a) for a in scheduler.alphas_cumprod]
    steps = []
    for t in scheduler.timesteps.tolist():
        square = alphas[t]
        before = alphas[t - stride] if t >= stride else float(scheduler.final_alpha_cumprod)
        alpha, sigma = math.sqrt(square), math.sqrt(1 - square)
        after, noise = math.sqrt(before), math.sqrt(1 - before)
        # x' = after * x0 + noise * (x - alpha * x0) / sigma
        skip, out = _denoised(config.prediction_type, alpha, sigma)
        pull = after - noise * alpha / sigma
        keep, gain = noise / sigma + pull * skip, pull * out
        steps.append(StepCoefficients(float(t), 1.0, keep, gain, skip, out))
    return tuple(steps)


def _dpm(scheduler: Any, begin: int) -> tuple[StepCoefficients, ...]:
    config = scheduler.config
    kind = (config.algorithm_type, config.solver_type, config.solver_order)
    if kind != ("dpmsolver++", "midpoint", 2) or config.thresholding:
        raise ValueError(f"scheduler: {kind} is not allowed: dpmsolver++, midpoint, 2")
    sigmas = [float(s) for s in scheduler.sigmas]
    count = len(sigmas) - 1
    few = config.lower_order_final and count < _FEW_STEPS
    steps = []
    for i, t in enumerate(scheduler.timesteps.tolist()):
        alpha, sigma = _variance_preserving(sigmas[i])
        alpha_after, sigma_after = _variance_preserving(sigmas[i + 1])
        skip, out = _denoised(config.prediction_type, alpha, sigma)
        # With lambda = -log(sigma_i), so that exp(-h) = sigma_after / sigma_before, 0 at the end.
        pull = alpha_after * (1 - sigmas[i + 1] / sigmas[i])
        last = i == count - 1 and (
            config.euler_at_final or few or config.final_sigmas_type == "zero"
        )
        past = 0.0
        now = pull
        if i > begin and not last:
            ratio = math.log(sigmas[i - 1] / sigmas[i]) / math.log(sigmas[i] / sigmas[i + 1])
            now, past = pull * (1 + 0.5 / ratio), -pull * 0.5 / ratio
        keep, gain = sigma_after / sigma + now * skip, now * out
        steps.append(StepCoefficients(float(t), 1.0, keep, gain, skip, out, past))
    return tuple(steps)


def _variance_preserving(sigma: float) -> tuple[float, float]:
    """(alpha, sigma) of a sample scaled to the variance 1."""
    alpha = 1 / math.sqrt(sigma**2 + 1)
    return alpha, sigma * alpha


def _denoised(kind: str, alpha: float, sigma: float) -> tuple[float, float]:
    """(skip, out) of the denoised sample `skip * x + out * m`, where x = alpha * x0 + sigma * noise."""
    if kind == "epsilon":
        return 1 / alpha, -sigma / alpha
    if kind == "v_prediction":
        return alpha, -sigma
    if kind in ("sample", "original_sample"):
        return 0.0, 1.0
    raise ValueError(f"scheduler: prediction_type {kind!r} is not allowed: epsilon or v_prediction")
