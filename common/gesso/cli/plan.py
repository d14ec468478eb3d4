"""`gesso plan`: what the planner would do at a rate, without a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gesso.api import DiffusionService
from gesso.cli.console import EXIT_USAGE, CliError, note, say
from gesso.cli.plan_classes import prompts_of
from gesso.cli.planned import Fleet, Mix, OtherModel, Row, fleet_of, plan_at
from gesso.profile import Profile
from gesso.profile_table import ProfileFit, read_profile
from gesso_operator.planning import ModelVariant, Settings

#: Published seconds of SD-XL for an image on an A100, at so many steps.
PUBLISHED_SECONDS = 4.20
PUBLISHED_STEPS = 50
_SWEEP_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5)
#: Beyond these shares a sweep goes on in larger steps until the fleet refuses images.
_SWEEP_GROWTH = 1.25
_MOST_ROWS = 40
#: No fleet is asked for more or, but for nothing, less; beyond, the plan's figures lose their digits.
_LEAST_RATE, _MOST_RATE = 1e-9, 1e6
_MOST_WORKERS = 4096
_LEAST_SECONDS, _MOST_SECONDS = 1e-3, 3600.0
_COUNT = re.compile(r"\d{1,9}")
_MODEL = re.compile(r"([a-z]([a-z0-9-]*[a-z0-9])?):([^:]+):([^:]+)")


@dataclass(frozen=True)
class Question:
    """What was typed; see `gesso plan --help`."""

    rate: float | None = None
    current: str | None = None
    sweep: bool = False
    profile: Path | None = None
    quality_table: str | None = None
    models: tuple[str, ...] = ()
    as_json: bool = False


def published_profile(steps: int) -> Profile:
    """SD-XL on an A100 as published: no fixed cost, batch 1."""
    return Profile("A100", steps, 0.0, 0.0, (PUBLISHED_SECONDS / PUBLISHED_STEPS,))


def parse_mix(text: str, variants: Sequence[tuple[str, int]]) -> Mix:
    """`0:5,10:2,light:1` as workers by (model, K). Raises CliError on anything but these variants."""
    names = {model or str(k): (model, k) for model, k in variants}
    bad = CliError(
        f"--current: {text} is not allowed: like 0:5,25:1, with levels of the ladder and other models "
        f"({', '.join(names)}), 1 to {_MOST_WORKERS} workers in all",
        EXIT_USAGE,
    )
    mix: dict[tuple[str, int], int] = {}
    for part in text.split(","):
        name, _, count = part.partition(":")
        variant = names.get(name.strip())
        if variant is None or variant in mix or not _COUNT.fullmatch(count.strip()):
            raise bad
        mix[variant] = int(count)
    if not 1 <= sum(mix.values()) <= _MOST_WORKERS:
        raise bad
    return mix


def parse_models(texts: Sequence[str]) -> tuple[OtherModel, ...]:
    """Each `NAME:QUALITY:SECONDS`. Raises CliError, with what is allowed, on anything else."""
    models: dict[str, OtherModel] = {}
    for text in texts:
        match = _MODEL.fullmatch(text)
        try:
            made = OtherModel(match[1], float(match[3]), float(match[4])) if match else None
        except ValueError:
            made = None
        sound = made and 0 < made.quality <= 1 and _LEAST_SECONDS <= made.seconds <= _MOST_SECONDS
        if made is None or not sound or made.name in models:
            raise CliError(
                f"--model: {text} is not allowed: NAME:QUALITY:SECONDS, each name once (a-z, 0-9 and -), "
                "quality relative to the own model's (above 0, at most 1), seconds of an image "
                f"({_LEAST_SECONDS:g} to {_MOST_SECONDS:g})",
                EXIT_USAGE,
            )
        models[made.name] = made
    return tuple(models.values())


def run(service: DiffusionService, asked: Question) -> None:
    """Prints the plan at a rate, or the curve from idle to overload. Raises CliError on input that is not
    allowed.
    """
    rate = asked.rate
    if rate and not _LEAST_RATE <= rate <= _MOST_RATE:
        raise CliError(
            f"--rate: {rate} is not allowed: images per second, 0 or {_LEAST_RATE:g} to {_MOST_RATE:.0f}",
            EXIT_USAGE,
        )
    if rate is None and not asked.sweep:
        raise CliError("--rate: missing: a rate in images per second, or --sweep", EXIT_USAGE)
    named = parse_models(asked.models)
    try:
        fit = _fit(asked.profile, service.spec.model.steps)
        prompts = prompts_of(service, asked.quality_table)
    except ValueError as error:
        raise CliError(str(error), EXIT_USAGE) from None
    profile = fit.profile
    others = (*_declared(service, fit, {other.name for other in named}), *named)
    models = tuple(ModelVariant(o.name, o.profile.steps if o.profile else 1) for o in others)
    settings = replace(Settings.of(service), models=models)
    mix = None if asked.current is None else parse_mix(asked.current, settings.variants)
    workers = service.spec.workers
    fleet = fleet_of(settings, profile, prompts.classes, others, workers.least, workers.most)
    rows = _swept(fleet, mix) if asked.sweep else [plan_at(fleet, rate or 0.0, mix)]
    if asked.as_json:
        shown = [asdict(row) for row in rows]
        say(json.dumps(shown if asked.sweep else shown[0], indent=2))
        return
    note(prompts.note)
    if asked.profile is None:
        note(
            f"profile: SD-XL on an A100 as published ({PUBLISHED_SECONDS} s at K = 0); --profile gives another"
        )
    if asked.sweep:
        _say_rows(rows)
    else:
        _say_row(rows[0], settings.latency_s)


def _fit(path: Path | None, steps: int) -> ProfileFit:
    """The service times. Raises InputError."""
    return (
        ProfileFit(published_profile(steps), 0.0, 0.0)
        if path is None
        else read_profile(path, steps)
    )


def _declared(
    service: DiffusionService, fit: ProfileFit, named: Collection[str]
) -> tuple[OtherModel, ...]:
    """The spec's other models but those `named`; a step that was not measured lasts as long as the own's."""
    found = []
    for variant in service.spec.variants:
        if variant.model is None or variant.name in named:
            continue
        profile = fit.others.get(variant.name)
        if profile is None:
            profile = replace(fit.profile, steps=variant.model.steps)
            note(
                f"{variant.name}: a step is taken to last as long as one of the own model; a --profile that "
                "`gesso profile` wrote has it measured"
            )
        seconds = profile.latency_seconds(0)
        found.append(OtherModel(variant.name, variant.model.quality, seconds, profile))
    return tuple(found)


def _swept(fleet: Fleet, mix: Mix | None) -> list[Row]:
    """From idle to overload, in shares of what the whole fleet makes in full."""
    full = (sum(mix.values()) if mix else fleet.most) * fleet.own.throughput(0)
    rows = [plan_at(fleet, share * full, mix) for share in _SWEEP_SHARES]
    while rows[-1].shed <= 0 and len(rows) < _MOST_ROWS:
        rows.append(plan_at(fleet, rows[-1].rate * _SWEEP_GROWTH, mix))
    return rows


def _say_row(row: Row, latency_s: float) -> None:
    say(f"mix         {row.mix}  ({row.workers} workers)")
    say(f"quality     {row.quality:.3f} expected, relative to K = 0")
    say(f"in time     {row.attainment:.1%} within {latency_s:g} s")
    say(f"refused     {row.shed:.2f} of {row.rate:.2f} images/s")
    say(f"reason      {row.reason}")


def _say_rows(rows: Sequence[Row]) -> None:
    say(
        f"{'images/s':>9} {'workers':>7} {'quality':>7} {'in time':>7} {'refused':>8} {'price':>7}  mix"
    )
    for row in rows:
        say(
            f"{row.rate:9.2f} {row.workers:7d} {row.quality:7.3f} {row.attainment:7.1%} {row.shed:8.2f} "
            f"{row.price:7.4f}  {row.mix}"
        )
