"""The denoising batch: requests at unlike timesteps and guidance scales, one UNet call for a tick of all.

Membership changes only between ticks. A tick changes nothing unless it succeeds, so that one that ran out
of memory can be tried again with fewer members. Not thread-safe: the denoising thread owns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gesso_worker.engine.conditioning import Conditioning
from gesso_worker.engine.schedule import Trajectory


@dataclass(eq=False, slots=True)
class Member:
    """One request in the batch: `latents` (1, C, H, W) before step `trajectory.step`.

    While it is in a batch its latents live there; `DenoisingBatch.latents_of` reads them.
    """

    trajectory: Trajectory
    conditioning: Conditioning
    guidance_scale: float
    latents: Tensor

    @property
    def guided(self) -> bool:
        """Whether it takes two rows, as in diffusers: above 1."""
        return self.guidance_scale > 1


class DenoisingBatch:
    """Up to max_batch members, stepped together."""

    def __init__(self, unet: Any, device: torch.device, dtype: torch.dtype) -> None:
        """`unet` is a UNet2DConditionModel, or anything that is called as one."""
        self._unet = unet
        self._device = device
        self._dtype = dtype
        self._members: list[Member] = []
        self._latents = torch.empty(0)
        self._guidance = torch.empty(0)
        # Rows of the guided members; None stands for all, which needs no gathering.
        self._guided: Tensor | None = None
        self._guided_rows = 0
        self._context = torch.empty(0)
        self._added: dict[str, Tensor] = {}

    @property
    def members(self) -> Sequence[Member]:
        """The members, in the order of rows."""
        return self._members

    def latents_of(self, member: Member) -> Tensor:
        """A copy of a member's latents (1, C, H, W), before its step `trajectory.step`."""
        row = self._members.index(member)
        return self._latents[row : row + 1].clone()

    @torch.inference_mode()
    def replace(self, members: Sequence[Member]) -> None:
        """Makes `members` the batch; those who leave take their latents with them."""
        for row, member in enumerate(self._members):
            # A copy, since a view would keep the whole batch's latents alive.
            member.latents = self._latents[row : row + 1].clone()
        if not members:
            self.clear()
            return
        latents = torch.cat([m.latents for m in members])
        guided = [row for row, m in enumerate(members) if m.guided]
        scales = [m.guidance_scale for m in members]
        guidance = torch.tensor(scales, dtype=torch.float32, device=self._device).view(-1, 1, 1, 1)
        negative = [members[row].conditioning for row in guided]
        positive = [m.conditioning for m in members]
        context = torch.cat(
            [c.negative_embeds for c in negative if c.negative_embeds is not None]
            + [c.embeds for c in positive]
        )
        pooled = torch.cat(
            [c.negative_pooled for c in negative if c.negative_pooled is not None]
            + [c.pooled for c in positive]
        )
        time_ids = torch.cat([c.time_ids for c in (*negative, *positive)])
        rows = torch.tensor(guided, device=self._device)
        # From here on nothing can run out of memory.
        self._members = list(members)
        self._latents, self._guidance, self._context = latents, guidance, context
        self._added = {"text_embeds": pooled, "time_ids": time_ids}
        self._guided_rows = len(guided)
        self._guided = None if len(guided) == len(members) else rows

    def clear(self) -> None:
        """Leaves nobody in the batch; their latents are lost."""
        self._members = []
        self._latents = self._guidance = self._context = torch.empty(0)
        self._added = {}

    @torch.inference_mode()
    def tick(self) -> None:
        """One denoising step of every member. Raises torch.OutOfMemoryError with nothing changed."""
        steps = [m.trajectory.coefficients[m.trajectory.step] for m in self._members]
        table = torch.tensor(
            [(s.timestep, s.scale, s.keep, s.gain) for s in steps], dtype=torch.float32
        ).to(self._device)
        timestep, scale, keep, gain = table.t()
        shape = (-1, 1, 1, 1)
        x = self._latents.float()
        rows = self._with_guided((x * scale.view(shape)).to(self._dtype))
        output = self._unet(
            rows,
            self._with_guided(timestep),
            encoder_hidden_states=self._context,
            added_cond_kwargs=self._added,
            return_dict=False,
        )[0].float()
        stepped = torch.addcmul(x * keep.view(shape), self._guide(output), gain.view(shape))
        self._latents = stepped.to(self._dtype)
        for member in self._members:
            member.trajectory.step += 1

    def _with_guided(self, rows: Tensor) -> Tensor:
        """One row per member, preceded by the unconditional rows of the guided ones."""
        if self._guided is None:
            return torch.cat([rows, rows])
        return torch.cat([rows[self._guided], rows]) if self._guided_rows else rows

    def _guide(self, output: Tensor) -> Tensor:
        """Classifier-free guidance: uncond + scale * (cond - uncond); the conditional output where unguided."""
        conditional = output[self._guided_rows :]
        if not self._guided_rows:
            return conditional
        unconditional = output[: self._guided_rows]
        if self._guided is not None:
            full = conditional.clone()
            full[self._guided] = unconditional
            unconditional = full
        return unconditional + self._guidance * (conditional - unconditional)
