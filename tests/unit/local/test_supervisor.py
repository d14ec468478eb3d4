"""What the supervisor refuses before it starts anything, and small parts of it."""

import json
import os
import socket

import pytest

from gesso.api.local_state import StateDir
from gesso_operator.local.ports import free_port, in_use
from gesso_operator.local.process import last_line
from gesso_operator.local.supervisor import Ports, UsageError, main


def refusal(capsys, *flags):
    code = main(list(flags))
    return code, json.loads(capsys.readouterr().err.splitlines()[-1])["detail"]


def test_port_in_use_is_named_with_its_flag(tmp_path, service_file, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = (
            "--service",
            str(service_file),
            "--state-dir",
            str(tmp_path),
            "--grpc-port",
            str(port),
        )
        code, message = refusal(capsys, *flags, "--http-port", str(free_port()))
    assert code == 2
    assert message == f"port {port} is in use: choose another with --grpc-port"


def test_second_supervisor_in_one_directory_is_refused(tmp_path, service_file, capsys):
    lock = StateDir(tmp_path).try_lock()
    flags = ("--service", str(service_file), "--state-dir", str(tmp_path))
    ports = ("--grpc-port", str(free_port()), "--http-port", str(free_port()))
    code, message = refusal(capsys, *flags, *ports)
    os.close(lock)
    assert code == 2
    assert "is up already" in message


def test_bad_service_file_is_refused_before_anything_starts(tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: DiffusionService\n")
    flags = ("--service", str(bad), "--state-dir", str(tmp_path / "state"))
    code, message = refusal(capsys, *flags, "--grpc-port", "1", "--http-port", "2")
    assert code == 2
    assert "missing: required" in message
    assert not (tmp_path / "state").exists()


def test_a_stopped_fleet_is_refused_on_one_machine(tmp_path, service_file, capsys):
    asked = tmp_path / "asked.yaml"
    asked.write_text(service_file.read_text().replace("replicas: 2", "replicas: 0"))
    flags = ("--service", str(asked), "--state-dir", str(tmp_path / "state"))
    code, message = refusal(capsys, *flags, "--grpc-port", "1", "--http-port", "2")
    assert code == 2
    assert "spec.workers.replicas: 0 is not allowed on one machine" in message


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_port_out_of_range_is_a_bad_flag(port, tmp_path, service_file, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--service", "x", "--state-dir", "y", "--grpc-port", port, "--http-port", "7080"])
    assert caught.value.code == 2
    assert "a port from 1 to 65535" in capsys.readouterr().err


def test_free_port_can_be_used():
    assert in_use(free_port()) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("loading\nerror: no such model\n\n", "error: no such model"),
        ('{"message": "x", "detail": "disk full"}\n', "disk full"),
        ("", ""),
        ("x" * 1000, "x" * 397 + "..."),
    ],
    ids=["plain", "structured", "nothing", "long"],
)
def test_last_clear_line_of_a_log(tmp_path, text, told):
    log = tmp_path / "a.log"
    log.write_text("from an earlier run\n" + text)
    assert last_line(log, len("from an earlier run\n")) == told


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        (Ports(7001, 7001), "are both 7001: two ports are needed"),
        (Ports(7001, 7002, 2), "are 7001 and 7002: 2 routers need 2 ports in a row from each"),
        (Ports(65535, 7001, 2), "2 ports in a row from each are needed, up to 65535"),
    ],
)
def test_ports_that_cannot_hold_every_router_are_told(ports, said):
    with pytest.raises(UsageError, match=said):
        ports.all()


def test_each_router_has_the_ports_that_follow():
    assert Ports(7001, 7080, 2).all() == [
        ("--grpc-port", 7001),
        ("--grpc-port", 7002),
        ("--http-port", 7080),
        ("--http-port", 7081),
    ]
