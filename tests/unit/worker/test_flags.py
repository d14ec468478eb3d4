"""A bad start is told at once, in one line, with exit code 2."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gesso.api import parse_service
from gesso_worker import server
from gesso_worker.errors import StartError

GOOD = ["--name", "worker-0", "--listen", "127.0.0.1:7101", "--service", "service.yaml"]


def test_flags_are_read() -> None:
    flags = server.parse_flags([*GOOD, "--threads", "2"])
    listen, file = "127.0.0.1:7101", Path("service.yaml")
    assert flags == server.Flags("worker-0", listen, file, 2, 64, 0.0, 8.5, None, None, 0.05)
    lingering = server.parse_flags([*GOOD, "--linger-seconds", "4", "--drain-seconds", "90"])
    assert (lingering.linger_s, lingering.drain_s) == (4.0, 90.0)
    told = server.parse_flags([*GOOD, "--otlp-endpoint", "http://o:1", "--log-format", "text"])
    assert (told.otlp_endpoint, told.log_format) == ("http://o:1", "text")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param([], "--name, --listen, --service", id="none"),
        pytest.param([*GOOD, "--nmae", "x"], "--nmae", id="unknown"),
        pytest.param([*GOOD, "--name", "a b"], "--name: 'a b' is not allowed", id="name"),
        pytest.param([*GOOD, "--listen", "7101"], "--listen: '7101' is not allowed", id="no host"),
        pytest.param([*GOOD, "--listen", "h:70000"], "port 1 to 65535", id="port"),
        pytest.param([*GOOD, "--threads", "0"], "--threads: 0 is not allowed: 1 to", id="threads"),
        pytest.param([*GOOD, "--threads", "two"], "--threads", id="not a number"),
        pytest.param([*GOOD, "--max-accepted", "0"], "--max-accepted: 0", id="bound"),
        pytest.param([*GOOD, "--linger-seconds", "-1"], "--linger-seconds: -1", id="linger"),
        pytest.param([*GOOD, "--drain-seconds", "nan"], "--drain-seconds: nan", id="drain"),
        pytest.param(GOOD, "service.yaml: no such file", id="no service file"),
        pytest.param(
            [*GOOD, "--cache-dir", "d", "--cache-disk-bytes", "1 Gi"],
            "--cache-disk-bytes: '1 Gi' is not allowed: a quantity of bytes",
            id="quantity",
        ),
        pytest.param(
            [*GOOD, "--cache-disk-bytes", "1Gi"], "without --cache-dir", id="no cache folder"
        ),
        pytest.param(
            [*GOOD, "--otlp-endpoint", "o:4317"],
            "--otlp-endpoint: 'o:4317' is not allowed: http://HOST:PORT",
            id="collector",
        ),
        pytest.param([*GOOD, "--log-format", "xml"], "--log-format: invalid choice", id="format"),
        pytest.param([*GOOD, "--fetch-deadline-ms", "0"], "--fetch-deadline-ms: 0", id="deadline"),
    ],
)
def test_a_bad_start_is_one_line_and_code_2(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server.main(flags) == 2
    told = capsys.readouterr().err
    assert told.startswith("gesso worker: ")
    assert told.count("\n") == 1
    assert message in told


SERVICE = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {{name: tiny}}
spec:
  model: {{source: builtin://tiny-sdxl}}
  slo: {{latencySeconds: 10}}
  workers: {{min: 1, max: 1}}
  cache: {cache}
"""


def test_the_caches_place_on_disk_is_bounded_by_flag_or_spec() -> None:
    bare = parse_service(SERVICE.format(cache="{capacity: 1Mi}"))
    with_disk = parse_service(SERVICE.format(cache="{capacity: 1Mi, disk: {size: 2Gi}}"))
    at = [*GOOD, "--cache-dir", "d"]
    assert server.disk_place(server.parse_flags(GOOD), with_disk) is None
    assert server.disk_place(server.parse_flags(at), with_disk) == (Path("d"), 2 << 30)
    flags = server.parse_flags([*at, "--cache-disk-bytes", "3Mi"])
    assert server.disk_place(flags, with_disk) == (Path("d"), 3 << 20)
    assert server.disk_place(flags, bare) == (Path("d"), 3 << 20)
    with pytest.raises(StartError, match="--cache-dir: needs a bound"):
        server.disk_place(server.parse_flags(at), bare)


def test_a_port_in_use_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"{address} cannot be bound: Address already in use"):
            server.check_listen(address)
    server.check_listen(address)


def test_a_host_that_is_not_ours_is_told() -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:7101 cannot be bound"):
        server.check_listen("192.0.2.1:7101")


def test_all_faults_of_a_service_file_are_on_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("apiVersion: gesso.dev/v1alpha1\nkind: DiffusionService\nspec: {}\n")
    assert server.main([*GOOD[:-1], str(file)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "metadata" in told
    assert "spec.model" in told
