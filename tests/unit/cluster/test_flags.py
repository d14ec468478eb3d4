"""The operator's command line."""

import pytest

from gesso_operator.cluster.flags import UsageError, parse

NEEDED = ["--router-image", "r", "--worker-image", "w"]
POD = {"POD_NAMESPACE": "gesso-system", "POD_NAME": "op-0"}


def test_what_is_left_out_comes_from_the_pod():
    flags = parse(NEEDED, POD)
    assert (flags.lease_namespace, flags.pod, flags.namespaces) == ("gesso-system", "op-0", ())
    assert (flags.host, flags.port) == ("0.0.0.0", 8080)


def test_namespaces_are_each_taken_once():
    flags = parse([*NEEDED, "--namespace", "a", "--namespace", "b", "--namespace", "a"], POD)
    assert flags.namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ([], POD, "--router-image"),
        ([*NEEDED, "--http", "80"], POD, "--http: '80' is not allowed: HOST:PORT"),
        ([*NEEDED, "--namespace", "A_b"], POD, "--namespace: 'A_b' is not allowed"),
        (NEEDED, {}, "--lease-namespace: '' is not allowed"),
        ([*NEEDED, "--pod-defaults", "/no/such"], POD, "--pod-defaults: /no/such: No such file"),
        ([*NEEDED, "--what"], POD, "--what"),
    ],
)
def test_bad_ones_are_told(arguments, environment, told):
    with pytest.raises(UsageError, match=told.replace("?", r"\?")):
        parse(arguments, environment)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "a mapping with `router` and `worker` is needed"),
        ("workers: {}", "a mapping with `router` and `worker` is needed"),
        ("worker: {spec: [1]}", "worker.spec"),
        ("worker: {what: 1}", "worker.what"),
        ("a: b: c", "not YAML"),
        ("worker: {spec: 2024-02-30}", "cannot be read as timestamp"),
        ("- " * 3000, "nested too deep"),
    ],
)
def test_bad_pod_defaults_are_told(tmp_path, text, told):
    file = tmp_path / "pods.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=told):
        parse([*NEEDED, "--pod-defaults", str(file)], POD)


def test_good_pod_defaults_are_taken(tmp_path):
    file = tmp_path / "pods.yaml"
    file.write_text("worker: {spec: {runtimeClassName: nvidia}}\nrouter:\n")
    found = parse([*NEEDED, "--pod-defaults", str(file)], POD).pod_defaults
    assert found == {"worker": {"spec": {"runtimeClassName": "nvidia"}}, "router": {}}
