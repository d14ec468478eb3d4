"""References of what was served: made anew, but for what was made in full already."""

from __future__ import annotations

import asyncio

from gesso_simulator.demo import quality
from gesso_simulator.demo.play import Ending, Outcome
from gesso_simulator.workloads.sessions import PromptRequest


def outcome(skipped_steps: int, image: bytes) -> Outcome:
    request = object.__new__(PromptRequest)
    return Outcome(request, Ending.IN_SLO, 1.0, image=image, skipped_steps=skipped_steps)


def test_what_was_served_in_full_is_its_own_reference() -> None:
    drawn = [outcome(0, b"one"), outcome(0, b"two")]
    # No worker listens there: none is asked.
    found = asyncio.run(quality.references(["127.0.0.1:1"], drawn))
    assert found == [b"one", b"two"]
