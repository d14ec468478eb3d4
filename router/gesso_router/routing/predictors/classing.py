"""What is common to all predictors: which class a prompt is in, and several matches at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gesso_router.routing.quality import MISS, Match, Vector


class Classing(ABC):
    """The part of a QualityPredictor that is alike in all; `miss` is the first of `class_names`."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """See QualityPredictor."""

    @abstractmethod
    def quality(
        self, similarity: float, prompt: Vector | None = None, neighbour: Vector | None = None
    ) -> tuple[float, ...]:
        """See QualityPredictor."""

    def qualities(
        self, matches: Sequence[Match], prompt: Vector | None = None
    ) -> Sequence[tuple[float, ...]]:
        """See QualityPredictor."""
        return [self.quality(m.similarity, prompt, m.embedding) for m in matches]

    @abstractmethod
    def _rank(self, similarity: float, prompt: Vector | None, neighbour: Vector | None) -> int:
        """Index among `class_names` of a prompt with a neighbour: 1 or more."""

    def prompt_class(
        self,
        similarity: float | None,
        prompt: Vector | None = None,
        neighbour: Vector | None = None,
    ) -> str:
        """See QualityPredictor."""
        if similarity is None:
            return MISS
        return self.class_names[self._rank(similarity, prompt, neighbour)]
