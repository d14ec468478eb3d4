"""A real but minute SD-XL with random weights, and ways to drive it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gesso_worker.engine import (
    Engine,
    Event,
    Failed,
    Finished,
    ImageRequest,
    Job,
    Model,
    ModelSettings,
    Start,
)
from gesso_worker.engine.job import Stage

STEPS = 6
SIDE = 32
PROMPTS = ("a red circle", "two blue squares", "")


def _tokenizer() -> CLIPTokenizer:
    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=16
    )


def _text_config(act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=190,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=16,
        hidden_act=act,
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
    )


def build_pipeline() -> StableDiffusionXLPipeline:
    torch.manual_seed(7)
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(1, 2),
        cross_attention_dim=32,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=SIDE,
        force_upcast=False,
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(_text_config("quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(_text_config("gelu")),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
        ),
        add_watermarker=False,
    )


def settings(source: object, **changes: Any) -> ModelSettings:
    base = ModelSettings(str(source), STEPS, SIDE, SIDE, guidance_scale=3.0)
    return replace(base, **changes)


def stock(
    model: Model, prompt: str, seed: int, guidance: float, scheduler: str = "", **kwargs: Any
) -> Any:
    """What the stock pipeline makes, one request on its own."""
    pipeline = model.pipeline
    own = StableDiffusionXLPipeline(
        **{**pipeline.components, "scheduler": model.trajectory(0, scheduler).scheduler},
        add_watermarker=False,
    )
    own.set_progress_bar_config(disable=True)
    return own(
        prompt=prompt,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
        return_dict=False,
        **{"height": SIDE, "width": SIDE, **kwargs},
    )[0]


class Gate:
    """A UNet that runs a call only when told to, and may run out of memory."""

    def __init__(self, unet: Any, most_rows: int | None = None) -> None:
        self._unet = unet
        self._permits = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.open = False
        self.most_rows = most_rows
        self.error: Exception | None = None
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unet, name)

    def __call__(self, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.rows.append(len(sample))
        self.arrived.release()
        if not self.open:
            assert self._permits.acquire(timeout=20)
        if self.error is not None:
            raise self.error
        if self.most_rows is not None and len(sample) > self.most_rows:
            raise torch.OutOfMemoryError("no memory left")
        return self._unet(sample, *args, **kwargs)

    def wait(self) -> None:
        """Until a call is there, held."""
        assert self.arrived.acquire(timeout=20)

    def step(self) -> None:
        """Lets the held call go."""
        self._permits.release()

    def open_wide(self) -> None:
        self.open = True
        self._permits.release(1000)


@dataclass
class Pipe:
    """A pipeline with another UNet."""

    _pipeline: Any
    unet: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


@dataclass
class Client:
    """Collects the events of one job."""

    events: list[Event] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    job: Job | None = None

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Finished | Failed):
            self.ended.set()

    def result(self) -> Event:
        assert self.ended.wait(30), "the job did not end"
        return self.events[-1]


def submit(engine: Engine, request: ImageRequest, start: Start | None = None) -> Client:
    client = Client()
    client.job = engine.accept(request, client)
    engine.begin(client.job, start or Start())
    return client


def until_ready(client: Client) -> None:
    """Until a job is encoded and waits for a place in the batch, which no event tells."""
    deadline = time.monotonic() + 20
    while client.job is None or client.job.stage is not Stage.READY:
        assert time.monotonic() < deadline, "the job was not encoded"
        time.sleep(0.002)


def pixels(event: Event) -> np.ndarray:
    """RGB of the image in an event, (H, W, 3) of int16."""
    assert isinstance(event, Finished)
    return np.asarray(Image.open(io.BytesIO(event.data)).convert("RGB"), dtype=np.int16)


def request(name: str = "r", seed: int = 0, **changes: Any) -> ImageRequest:
    return replace(ImageRequest(name, PROMPTS[0], seed, guidance_scale=3.0), **changes)


StartEngine = Callable[..., Engine]
