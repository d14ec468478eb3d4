"""Prints docs/metrics.md from the catalogue: `python -m gesso.metrics.reference`."""

from __future__ import annotations

from gesso.metrics.catalogue import LABELS, PARTS

_HEAD = """\
# Metrics

Made from `common/gesso/metrics/catalogue.py` by `make metrics`. What is not declared there cannot be exposed.
Where to scrape each part, dashboards and alerts: [observability.md](observability.md). No metric and no label
holds prompts, tenants or request ids.
"""


def reference() -> str:
    """The page."""
    lines = [_HEAD]
    for part, specs in PARTS.items():
        lines += [f"## {part}", "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        for spec in specs:
            name = f"{spec.name}_total" if spec.kind == "counter" else spec.name
            labels = ", ".join(f"`{label}`" for label in spec.labels)
            lines.append(f"| `{name}` | {spec.kind} | {labels} | {spec.says} |")
        lines.append("")
    lines += ["## Labels", "", "| label | its values |", "|---|---|"]
    lines += [f"| `{label}` | {bound} |" for label, bound in LABELS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
