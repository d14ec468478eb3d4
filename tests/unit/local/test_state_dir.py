"""The state directory: who runs here, and what is removed."""

import os
from datetime import UTC, datetime

from gesso.api import ServiceStatus
from gesso.api.local_state import Child, LocalState, StateDir, local_services

STATE = LocalState(
    name="tiny",
    phase="Ready",
    pid=1,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    grpc="127.0.0.1:7001",
    http="127.0.0.1:7080",
    children=(
        Child(name="router", pid=2, address="127.0.0.1:7001", http="127.0.0.1:7080"),
        Child(name="worker-0", pid=3, address="127.0.0.1:7101"),
    ),
)


def test_written_state_reads_back(tmp_path):
    place = StateDir(tmp_path / "tiny")
    place.create()
    place.write_state(STATE)
    place.write_status(ServiceStatus(mix="0:2"))
    assert place.read_state() == STATE
    assert [c.name for c in place.read_state().routers] == ["router"]
    assert [c.name for c in place.read_state().workers] == ["worker-0"]
    assert place.read_status().mix == "0:2"
    assert [s.path for s in local_services(tmp_path)] == [place.path]


def test_what_cannot_be_read_is_absent(tmp_path):
    place = StateDir(tmp_path)
    assert place.read_state() is None
    (tmp_path / "state.json").write_text("{")
    (tmp_path / "status.json").write_bytes(b"\xff")
    assert place.read_state() is None
    assert place.read_status() is None


def test_lock_tells_who_is_alive(tmp_path):
    place = StateDir(tmp_path)
    assert not place.alive
    lock = place.try_lock()
    assert place.alive
    assert place.try_lock() is None
    os.close(lock)
    assert not place.alive


def test_nobody_is_alive_in_what_is_no_directory(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text("kind: DiffusionService\n")
    assert not StateDir(file).alive
    assert not StateDir(file / "tiny").alive


def test_removal_leaves_what_is_not_ours(tmp_path):
    place = StateDir(tmp_path / "tiny")
    place.create()
    place.write_state(STATE)
    place.log("router").write_text("x")
    second = place.router("router-1")
    second.mkdir(parents=True)
    (second / "plan.json").write_text("{}")
    (place.path / "holiday.jpg").write_text("mine")
    place.remove()
    assert [p.name for p in place.path.iterdir()] == ["holiday.jpg"]
    (place.path / "holiday.jpg").unlink()
    place.remove()
    assert not place.path.exists()
    assert tmp_path.exists()
