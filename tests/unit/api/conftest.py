"""The table of specs is shared with the tests against an API server."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
