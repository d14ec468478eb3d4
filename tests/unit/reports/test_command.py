"""`gesso simulate` from its options to its files, with a policy played by hand in place of the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gesso.cli.console import CliError
from gesso.cli.main import app
from gesso_simulator import command
from gesso_simulator.command import policy_names
from gesso_simulator.data.sources import ENVIRONMENT
from gesso_simulator.engine.bounding import bounds_of
from gesso_simulator.reports.figures import BoundFigures
from gesso_simulator.reports.result import PolicyResult
from gesso_simulator.scenarios.build import Wishes, build
from gesso_simulator.scenarios.spec import ScenarioRun


def instantly(
    run: ScenarioRun, policy: str, *, seed: int, progress: Callable[[float], None] | None = None
) -> PolicyResult:
    """Every image is made at once, at K = 0."""
    work = run.workload
    nothing = np.zeros(len(work), dtype=np.int64)
    if progress:
        progress(0.5)
    return PolicyResult(
        policy=policy,
        arrival_s=work.arrival_s,
        prompt=work.prompt,
        predicted_k=nothing,
        served_k=nothing,
        variant=nothing,
        worker=nothing,
        start_s=work.arrival_s,
        finish_s=work.arrival_s,
        outcome=nothing.astype(np.int8),
        relative_quality=np.ones(len(work)),
        workers=tuple(w.name for w in run.workers),
        plan_changes=0,
        switches=0,
        worker_hours=1.0,
    )


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "play", instantly)
    monkeypatch.setattr(command, "bounds_of", lambda run: {"informed": BoundFigures(0.0, 1.0)})
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)


def typed(*arguments: str) -> str:
    """Standard output of `gesso simulate`."""
    result = CliRunner().invoke(app, ["simulate", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_scenario_to_all_reports() -> None:
    text = typed(
        *("--scenario", "constant", "--load-scale", "0.1", "--policy", "ClipperHA", "RoundRobin"),
        *("--slo", "3x", "--seed", "4", "--json", "o.json", "--plot", "o.png"),
        *("--requests", "o.csv.gz"),
    )
    assert "data: synthetic" in text
    assert "ClipperHA" in text
    found = json.loads(Path("o.json").read_text())
    assert list(found["policies"]) == ["ClipperHA", "RoundRobin"]
    assert found["seed"] == 4
    assert found["slo_seconds"] == pytest.approx(3 * 4.2 / 1.65)
    assert found["policies"]["ClipperHA"]["offered"] == found["requests"]
    assert found["bounds"] == {"informed": {"violation_ratio": 0, "relative_quality": 1}}
    assert Path("o.png").stat().st_size > 10_000
    assert Path("o.csv.gz").stat().st_size > 1000


def test_a_users_files_to_json() -> None:
    Path("t.csv").write_text("t_s,count\n0,3\n60,4\n")
    Path("p.csv").write_text("prompt_row,prompt,similarity\n5,a cat,0.9\n6,a dog,0.2\n")
    Path("q.csv").write_text("prompt_row,similarity,q0,q10\n6,0.2,1,0.8\n5,0.9,1,0.95\n")
    Path("g.csv").write_text("skipped_steps,batch,latency_s\n0,1,5\n25,1,3\n")
    text = typed(
        *("--trace", "t.csv", "--prompts", "p.csv", "--quality-table", "q.csv", "--profile"),
        *("g.csv", "--workers", "2", "--slo", "9", "--json", "o.json", "--no-bounds"),
    )
    assert "data: given" in text
    found = json.loads(Path("o.json").read_text())
    assert (found["scenario"], found["requests"], found["workers"]) == ("trace", 7, 2)
    assert found["variants"] == ["0", "10"]
    assert found["bounds"] == {}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "scenario: one of --scenario and --trace is needed"),
        (("--scenario", "twitter", "--trace", "t.csv"), "scenario: one of --scenario and --trace"),
        (("--scenario", "tweets"), "scenario: tweets is not allowed: twitter,"),
        (("--scenario", "constant", "--policy", "Best"), "policy: Best is not allowed: all, Qual"),
        (("--scenario", "constant", "--policy", "HPAQueue"), "policy: HPAQueue is not allowed"),
        (
            ("--scenario", "constant", "--policy", "Static:6+2"),
            "policy: Static:6+2 is not allowed: a ",
        ),
        (("--scenario", "constant", "--slo", "soon"), "slo: soon is not allowed: a multiple"),
        (("--scenario", "constant", "--workers", "0"), "workers: 0 is not allowed: 1 to 4096"),
        (("--scenario", "constant", "--load-scale", "nan"), "load_scale: nan is not allowed"),
        (("--scenario", "twitter", "--day", "99"), "day: 99 is not allowed: 0 to 14"),
        (
            ("--scenario", "constant", "--json", "no/o.json"),
            "--json: no/o.json is not allowed: its",
        ),
        (("--trace", "absent.csv"), "absent.csv: no such file"),
        (("--scenario", "constant", "--service", "absent.yaml"), "absent.yaml: no such file"),
    ],
)
def test_what_is_refused_is_one_clear_error_with_exit_code_2(
    arguments: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(CliError) as caught:
        typed(*arguments)
    assert str(caught.value).startswith(problem)
    assert caught.value.code == 2


def test_policies_by_name_by_comma_and_all() -> None:
    fixed, elastic = build("constant"), build("elastic")
    assert policy_names((), None, fixed) == ("QualityAware",)
    assert policy_names(("Argus,Nirvana", "Argus"), None, fixed) == ("Argus", "Nirvana")
    assert len(policy_names(("all",), None, fixed)) == 10
    assert policy_names(("all",), None, elastic)[-2:] == ("HPAUtilization", "HPAQueue")


def test_an_idle_fleets_bounds_are_full_quality_in_time() -> None:
    found = bounds_of(build("constant", wishes=Wishes(load_scale=0.05)))
    assert list(found) == ["informed", "clairvoyant"]
    for bound in found.values():
        assert bound.violation_ratio == 0
        assert bound.relative_quality == pytest.approx(1)
        assert bound.worker_hours is None


@pytest.mark.parametrize(
    "words", ["t_s,count", "prompt_row,similarity,q0", "skipped_steps,batch", "violation_ratio"]
)
def test_help_tells_the_formats(words: str) -> None:
    text = CliRunner().invoke(app, ["simulate", "--help"], env={"COLUMNS": "200"}).stdout
    assert words in text
