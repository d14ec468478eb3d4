"""What predictors of quality are worth: mean relative quality over mean steps saved, on held-out sessions.

    python bench/bench_predictor.py [--train | --refit]

`--train` (or `--refit`, which takes seconds) first learns the predictor that ships with the tiny SD-XL, from
`bench/data/tiny_quality.csv.gz`. Then every rule picks a K for each held-out prompt, and the
measured curves tell what came of it. Writes bench/out/predictor.json and docs/images/predictor.png.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from predictor import rules
from predictor.training import Measured, curves, rows_in, similarity_table, train
from rich.console import Console
from rich.table import Table

from gesso.builtin import TINY_CLIP
from gesso_router.predictor import PREDICTOR_NAME, read_learned, write_learned
from gesso_router.routing.predictors.learned import LearnedPredictor
from gesso_router.routing.predictors.learned_file import Origin
from gesso_router.routing.predictors.table import SimilarityPredictor
from gesso_worker.models.tiny import folders
from gesso_worker.models.tiny.evaluate.quality import LADDER
from gesso_worker.models.tiny.sampling import STEPS

HERE: Final = Path(__file__).parent
DATA: Final = HERE / "data" / "tiny_quality.csv.gz"
SHIPPED: Final = folders.SDXL / PREDICTOR_NAME
OUT: Final = HERE / "out" / "predictor.json"
PICTURE: Final = HERE.parent / "docs" / "images" / "predictor.png"
#: Mean steps saved at which rules are compared.
AT: Final = (2.5, 5.0, 7.5, 10.0, 12.5, 15.0, 17.5, 20.0, 22.5)

Array = np.ndarray[Any, Any]


def all_rules(held: Measured, known: Measured, learned: LearnedPredictor) -> dict[str, rules.Rule]:
    """Every rule's choices for the held-out prompts; the table has the rows that the learned one has."""
    shipped = SimilarityPredictor.from_table(
        json.loads((folders.SDXL / "quality.json").read_text()), LADDER, STEPS
    )
    truth = held.relative.mean(axis=1)
    found = [
        rules.by_worth("learned", curves(learned, held)),
        rules.by_worth("similarity table", curves(similarity_table(known), held)),
        rules.by_worth("quality.json", curves(shipped, held)),
        rules.by_thresholds(held.similarity),
        rules.fixed(len(held)),
        rules.by_worth("oracle", truth),
    ]
    return {rule.name: rule for rule in found}


def honest_oracle(held: Measured) -> tuple[Array, Array] | None:
    """The oracle that chooses by one seed's curves and is judged by the other seeds': without their luck.

    A lower bound, as one seed's curve is noisy; None with a single seed.
    """
    seeds = held.relative.shape[1]
    if seeds < 2:
        return None
    found = []
    for seed in range(seeds):
        others = held.relative[:, [s for s in range(seeds) if s != seed]].mean(axis=1)
        found.append(rules.by_worth("", held.relative[:, seed]).points(others))
    saved, quality = np.mean(np.array(found), axis=0)
    return saved, quality


def calibration(held: Measured, learned: LearnedPredictor) -> dict[str, Any]:
    """Shares of held-out prompts within 1 and 2 sd, label noise of the seeds' mean allowed for."""
    seeds = held.relative.shape[1]
    phi = learned.features(held.similarity, held.prompt, held.neighbour)
    loss = np.maximum(0.0, -(phi @ learned.spread.weights.T))
    label = (learned.spread.label[:, 0] + learned.spread.label[:, 1] * loss) / seeds
    told = [
        learned.predict(float(s), b, a)
        for s, b, a in zip(held.similarity, held.prompt, held.neighbour, strict=True)
    ]
    mean = np.array([p.quality[1:] for p in told])
    sd = np.array([p.sd[1:] for p in told])
    truth = held.relative.mean(axis=1)[:, 1:]
    z = np.abs(truth - mean) / np.sqrt(sd**2 + label)
    return {
        "within_1_sd": [round(float(v), 3) for v in (z <= 1).mean(axis=0)],
        "within_2_sd": [round(float(v), 3) for v in (z <= 2).mean(axis=0)],
        "mean_sd": [round(float(v), 4) for v in sd.mean(axis=0)],
        "mean_label_sd": [round(float(v), 4) for v in np.sqrt(label.mean(axis=0))],
        "rms_error": [round(float(v), 4) for v in np.sqrt(((truth - mean) ** 2).mean(axis=0))],
        "variance_explained": [
            round(float(v), 3) for v in 1 - ((truth - mean) ** 2).mean(axis=0) / truth.var(axis=0)
        ],
    }


