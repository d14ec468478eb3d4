"""Every alert fires once, and none on a healthy fleet: promtool plays alerts.yaml against the rules."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / "manifests" / "rules" / "gesso.yaml"
PLAYED = Path(__file__).with_name("alerts.yaml")
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool: apt-get install prometheus"
)


def promtool(*words):
    return subprocess.run(
        [PROMTOOL, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def played(tmp_path, rules=RULES):
    file = tmp_path / "alerts.yaml"
    file.write_text(PLAYED.read_text().replace("RULES", str(rules)))
    return promtool("test", "rules", file)


def test_every_alert_is_played():
    rules = [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]
    document = yaml.safe_load(PLAYED.read_text())
    fired = {
        sample["labels"].split('"')[1]
        for test in document["tests"]
        for check in test["promql_expr_test"]
        for sample in check["exp_samples"]
    }
    assert fired == {rule["alert"] for rule in rules}


@needs_promtool
def test_rules_are_well_formed():
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_alert_fires_once_and_none_on_a_healthy_fleet(tmp_path):
    done = played(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_an_alert_that_cannot_fire_is_found(tmp_path):
    broken = tmp_path / "rules.yaml"
    broken.write_text(
        RULES.read_text().replace("gesso_operator_data_fresh", "gesso_operator_fresh")
    )
    done = played(tmp_path, broken)
    assert done.returncode != 0
    assert "GessoPlanStuck" in done.stdout + done.stderr
