"""An API key as its holder brings it: by option, from the environment, or out of a file."""

from __future__ import annotations

#: Where the command line takes it from.
OPTION = "--api-key (or GESSO_API_KEY)"


def key_of(given: str | None, option: str) -> str | None:
    """The key without the end of line that a file has; None if that leaves none.

    Raises ValueError, naming the option but never the key, on what cannot be sent.
    """
    key = (given or "").rstrip("\r\n")
    for place, character in enumerate(key, 1):
        if not "\x21" <= character <= "\x7e":
            raise ValueError(
                f"{option}: the key's character {place} of {len(key)} is not allowed: "
                "printable ASCII without spaces"
            )
    return key or None
