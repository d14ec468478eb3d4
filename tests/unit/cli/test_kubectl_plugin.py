"""`kubectl gesso`: what it asks of kubectl, what it prints, and what it says when it cannot."""

import json
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import yaml

from gesso.api import ServiceStatus, SloStatus, WorkersStatus, transition
from gesso.cli.kubectl_plugin import main
from gesso.cli.status import status_line

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPEC = yaml.safe_load(
    """
model: {source: some/folder}
slo: {latencySeconds: 20, minRelativeQuality: 0.5}
workers: {min: 8, max: 8}
"""
)


def status(ready="True"):
    return ServiceStatus(
        conditions=(transition((), "Ready", ready, "AllReady", "all parts are ready", NOW),),
        mix="0:6,10:2",
        slo=SloStatus(attainment=0.991, latency_p95_seconds=8.0),
        quality=0.97,
        workers=WorkersStatus(desired=8, ready=8),
    )


def service(name, namespace="images", told=None):
    body = {
        "apiVersion": "gesso.dev/v1alpha1",
        "kind": "DiffusionService",
        "metadata": {"name": name, "namespace": namespace, "uid": "1", "resourceVersion": "7"},
        "spec": SPEC,
    }
    return body if told is None else body | {"status": json.loads(told.model_dump_json())}


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A kubectl that answers from a file and writes down what it was asked for."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/error >&2 2>/dev/null\n'
        f"cat {tmp_path}/answer 2>/dev/null\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    def answers(found):
        (tmp_path / "answer").write_text(found if isinstance(found, str) else json.dumps(found))
        return lambda: (tmp_path / "asked").read_text().strip()

    return answers


def run(monkeypatch, capsys, *words):
    """Exit code, stdout and stderr of `kubectl gesso WORDS`."""
    monkeypatch.setattr(sys, "argv", ["kubectl-gesso", *words])
    code = 0
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_status_of_one_is_the_line_of_gesso_status(monkeypatch, capsys, kubectl):
    asked = kubectl(service("sdxl", told=status()))
    code, out, _ = run(monkeypatch, capsys, "status", "sdxl", "-n", "images", "--context", "prod")
    assert (code, out.strip()) == (0, status_line("sdxl", status())[0])
    assert asked() == (
        "get diffusionservices.gesso.dev sdxl --output=json --namespace=images --context=prod"
    )


def test_status_of_all_names_the_namespaces(monkeypatch, capsys, kubectl):
    found = [service("a", "x", status()), service("b", "y", status("False")), service("c", "y")]
    asked = kubectl({"kind": "List", "items": found})
    code, out, _ = run(monkeypatch, capsys, "status", "-A")
    lines = out.splitlines()
    assert code == 1  # not all of them are ready
    assert lines[0].startswith("x/a: Ready | 8/8 workers | mix 0:6,10:2 | SLO 99.1%")
    assert lines[1].startswith("y/b: NotReady (AllReady)")
    assert lines[2] == "y/c: Unknown | no status yet: no operator has looked at it"
    assert asked() == "get diffusionservices.gesso.dev --output=json --all-namespaces"


def test_status_as_json_is_the_whole(monkeypatch, capsys, kubectl):
    kubectl(service("sdxl", told=status()))
    code, out, _ = run(monkeypatch, capsys, "status", "sdxl", "--json")
    assert code == 0
    assert json.loads(out)["mix"] == "0:6,10:2"


def test_that_there_is_none_is_said(monkeypatch, capsys, kubectl):
    kubectl({"kind": "List", "items": []})
    code, out, _ = run(monkeypatch, capsys, "status", "-n", "images")
    assert (code, out.strip()) == (1, "no DiffusionService in images")


def test_watch_follows_until_it_is_interrupted(monkeypatch, capsys, kubectl):
    kubectl(service("sdxl", told=status()))

    def interrupted(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("gesso.cli.status.time", SimpleNamespace(sleep=interrupted))
    code, out, _ = run(monkeypatch, capsys, "status", "sdxl", "--watch")
    assert code == 0
    assert "sdxl: Ready" in out


def test_plan_is_that_of_gesso_plan(monkeypatch, capsys, kubectl):
    kubectl(service("sdxl"))
    code, out, err = run(monkeypatch, capsys, "plan", "sdxl", "--rate", "1", "--json")
    assert code == 0, err
    row = json.loads(out)
    assert (row["mix"], row["workers"]) == ("0:8", 8)


def test_simulate_takes_the_service_from_the_cluster(monkeypatch, capsys, kubectl, tmp_path):
    asked = kubectl(service("sdxl"))
    told = tmp_path / "told.json"
    code, _, err = run(
        monkeypatch,
        capsys,
        *("simulate", "sdxl", "-n", "images", "--scenario", "constant", "--load-scale", "0.02"),
        *("--no-bounds", "--json", str(told)),
    )
    assert code == 0, err
    assert json.loads(told.read_text())["slo_seconds"] == SPEC["slo"]["latencySeconds"]
    assert "--namespace=images" in asked()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "sdxl"), "--rate: missing: a rate in images per second, or --sweep"),
        (("plan", "sdxl", "--rate", "-1"), "--rate: -1.0 is not allowed"),
        (("plan", "--rate", "1"), "NAME: --rate is not allowed: the name of a service comes first"),
        (("simulate", "sdxl", "--scenario", "no"), "scenario: no is not allowed"),
        (("status", "sdxl", "-A"), "--all-namespaces: not together with a name"),
        (("status", "--json"), "--json: takes the name of a service"),
    ],
)
def test_bad_questions_are_usage_errors(monkeypatch, capsys, kubectl, words, message):
    kubectl(service("sdxl"))
    code, out, err = run(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert message in err


def test_what_kubectl_says_is_passed_on(monkeypatch, capsys, kubectl, tmp_path):
    kubectl("")
    (tmp_path / "bin" / "kubectl").write_text("#!/bin/sh\necho 'not found: sdxl' >&2; exit 1\n")
    code, _, err = run(monkeypatch, capsys, "status", "sdxl")
    assert (code, err.strip()) == (1, "gesso: not found: sdxl")


def test_an_answer_that_is_no_json_is_said(monkeypatch, capsys, kubectl):
    kubectl("oops")
    code, _, err = run(monkeypatch, capsys, "status", "sdxl")
    assert code == 1
    assert "kubectl answered no JSON: 'oops'" in err


def test_without_kubectl_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run(monkeypatch, capsys, "status")
    assert (code, err.strip()) == (1, "gesso: kubectl is not on the PATH")


def test_a_status_of_another_version_is_told_apart(monkeypatch, capsys, kubectl):
    body = service("sdxl", told=status())
    body["status"]["mixture"] = "0:8"
    kubectl(body)
    code, _, err = run(monkeypatch, capsys, "status", "sdxl")
    assert code == 1
    assert "sdxl: its status was written by another version of Gesso" in err


def test_a_spec_that_is_not_accepted_names_the_field(monkeypatch, capsys, kubectl):
    body = service("sdxl")
    body["spec"] = {**SPEC, "workers": {"min": 9, "max": 8}}
    kubectl(body)
    code, _, err = run(monkeypatch, capsys, "plan", "sdxl", "--rate", "1")
    assert code == 1
    assert "sdxl: spec.workers.max: 8 is not allowed: at least spec.workers.min (9)" in err
