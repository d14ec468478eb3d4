"""Whatever joins and leaves the batch, each request gets what the stock pipeline would give it alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import PROMPTS, SIDE, STEPS, pixels, request, stock, submit
from engine_kit import settings as options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gesso_worker.engine import Engine, EngineSettings, Finished, Model, Start, load_model
from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import encode_prompt
from gesso_worker.engine.schedule import SCHEDULERS

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Visit:
    """A request that joins the batch at a tick, and may be taken out before it is done."""

    prompt: str
    seed: int
    guidance: float
    skipped: int
    joins: int
    leaves_after: int
    negative: str = ""
    size: tuple[int, int] = (SIDE, SIDE)
    scheduler: str = ""
    pauses: bool = False


visits = st.lists(
    st.builds(
        Visit,
        prompt=st.sampled_from(PROMPTS),
        seed=st.integers(0, 2),
        guidance=st.sampled_from([0.0, 1.0, 1.5, 7.5]),
        skipped=st.sampled_from([0, 0, 1, 3, 5]),
        joins=st.integers(0, 8),
        leaves_after=st.sampled_from([99, 99, 99, 1, 2]),
        negative=st.sampled_from(["", "", PROMPTS[1]]),
        size=st.sampled_from([(SIDE, SIDE), (SIDE, SIDE), (SIDE, 16), (24, SIDE)]),
        scheduler=st.sampled_from(["", *SCHEDULERS]),
        pauses=st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@cache
def _stock_steps(model: Model, visit: Visit) -> list[torch.Tensor]:
    """The stock pipeline's latents before each step, and the final ones."""
    seen: list[torch.Tensor] = []

    def note(
        _: Any, __: int, ___: Any, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        seen.append(tensors["latents"].clone())
        return tensors

    width, height = visit.size
    stock(
        model,
        visit.prompt,
        visit.seed,
        visit.guidance,
        scheduler=visit.scheduler,
        negative_prompt=visit.negative or None,
        width=width,
        height=height,
        output_type="latent",
        callback_on_step_end=note,
    )
    trajectory = model.trajectory(0, visit.scheduler)
    return [model.noise(visit.seed, trajectory, model.shape_of(width, height)), *seen]


def _source(model: Model, visit: Visit) -> torch.Tensor:
    """What another prompt of the same size and sampler left before step K."""
    other = Visit(PROMPTS[1], visit.seed, 7.5, 0, 0, 99, "", visit.size, visit.scheduler)
    return _stock_steps(model, other)[visit.skipped]


@cache
def _expected(model: Model, visit: Visit) -> torch.Tensor:
    """Sequentially, by diffusers' own scheduler: from another prompt's latents if steps are skipped."""
    if not visit.skipped:
        return _stock_steps(model, visit)[-1]
    latents = _source(model, visit)
    scheduler = model.trajectory(visit.skipped, visit.scheduler).scheduler
    c = encode_prompt(model, visit.prompt, visit.negative, visit.guidance, *visit.size)
    with torch.inference_mode():
        for t in scheduler.timesteps[visit.skipped :]:
            outputs = [
                model.unet(
                    scheduler.scale_model_input(latents, t),
                    t,
                    encoder_hidden_states=embeds,
                    added_cond_kwargs={"text_embeds": pooled, "time_ids": c.time_ids},
                ).sample
                for embeds, pooled in ((c.embeds, c.pooled), (c.negative_embeds, c.negative_pooled))
                if embeds is not None
            ]
            output = outputs[0]
            if visit.guidance > 1:
                output = outputs[1] + visit.guidance * (outputs[0] - outputs[1])
            latents = scheduler.step(output, t, latents).prev_sample
    return latents


def _member(model: Model, visit: Visit) -> Member:
    trajectory = model.trajectory(visit.skipped, visit.scheduler)
    if visit.skipped:
        latents = _source(model, visit)
    else:
        latents = model.noise(visit.seed, trajectory, model.shape_of(*visit.size))
    conditioning = encode_prompt(model, visit.prompt, visit.negative, visit.guidance, *visit.size)
    return Member(trajectory, conditioning, visit.guidance, latents)


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(visits=visits)
def test_any_interleaving_equals_the_sequential_run(
    name: str, visits: list[Visit], models: dict[str, Model]
) -> None:
    model = models[name]
    batch = DenoisingBatch(model.unet, model.device, model.dtype)
    members = {visit: _member(model, visit) for visit in visits}
    ticks: dict[Visit, int] = dict.fromkeys(visits, 0)
    finished = []
    for tick in range(STEPS + 12):
        stay = [v for v in members if v.joins <= tick and members[v].trajectory.remaining]
        stay = [v for v in stay if ticks[v] < v.leaves_after]
        # One that makes room for others for a while goes on where it was.
        stay = [v for v in stay if not (v.pauses and v.joins + 2 <= tick < v.joins + 4)]
        batch.replace([members[v] for v in stay])
        if stay:
            batch.tick()
        for visit in stay:
            ticks[visit] += 1
            finished += [visit] if not members[visit].trajectory.remaining else []
    batch.replace([])
    assert finished or all(v.leaves_after < 99 for v in visits)
    for visit in finished:
        difference = (members[visit].latents - _expected(model, visit)).abs().max().item()
        assert difference <= TOLERANCE, f"{visit}: {difference}"


def _run(model: Model, member: Member, keep: int | None = None) -> torch.Tensor | None:
    batch = DenoisingBatch(model.unet, model.device, model.dtype)
    batch.replace([member])
    kept = None
    while member.trajectory.remaining:
        if member.trajectory.step == keep:
            kept = batch.latents_of(member)
        batch.tick()
    batch.replace([])
    return kept


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("skipped", range(1, STEPS))
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    model: Model, skipped: int, guidance: float
) -> None:
    whole = _member(model, Visit(PROMPTS[0], 4, guidance, 0, 0, 99))
    kept = _run(model, whole, keep=skipped)
    assert kept is not None
    conditioning = encode_prompt(model, PROMPTS[0], "", guidance)
    resumed = Member(model.trajectory(skipped), conditioning, guidance, kept)
    _run(model, resumed)
    assert torch.equal(resumed.latents, whole.latents)


