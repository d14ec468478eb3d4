"""Which runs leave their latents in the cache."""

from __future__ import annotations

from collections.abc import Sequence

from gesso_router.routing.quality import Match

#: A run that skipped at most this share of its steps drew most of the image itself.
KEEP_SKIPPED_SHARE = 0.1
#: A run this good is worth starting from, whatever it skipped.
KEEP_QUALITY = 0.97
#: From here on two prompts are one to the embedding: another entry would only take room.
SAME_PROMPT_SIMILARITY = 0.9995


def keep_latents(
    skipped_steps: int,
    quality: float,
    steps: int,
    matches: Sequence[Match],
    ladder: Sequence[int],
) -> bool:
    """Whether to cache the latents of a run.

    Yes when K <= 5 of 50 steps or the predicted quality is 0.97 or more: latents of a poor image
    hand its faults on to every prompt that starts from them. No when the same prompt is held
    already at every level above 0.
    """
    levels = {k for k in ladder if k > 0}
    if any(
        m.similarity >= SAME_PROMPT_SIMILARITY and levels <= set(m.held_levels) for m in matches
    ):
        return False
    return skipped_steps <= KEEP_SKIPPED_SHARE * steps or quality >= KEEP_QUALITY
