"""What a valid spec may ask for and the fleet cannot do; pure."""

from __future__ import annotations

from gesso.api import DiffusionService


def unsupported(service: DiffusionService) -> str:
    """What is asked for in vain, in words that name the field and what is allowed; empty where nothing is."""
    for i, variant in enumerate(service.spec.variants):
        if variant.model is not None:
            return (
                f"spec.variants[{i}].model: {variant.model.source} is not allowed here: workers hold "
                "spec.model alone; `gesso plan` and `gesso simulate` tell what another model would bring"
            )
    return ""
