"""Trains the tiny SD-XL, one stage or ``all``: ``python -m gesso_worker.models.tiny.train STAGE``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch

from gesso_worker.models.tiny.train.common import DEFAULT_WORK, Options

STAGES = (
    "data",
    "text",
    "latents",
    "unet",
    "decoder",
    "encoder",
    "checker",
    "clip",
    "export",
    "turbo",
)


def main() -> None:
    """Run one stage or all of them in order."""
    parser = argparse.ArgumentParser(prog="gesso_worker.models.tiny.train", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="data and checkpoints")
    parser.add_argument("--steps", type=int, help="steps in place of the stage's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work = args.work.expanduser()
    work.mkdir(parents=True, exist_ok=True)
    options = Options(work=work, steps=args.steps, seed=args.seed)
    for stage in STAGES if args.stage == "all" else (args.stage,):
        importlib.import_module(f"gesso_worker.models.tiny.train.{stage}").run(options)


if __name__ == "__main__":
    main()
