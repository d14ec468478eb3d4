"""Where the folders that ship are, and the fingerprint of their weights; standard library only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

BUILTIN: Final = Path(__file__).parent.parent / "builtin"
SDXL: Final = BUILTIN / "tiny-sdxl"
TURBO: Final = BUILTIN / "tiny-sdxl-turbo"
CLIP: Final = BUILTIN / "tiny-clip"
CHECKER: Final = SDXL / "checker.safetensors"


def fingerprint(folder: Path = SDXL) -> str:
    """First 16 hex digits of the SHA-256 over a pipeline folder's weights (names and bytes)."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
