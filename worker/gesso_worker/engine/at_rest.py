"""Measures a stage of an idle engine, in that stage's own thread; stops between two calls when work comes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gesso_worker.engine.batch import DenoisingBatch, Member
from gesso_worker.engine.conditioning import Conditioning, encode_prompt
from gesso_worker.engine.decoding import decode_latents
from gesso_worker.engine.images import Provenance, encode_image
from gesso_worker.engine.ledger import Ledger
from gesso_worker.engine.live_profile import LiveProfile
from gesso_worker.engine.model import Model
from gesso_worker.engine.rest import RestPacer, RestStage
from gesso_worker.engine.streams import finish

logger = logging.getLogger(__name__)

#: Calls of each measurement, of which the fastest counts: the first finds cold caches, or clocks that sleep.
CALLS = 2


@dataclass(frozen=True)
class Sample:
    """What to measure with: a prompt, as text and encoded, and the latents (1, C, H, W) of its image."""

    prompt: str
    conditioning: Conditioning
    latents: Tensor


class AtRest:
    """`measure` is called by each stage's thread whenever it has had nothing to do for a moment."""

    def __init__(
        self,
        model: Model,
        ledger: Ledger,
        live: LiveProfile,
        sample: Sample,
        pacer: RestPacer | None = None,
    ) -> None:
        """`live` is told what the stages took; times are by the ledger's clock."""
        self._model, self._ledger, self._live, self._sample = model, ledger, live, sample
        self._pacer = pacer or RestPacer()
        self._trajectory = model.trajectory()
        self._calls: dict[RestStage, Callable[[], object]] = {
            "encode": self._encode,
            "step": self._step,
            "decode": self._decode,
        }

    def measure(self, stage: RestStage) -> None:
        """One measurement, if it is the stage's turn and no request is there."""
        with self._ledger.lock:
            if not self._pacer.take(stage, self._ledger.clock(), self._ledger.idle_seconds):
                return
        began = self._ledger.clock()
        try:
            fastest = self._fastest(self._calls[stage])
            if fastest is not None:
                self._live.rested(stage, fastest)
        except Exception as error:
            # Whatever it is, requests may still be served: they are told if not.
            logger.warning("%s cannot be measured at rest: %s", stage, type(error).__name__)
            with self._ledger.lock:
                self._pacer.drop(stage)
        finally:
            now = self._ledger.clock()
            with self._ledger.lock:
                self._pacer.done(now, now - began)

    def _fastest(self, call: Callable[[], object]) -> float | None:
        """Seconds of the fastest of a few calls; None if a request came meanwhile, which shared the device."""
        times = []
        for _ in range(CALLS):
            began = self._ledger.clock()
            call()
            finish(self._model.device)
            times.append(self._ledger.clock() - began)
            if not self._ledger.idle_seconds:
                return None
        return min(times)

    def _encode(self) -> None:
        encode_prompt(
            self._model, self._sample.prompt, guidance_scale=self._model.settings.guidance_scale
        )

    def _step(self) -> None:
        model, sample = self._model, self._sample
        self._trajectory.step = 0
        scale = model.settings.guidance_scale
        batch = DenoisingBatch(model.unet, model.device, model.dtype)
        batch.replace([Member(self._trajectory, sample.conditioning, scale, sample.latents)])
        batch.tick()

    def _decode(self) -> None:
        s = self._model.settings
        image = decode_latents(self._model, self._sample.latents)
        encode_image(
            image, "png", Provenance(s.source, s.scheduler, s.steps, 0, 0, s.guidance_scale)
        )
