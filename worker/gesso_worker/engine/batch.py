"""The denoising batch: requests at unlike timesteps, sizes and guidance scales, one UNet call a tick and size.

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

    While it is in a batch its latents live there; `DenoisingBatch.latents_of` reads them. `denoised` is the
    denoised sample of the step before, if it was kept: for samplers that look back, and for who `watches`.
    """

    trajectory: Trajectory
    conditioning: Conditioning
    guidance_scale: float
    latents: Tensor
    watches: bool = False
    denoised: Tensor | None = None

    @property
    def guided(self) -> bool:
        """Whether it takes two rows, as in diffusers: above 1."""
        return self.guidance_scale > 1


class DenoisingBatch:
    """Members of any sizes, stepped together; those of one size in one call of the UNet."""

    def __init__(self, unet: Any, device: torch.device, dtype: torch.dtype) -> None:
        """`unet` is a UNet2DConditionModel, or anything that is called as one."""
        self._unet = unet
        self._device = device
        self._dtype = dtype
        self._members: list[Member] = []
        self._groups: list[_Group] = []

    @property
    def members(self) -> Sequence[Member]:
        """The members, in the order in which they were given."""
        return self._members

    def latents_of(self, member: Member) -> Tensor:
        """A copy of a member's latents (1, C, H, W), before its step `trajectory.step`."""
        return next(g for g in self._groups if member in g.members).latents_of(member)

    def denoised_of(self, member: Member) -> Tensor | None:
        """A copy of a member's denoised sample of its last step, (1, C, H, W) in float32; None: not kept."""
        return next(g for g in self._groups if member in g.members).denoised_of(member)

    @torch.inference_mode()
    def replace(self, members: Sequence[Member]) -> None:
        """Makes `members` the batch; those who leave take their latents with them."""
        for group in self._groups:
            group.give_back()
        by_shape: dict[tuple[int, ...], list[Member]] = {}
        for member in members:
            by_shape.setdefault(tuple(member.latents.shape), []).append(member)
        groups = [
            _Group(self._unet, self._device, self._dtype, of_one) for of_one in by_shape.values()
        ]
        # From here on nothing can run out of memory.
        self._members, self._groups = list(members), groups

    def clear(self) -> None:
        """Leaves nobody in the batch; their latents are lost."""
        self._members, self._groups = [], []

    @torch.inference_mode()
    def tick(self) -> None:
        """One denoising step of every member. Raises torch.OutOfMemoryError with nothing changed."""
        stepped = [group.stepped() for group in self._groups]
        for group, after in zip(self._groups, stepped, strict=True):
            group.latents, group.denoised, group.kept = after
        for member in self._members:
            member.trajectory.step += 1


class _Group:
    """The members of one size: `latents` (N, C, H, W), `denoised` the same in float32, or None."""

    def __init__(
        self, unet: Any, device: torch.device, dtype: torch.dtype, members: Sequence[Member]
    ) -> None:
        self._unet, self._device, self._dtype = unet, device, dtype
        self.members = list(members)
        self.latents = torch.cat([m.latents for m in members])
        self.denoised: Tensor | None = None
        if any(m.denoised is not None for m in members):
            zeros = torch.zeros_like(members[0].latents, dtype=torch.float32)
            self.denoised = torch.cat(
                [zeros if m.denoised is None else m.denoised for m in members]
            )
        self.kept = [m.denoised is not None for m in members]
        guided = [row for row, m in enumerate(members) if m.guided]
        scales = [m.guidance_scale for m in members]
        self._guidance = torch.tensor(scales, dtype=torch.float32, device=device).view(-1, 1, 1, 1)
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
        self._guided_rows = len(guided)
        # Rows of the guided members; None stands for all, which needs no gathering.
        self._guided: Tensor | None = None
        if len(guided) != len(members):
            self._guided = torch.tensor(guided, device=device)
        self._context = context
        self._added = {"text_embeds": pooled, "time_ids": time_ids}

    def latents_of(self, member: Member) -> Tensor:
        row = self.members.index(member)
        return self.latents[row : row + 1].clone()

    def denoised_of(self, member: Member) -> Tensor | None:
        row = self.members.index(member)
        if self.denoised is None or not self.kept[row]:
            return None
        return self.denoised[row : row + 1].clone()

    def give_back(self) -> None:
        for member in self.members:
            # Copies, since views would keep the whole batch's latents alive.
            member.latents = self.latents_of(member)
            member.denoised = self.denoised_of(member)

    def stepped(self) -> tuple[Tensor, Tensor | None, list[bool]]:
        """Latents and denoised samples after one step of each, and whose denoised sample is worth keeping."""
        steps = [m.trajectory.coefficients[m.trajectory.step] for m in self.members]
        table = torch.tensor(
            [(s.timestep, s.scale, s.keep, s.gain, s.skip, s.out, s.past) for s in steps],
            dtype=torch.float32,
        ).to(self._device)
        timestep, *factors = table.t()
        scale, keep, gain, skip, out, past = (f.view(-1, 1, 1, 1) for f in factors)
        x = self.latents.float()
        rows = self._with_guided((x * scale).to(self._dtype))
        output = self._unet(
            rows,
            self._with_guided(timestep),
            encoder_hidden_states=self._context,
            added_cond_kwargs=self._added,
            return_dict=False,
        )[0].float()
        guided = self._guide(output)
        latents = torch.addcmul(x * keep, guided, gain)
        if self.denoised is not None and any(s.past for s in steps):
            latents = torch.addcmul(latents, self.denoised, past)
        wanted = [self._wants_denoised(m) for m in self.members]
        denoised = torch.addcmul(x * skip, guided, out) if any(wanted) else None
        return latents.to(self._dtype), denoised, wanted

    @staticmethod
    def _wants_denoised(member: Member) -> bool:
        """Whether the step after the one that is taken, or someone else, looks at this one's sample."""
        following = member.trajectory.step + 1
        coefficients = member.trajectory.coefficients
        return member.watches or (
            following < len(coefficients) and coefficients[following].past != 0
        )

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
