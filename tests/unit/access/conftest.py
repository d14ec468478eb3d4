"""Makes the kit beside the tests, and the fakes, importable."""

import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[1] / "routing"),
    str(Path(__file__).parents[2] / "fakes"),
]
