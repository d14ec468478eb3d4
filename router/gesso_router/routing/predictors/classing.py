"""Which class a prompt is in: what is common to all predictors."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gesso_router.routing.quality import MISS, Vector


class Classing(ABC):
    """The part of a QualityPredictor that names classes; `miss` is the first of `class_names`."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """See QualityPredictor."""

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
