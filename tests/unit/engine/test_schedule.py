"""The step coefficients give what diffusers' own schedulers give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LMSDiscreteScheduler,
)

from gesso_worker.engine.schedule import (
    SCHEDULERS,
    Trajectory,
    make_scheduler,
    step_coefficients,
)

STEPS = 20
CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("begin", [0, 7])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_coefficients_equal_the_stock_step(name: str, begin: int, spacing: str, kind: str) -> None:
    config = {**CONFIG, "prediction_type": kind, "timestep_spacing": spacing}
    _compare(make_scheduler(name, config), STEPS, begin)


@pytest.mark.parametrize("steps", [1, 2, 8, 14, 15, 50])
@pytest.mark.parametrize(
    "changes",
    [{}, {"use_karras_sigmas": True}, {"final_sigmas_type": "sigma_min"}, {"euler_at_final": True}],
    ids=str,
)
def test_the_multistep_sampler_equals_the_stock_one_at_any_count(
    changes: dict[str, object], steps: int
) -> None:
    _compare(make_scheduler("DPM++ 2M", {**CONFIG, **changes}), steps, 0)


def _compare(scheduler: Any, steps: int, begin: int) -> None:
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 4, 4, generator=generator) * float(scheduler.init_noise_sigma)
    before = torch.zeros_like(x)
    coefficients = step_coefficients(scheduler, begin)[begin:]
    for t, step in zip(scheduler.timesteps[begin:], coefficients, strict=True):
        output = torch.randn(1, 4, 4, 4, generator=generator)
        torch.testing.assert_close(step.scale * x, scheduler.scale_model_input(x, t))
        assert step.timestep == float(t)
        after = scheduler.step(output, t, x, return_dict=False)[0]
        made = step.keep * x + step.gain * output + step.past * before
        torch.testing.assert_close(made, after, rtol=1e-5, atol=1e-5)
        x, before = after, step.skip * x + step.out * output


def test_a_trajectory_from_k_goes_on_where_diffusers_scheduler_begins() -> None:
    trajectory = Trajectory(make_scheduler("Euler", CONFIG), STEPS, 5)
    x, output = torch.ones(1, 4, 4, 4), torch.full((1, 4, 4, 4), 0.5)
    timestep = trajectory.scheduler.timesteps[5]
    expected = trajectory.scheduler.step(
        output, timestep, trajectory.scheduler.scale_model_input(x, timestep) * 0 + x
    ).prev_sample
    step = trajectory.coefficients[trajectory.step]
    torch.testing.assert_close(step.keep * x + step.gain * output, expected)
    assert (trajectory.step, trajectory.remaining) == (5, 15)


def test_trajectories_share_no_scheduler() -> None:
    template = make_scheduler("Euler", CONFIG)
    first, second = Trajectory(template, STEPS), Trajectory(template, STEPS)
    assert first.scheduler is not second.scheduler
    assert template.num_inference_steps is None


@pytest.mark.parametrize("begin", [-1, STEPS, STEPS + 1])
def test_a_begin_outside_of_the_steps_is_refused(begin: int) -> None:
    with pytest.raises(ValueError, match=f"{begin} is not allowed: 0 to {STEPS - 1}"):
        Trajectory(make_scheduler("Euler", CONFIG), STEPS, begin)


def test_ddim_made_from_eulers_configuration_does_not_clip_latents() -> None:
    scheduler = make_scheduler("DDIM", dict(EulerDiscreteScheduler.from_config(CONFIG).config))
    assert not scheduler.config.clip_sample


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(LMSDiscreteScheduler(), id="multistep"),
        pytest.param(DDIMScheduler(clip_sample=True), id="clipping"),
        pytest.param(DPMSolverMultistepScheduler(solver_order=3), id="third order"),
    ],
)
def test_a_scheduler_that_is_not_linear_is_refused(scheduler: object) -> None:
    scheduler.set_timesteps(STEPS)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not allowed"):
        step_coefficients(scheduler)


def test_an_unknown_scheduler_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"spec\.model\.scheduler: 'Heun'.*Euler, DDIM, DPM"):
        make_scheduler("Heun", CONFIG)


def test_the_denoised_sample_is_what_noise_was_added_to() -> None:
    for name in SCHEDULERS:
        trajectory = Trajectory(make_scheduler(name, CONFIG), STEPS)
        clean, noise = torch.full((1, 4, 4, 4), 0.7), torch.randn(1, 4, 4, 4)
        t = trajectory.scheduler.timesteps[3:4]
        step = trajectory.coefficients[3]
        fresh = make_scheduler(name, CONFIG)
        fresh.set_timesteps(STEPS)
        x = fresh.add_noise(clean, noise, t)
        if name == "Euler":
            assert step.scale < 1
        torch.testing.assert_close(step.skip * x + step.out * noise, clean, rtol=1e-4, atol=1e-4)
