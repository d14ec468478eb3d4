"""`gesso plan`: what it prints for a rate, over a sweep, and on input that is not allowed."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from gesso.api import parse_service
from gesso.cli.main import main
from gesso.cli.plan_classes import prompts_of
from gesso_simulator.data.sources import ENVIRONMENT
from gesso_simulator.scenarios.calibrated import published_mean

SAMPLE = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: sdxl}
spec:
  model: {source: some/folder}
  slo: {latencySeconds: 20, minRelativeQuality: 0.5}
  workers: {min: 8, max: 8}
"""


@pytest.fixture(autouse=True)
def _without_recordings(monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nowhere"))


@pytest.fixture
def service(tmp_path):
    path = tmp_path / "sdxl.yaml"
    path.write_text(SAMPLE)
    return str(path)


def run(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["gesso", "plan", *words])
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_light_load_is_generated_in_full(monkeypatch, capsys, service):
    code, out, err = run(monkeypatch, capsys, "--service", service, "--rate", "1")
    assert code == 0
    assert "0:8" in out
    assert "Steady" in out
    assert "as published" in err


def test_json_tells_the_same(monkeypatch, capsys, service):
    words = ("--service", service, "--rate", "2.5", "--json")
    row = json.loads(run(monkeypatch, capsys, *words)[1])
    assert row["workers"] == 8
    assert 0.9 < row["quality"] < 1
    assert row["attainment"] > 0.94
    assert row["shed"] == 0
    assert row["price"] > 0
    assert row["reason"].startswith("LoadRose")


def test_sweep_goes_from_idle_to_overload(monkeypatch, capsys, service):
    rows = json.loads(run(monkeypatch, capsys, "--service", service, "--sweep", "--json")[1])
    # Beyond that, whoever is refused would have lost the most.
    quality = [r["quality"] for r in rows if not r["shed"]]
    assert len(quality) > 8
    assert rows[0]["rate"] == 0
    assert rows[0]["mix"] == "0:8"
    assert quality == sorted(quality, reverse=True)
    assert rows[-1]["shed"] > 0
    assert rows[-1]["reason"].startswith("Overloaded")
    assert "price" in run(monkeypatch, capsys, "--service", service, "--sweep")[1]


def test_current_mix_sets_the_workers(monkeypatch, capsys, service):
    words = ("--service", service, "--rate", "1", "--current", "0:1,25:3", "--json")
    assert json.loads(run(monkeypatch, capsys, *words)[1])["workers"] == 4


def test_profile_of_ones_own(monkeypatch, capsys, service, tmp_path):
    table = tmp_path / "profile.csv"
    table.write_text("skipped_steps,batch,latency_s\n0,1,1.0\n25,1,0.5\n")
    words = ("--service", service, "--rate", "6", "--profile", str(table), "--json")
    row = json.loads(run(monkeypatch, capsys, *words)[1])
    assert (row["mix"], row["price"]) == ("0:8", 0)


#: In an image's time in full, eleven of the other model's.
LIGHT = ("--model", "light:0.88:0.38")


def test_other_model_is_left_alone_within_the_ladders_reach(monkeypatch, capsys, service):
    words = ("--service", service, "--rate", "1.5", "--json", *LIGHT)
    assert json.loads(run(monkeypatch, capsys, *words)[1])["mix"] == "0:8"


def test_other_model_takes_what_the_ladder_cannot(monkeypatch, capsys, service):
    words = ("--service", service, "--rate", "5", "--json")
    alone = json.loads(run(monkeypatch, capsys, *words)[1])
    family = json.loads(run(monkeypatch, capsys, *words, *LIGHT)[1])
    assert alone["shed"] > 0
    assert family["shed"] == 0
    assert family["attainment"] > 0.94
    assert "light:" in family["mix"]
    assert family["workers"] == 8 == sum(int(p.split(":")[1]) for p in family["mix"].split(","))
    assert 0.88 < family["quality"] < 1
    assert "hold another model" in family["reason"]


def test_sweep_with_another_model_goes_on_until_images_are_refused(monkeypatch, capsys, service):
    words = ("--service", service, "--sweep", "--json", *LIGHT)
    rows = json.loads(run(monkeypatch, capsys, *words)[1])
    rates = [r["rate"] for r in rows]
    assert rates == sorted(rates)
    assert rates[-1] > 5 * 8 / 4.2
    assert rows[-1]["shed"] > 0
    assert all(r["shed"] == 0 for r in rows[:-1])
    assert (rows[0]["mix"], rows[-1]["mix"]) == ("0:8", "light:8")
    assert all(0.87 < r["quality"] <= 1 for r in rows)


def test_current_mix_may_name_another_model(monkeypatch, capsys, service):
    words = ("--service", service, "--rate", "0.5", "--current", "0:3,light:1", "--json", *LIGHT)
    row = json.loads(run(monkeypatch, capsys, *words)[1])
    assert (row["workers"], row["mix"]) == (4, "0:4")


@pytest.fixture
def two_models(service, tmp_path):
    spec = yaml.safe_load(Path(service).read_text())
    ladder = {"name": "default", "skippedSteps": [0, 5, 10, 15, 20, 25]}
    light = {"name": "light", "model": {"source": "some/light", "steps": 5, "quality": 0.88}}
    spec["spec"]["variants"] = [ladder, light]
    path = tmp_path / "two-models.yaml"
    path.write_text(yaml.safe_dump(spec))
    return str(path)


def test_the_specs_other_model_is_planned_with(monkeypatch, capsys, two_models):
    words = ("--service", two_models, "--rate", "5", "--json")
    out = run(monkeypatch, capsys, *words)
    row = json.loads(out[1])
    assert "light:" in row["mix"]
    assert row["shed"] == 0
    # A step as long as one of the own model: five of fifty, a tenth of the time.
    assert "a step is taken to last as long" in out[2]
    # What is typed counts in place of what the spec says.
    named = json.loads(run(monkeypatch, capsys, *words, "--model", "light:0.88:4.2")[1])
    assert named["shed"] > 0


def test_prompts_are_classes_that_keep_the_published_means():
    made = prompts_of(parse_service(SAMPLE), None)
    assert len(made.classes) == 6
    assert sum(c.weight for c in made.classes) == pytest.approx(1)
    for k in (0, 5, 10, 15, 20, 25):
        mean = sum(c.weight * c.curve.at(k) for c in made.classes)
        assert mean == pytest.approx(published_mean(k), abs=1e-6)
    ends = sorted(c.curve.at(25) for c in made.classes)
    assert ends[0] < ends[-1] - 0.02
    assert "published" in made.note
    assert "synthetic" in made.note


def test_prompts_are_those_of_the_models_own_measurement(tmp_path):
    (tmp_path / "quality.json").write_text(
        json.dumps(
            {
                "skipped_steps": [0, 25],
                "total_steps": 50,
                "by_similarity": [
                    {"similarity_min": 0.5, "similarity_max": 0.8, "n": 30, "mean": [1, 0.6]},
                    {"similarity_min": 0.8, "similarity_max": 1.0, "n": 10, "mean": [1, 0.9]},
                ],
            }
        )
    )
    made = prompts_of(parse_service(SAMPLE.replace("some/folder", str(tmp_path))), None)
    assert [c.weight for c in made.classes] == [0.75, 0.25]
    worse, better = (c.curve.at(25) for c in made.classes)
    assert worse < better < 0.9
    assert "measured" in made.note


def test_quality_table_of_ones_own(monkeypatch, capsys, service, tmp_path):
    path = tmp_path / "table.csv"
    rows = [f"{i},{0.9 if i % 4 else 0.1},1,1,1,1,{1 if i % 4 else 0.5},0.9" for i in range(240)]
    path.write_text("\n".join(["prompt_row,similarity,q0,q5,q10,q15,q20,q25", *rows]))
    made = prompts_of(parse_service(SAMPLE), str(path))
    assert sorted(c.weight for c in made.classes) == [0.25, 0.75]
    # Three of four prompts lose nothing at K = 20: at this load they skip, the others do not.
    words = ("--service", service, "--rate", "2.4", "--quality-table", str(path), "--json")
    row = json.loads(run(monkeypatch, capsys, *words)[1])
    assert row["quality"] == pytest.approx(1)
    assert row["mix"] != "0:8"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "-1"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (
            ("--rate", "1e308"),
            "--rate: 1e+308 is not allowed: images per second, 0 or 1e-09 to 1000000",
        ),
        (("--rate", "1e20"), "--rate"),
        (("--rate", "1e-300"), "--rate"),
        ((), "--rate"),
        (("--rate", "1", "--current", "0:x"), "--current"),
        (("--rate", "1", "--current", "7:1"), "--current"),
        (("--rate", "1", "--current", "0:0"), "--current"),
        (("--rate", "1", "--current", "light:1"), "--current"),
        (("--rate", "1", "--current", "0:-1"), "--current"),
        (
            ("--rate", "1", "--current", "0:99999999999"),
            "--current: 0:99999999999 is not allowed: ",
        ),
        (("--rate", "1", "--current", "0:4096,5:1"), "1 to 4096 workers in all"),
        (("--rate", "1", "--current", f"0:{'9' * 5000}"), "--current"),
        (("--rate", "1", "--profile", "nowhere.csv"), "nowhere.csv"),
        (("--rate", "1", "--quality-table", "nowhere.csv"), "nowhere.csv"),
        (("--rate", "1", "--model", "light"), "--model"),
        (("--rate", "1", "--model", "light:1.5:1"), "--model"),
        (("--rate", "1", "--model", "light:nan:1"), "--model"),
        (("--rate", "1", "--model", "light:0.9:0"), "--model"),
        (("--rate", "1", "--model", "light:0.5:1e-300"), "seconds of an image (0.001 to 3600)"),
        (("--rate", "1", "--model", "light:0.5:3601"), "--model"),
        (("--rate", "1", "--model", "25:0.9:1"), "--model"),
        (("--rate", "1", *LIGHT, *LIGHT), "--model"),
    ],
)
def test_bad_input_is_named(monkeypatch, capsys, service, words, said):
    code, out, err = run(monkeypatch, capsys, "--service", service, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_the_most_that_may_be_asked_for_is_planned(monkeypatch, capsys, service):
    words = ("--service", service, "--rate", "1e6", "--current", "0:4096", "--json")
    alone = json.loads(run(monkeypatch, capsys, *words)[1])
    family = json.loads(run(monkeypatch, capsys, *words, "--model", "light:0.5:0.001")[1])
    assert alone["workers"] == family["workers"] == 4096
    assert 4096 / 4.2 < alone["rate"] - alone["shed"] < 2 * 4096 / 4.2
    assert (family["shed"], family["quality"]) == (0, pytest.approx(0.5, abs=0.01))


def test_missing_service_is_named(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "--service", str(Path("none.yaml")), "--rate", "1")
    assert code != 0
    assert "none.yaml" in err
