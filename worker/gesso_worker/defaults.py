"""Defaults that the command line and the parts behind it share; imports nothing."""

from __future__ import annotations

from typing import Final

#: No request takes longer: the longest deadline that a service may have, and what a router waits beyond it.
LONGEST_S: Final = 7200.0
#: Longer than this and the K = 5 that a latent may save is lost again on a fast GPU.
FETCH_DEADLINE_S: Final = 0.05
