"""The mean predicted quality of recent prompts at each variant: what a prompt-agnostic policy knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gesso_router.routing.quality import Option


@dataclass(frozen=True)
class MeanQuality:
    """Means by (model, K) over the recent prompts that the variant could serve."""

    #: Prompts that a mean remembers.
    memory: int = 1000
    means: Mapping[tuple[str, int], float] = field(default_factory=dict)
    counts: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def seen(self, options: Sequence[Option]) -> MeanQuality:
        """After one more prompt, which could be served so."""
        means, counts = dict(self.means), dict(self.counts)
        for option in options:
            key = option.model, option.skipped_steps
            counts[key] = min(self.memory, counts.get(key, 0) + 1)
            mean = means.get(key, 0.0)
            means[key] = mean + (option.quality - mean) / counts[key]
        return MeanQuality(self.memory, means, counts)
