"""The models of a service: its own, and the others of `spec.variants`, each run in full; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gesso.api import DiffusionService
from gesso_router.routing.quality import Option


@dataclass(frozen=True)
class Models:
    """`steps` are those of an image in full, by model; `others` are the ways to serve by another model."""

    steps: Mapping[str, int]
    others: tuple[Option, ...] = ()

    @classmethod
    def of(cls, service: DiffusionService) -> Models:
        """Those that a service names; the own model's name is empty."""
        variants = [(v.name, v.model) for v in service.spec.variants if v.model is not None]
        return cls(
            {"": service.spec.model.steps, **{name: model.steps for name, model in variants}},
            # Nothing is known of how a prompt differs in quality by another model.
            tuple(Option(0, model.quality, None, name) for name, model in variants),
        )

    @property
    def unseen(self) -> tuple[Option, ...]:
        """How a prompt can be served that nothing is known of."""
        return (Option(0, 1.0), *self.others)

    def steps_of(self, option: Option) -> int:
        """Denoising steps of an image that is made so."""
        return self.steps[option.model] - option.skipped_steps
