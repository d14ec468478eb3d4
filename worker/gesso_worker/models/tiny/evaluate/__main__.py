"""Evaluates the shipped weights: ``python -m gesso_worker.models.tiny.evaluate [PART ...]``."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from gesso_worker.models.tiny import folders
from gesso_worker.models.tiny.evaluate import card, floors, quality, sheets, speed, turbo

PARTS = ("floors", "quality", "speed", "sheets", "card", "turbo")
MEASURED = folders.SDXL / "measured.json"


def keep(name: str, value: Any) -> None:
    """Note a measurement beside the weights, with the fingerprint of what was measured."""
    known = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    known[name] = {"model_fingerprint": folders.fingerprint(), **value}
    MEASURED.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    """Run the named parts, or all in order."""
    parser = argparse.ArgumentParser(prog="gesso_worker.models.tiny.evaluate", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), help="default: all")
    parser.add_argument("--processes", type=int, default=1, help="for the part 'quality'")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for part in args.parts or PARTS:
        if part == "floors":
            found = floors.run()
            keep("floors", found)
            print(json.dumps(found, indent=1))
        elif part == "quality":
            found = quality.run(args.processes)
            print(json.dumps(found["by_kind"], indent=1))
        elif part == "speed":
            found = speed.run()
            keep("speed", found)
            print(json.dumps(found, indent=1))
        elif part == "sheets":
            sheets.run()
        elif part == "turbo":
            turbo.run()
        else:
            card.run()


if __name__ == "__main__":
    main()
