"""`gesso plan`: what it prints for a rate, over a sweep, and on input that is not allowed."""

import json
import sys
from pathlib import Path

import pytest

from gesso.cli.main import main

SAMPLE = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: sdxl}
spec:
  model: {source: some/folder}
  slo: {latencySeconds: 20, minRelativeQuality: 0.5}
  workers: {min: 8, max: 8}
"""


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
    quality = [r["quality"] for r in rows]
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "-1"), "--rate"),
        (("--rate", "nan"), "--rate"),
        ((), "--rate"),
        (("--rate", "1", "--current", "0:x"), "--current"),
        (("--rate", "1", "--current", "7:1"), "--current"),
        (("--rate", "1", "--current", "0:0"), "--current"),
        (("--rate", "1", "--profile", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_bad_input_is_named(monkeypatch, capsys, service, words, said):
    code, out, err = run(monkeypatch, capsys, "--service", service, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_missing_service_is_named(monkeypatch, capsys):
    code, _, err = run(monkeypatch, capsys, "--service", str(Path("none.yaml")), "--rate", "1")
    assert code != 0
    assert "none.yaml" in err