def prediction_seconds(learned: LearnedPredictor, held: Measured, calls: int = 2000) -> float:
    """Median time of one prediction."""
    taken = []
    for i in range(calls):
        row = i % len(held)
        s, b, a = float(held.similarity[row]), held.prompt[row], held.neighbour[row]
        began = time.perf_counter()
        learned.quality(s, b, a)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def draw(
    points: dict[str, tuple[Array, Array]], published: tuple[float, float], picture: Path
) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    styles = {"fixed K": "--", "oracle": ":", "oracle, other seed": ":"}
    for name, (saved, quality) in points.items():
        order = np.argsort(saved)
        axes.plot(saved[order], quality[order], styles.get(name, "-"), label=name)
    axes.plot(*published, "k*", markersize=11, label="NIRVANA's thresholds as published")
    axes.set_xlabel("mean steps saved, of 50")
    axes.set_ylabel("mean relative quality")
    axes.set_title("Tiny SD-XL, held-out sessions: quality over steps saved")
    axes.grid(alpha=0.3)
    axes.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--train", action="store_true", help="learn the predictor anew first")
    parser.add_argument(
        "--refit",
        action="store_true",
        help="learn the weights anew first, and keep the network that tells what changed",
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--predictor", type=Path, default=SHIPPED)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = Measured.read(args.data)
    if args.train or args.refit:
        shipped = None
        if not args.train:
            shipped = read_learned(args.predictor, LADDER, STEPS, TINY_CLIP).features
        learned = train(data, shipped)
        write_learned(args.predictor, learned, Origin(TINY_CLIP, folders.fingerprint(), STEPS))
    learned = read_learned(args.predictor, LADDER, STEPS, TINY_CLIP)
    held = rows_in(data, ["heldout"])
    known = rows_in(data, ["train", "validation"])
    truth = held.relative.mean(axis=1)
    families = all_rules(held, known, learned)
    points = {name: rule.points(truth) for name, rule in families.items()}
    if (honest := honest_oracle(held)) is not None:
        points["oracle, other seed"] = honest
    as_published = int(np.flatnonzero(rules.SHIFTS == 0.0)[0])
    published = tuple(float(v[as_published]) for v in points["thresholds"])
    at = np.array([*AT, published[0]])
    gaps = rules.differences(
        families,
        truth,
        held.session,
        at,
        "learned",
        ("thresholds", "similarity table", "quality.json", "fixed K"),
    )
    calibrated = calibration(held, learned)
    median_s = prediction_seconds(learned, held)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "model_fingerprint": folders.fingerprint(),
        "seeds": int(held.relative.shape[1]),
        "held_out_prompts": len(held),
        "held_out_sessions": len(np.unique(held.session)),
        "learned_from_prompts": len(known),
        "mean_steps_saved": [round(float(v), 3) for v in at],
        "quality": {
            name: [round(float(v), 5) for v in rules.quality_at(*p, at)]
            for name, p in points.items()
        },
        "nirvana_as_published": {"mean_steps_saved": published[0], "quality": published[1]},
        "learned_less": gaps,
        "calibration": {"skipped_steps": list(LADDER[1:]), **calibrated},
        "median_prediction_microseconds": round(median_s * 1e6, 1),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    draw(points, (published[0], published[1]), args.picture)
    show(report)


def show(report: dict[str, Any]) -> None:
    console = Console()
    title = (
        f"Mean relative quality: {report['held_out_prompts']} prompts of "
        f"{report['held_out_sessions']} held-out sessions, {report['seeds']} seed(s)"
    )
    _print(console, title, report["mean_steps_saved"], report["quality"], lambda q: f"{q:.4f}")
    gaps = {
        name: list(zip(gap["mean"], gap["low"], gap["high"], strict=True))
        for name, gap in report["learned_less"].items()
    }
    _print(
        console,
        "Learned less others, points of quality (95 % by session)",
        report["mean_steps_saved"],
        gaps,
        lambda gap: f"{100 * gap[0]:+.2f} ({100 * gap[1]:+.2f} to {100 * gap[2]:+.2f})",
    )
    for name, values in report["calibration"].items():
        console.print(f"{name}: {values}")
    console.print(f"one prediction: {report['median_prediction_microseconds']} us (median)")


def _print(
    console: Console,
    title: str,
    saved: list[float],
    columns: dict[str, list[Any]],
    text: Callable[[Any], str],
) -> None:
    table = Table(title=title)
    for name in ("steps saved", *columns):
        table.add_column(name, justify="right")
    for i, steps in enumerate(saved):
        table.add_row(f"{steps:g}", *(text(values[i]) for values in columns.values()))
    console.print(table)


if __name__ == "__main__":
    main()
