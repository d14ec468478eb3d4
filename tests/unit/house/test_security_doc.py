"""The threat model names a test beside each line: each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_each_line_of_the_threat_model_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(lines) >= 20
    threats = text[text.index("## Threats") : text.index("## Left to others")]
    rows = [r for r in threats.splitlines() if r.startswith("| ") and "| what holds" not in r]
    assert rows == lines
    for line in lines:
        file = ""
        for name in re.findall(r"`([^`]*)`", line.rsplit(" | ", 1)[1]):
            found, _, test = name.partition("::")
            file = found or file
            (path,) = (ROOT / "tests").rglob(file)
            assert not test or re.search(rf"def {test}\b", path.read_text()), name