def test_the_engine_makes_the_stock_pipelines_images(model: Model, start_engine: Any) -> None:
    engine = start_engine()
    cases = [(PROMPTS[i % 2], 10 + i, [1.0, 3.0][i % 3 % 2]) for i in range(7)]
    clients = [
        submit(engine, request(f"r{i}", seed, prompt=prompt, guidance_scale=guidance))
        for i, (prompt, seed, guidance) in enumerate(cases)
    ]
    # The stock pipeline shares the model's parts, which bear one thread at a time: the engine ends first.
    results = [client.result() for client in clients]
    for (prompt, seed, guidance), result in zip(cases, results, strict=True):
        expected = np.asarray(stock(model, prompt, seed, guidance)[0], dtype=np.int16)
        assert expected.shape == (SIDE, SIDE, 3)
        assert np.abs(pixels(result) - expected).max() <= 1


def test_a_negative_prompt_counts_as_in_the_stock_pipeline(model: Model, start_engine: Any) -> None:
    asked = request(seed=3, negative_prompt="a red circle", prompt="two blue squares")
    made = pixels(submit(start_engine(), asked).result())
    expected = stock(model, "two blue squares", 3, 3.0, negative_prompt="a red circle")[0]
    without = stock(model, "two blue squares", 3, 3.0)[0]
    assert np.abs(made - np.asarray(expected, dtype=np.int16)).max() <= 1
    assert np.abs(made - np.asarray(without, dtype=np.int16)).max() > 1


def test_kept_latents_start_the_same_image(model: Model, start_engine: Any) -> None:
    kept: dict[int, torch.Tensor] = {}
    engine = start_engine(keep=lambda job, latents: kept.update(latents))
    first = submit(engine, request(seed=5, keep_levels=(2, 4))).result()
    assert sorted(kept) == [2, 4]
    start = Start(4, kept[4])
    again = submit(engine, request(seed=999, skipped_steps=4), start).result()
    assert isinstance(again, Finished)
    assert again.skipped_steps == 4
    assert np.array_equal(pixels(again), pixels(first))


def test_half_precision_stays_near_float32(folder: Any, start_engine: Any) -> None:
    half = load_model(options(folder), device="cpu")
    half.pipeline.to(torch.bfloat16)
    half = replace(half, dtype=torch.bfloat16, time_ids=half.time_ids.to(torch.bfloat16))
    kept: dict[int, torch.Tensor] = {}
    engine = Engine(half, EngineSettings(), keep=lambda job, latents: kept.update(latents))
    engine.start()
    try:
        made = pixels(submit(engine, request(seed=5, keep_levels=(2,))).result())
    finally:
        engine.stop()
    assert kept[2].dtype == torch.bfloat16
    whole = pixels(submit(start_engine(), request(seed=5)).result())
    assert np.abs(made - whole).mean() < 4
