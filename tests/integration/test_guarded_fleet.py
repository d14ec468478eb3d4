"""A local fleet with TLS and keys: real router, worker, operator and command line; who may gets an image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))

from certificates import authority, issue, needs_openssl

from gesso.builtin import TINY_CLIP, TINY_SDXL, builtin_names
from gesso_operator.local.ports import free_port

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "tiny.yaml"
KEY = "a-key-of-16-or-so"

pytestmark = [
    needs_openssl,
    pytest.mark.skipif(
        not {TINY_SDXL, TINY_CLIP} <= set(builtin_names()),
        reason="the builtin models are not there",
    ),
    pytest.mark.timeout(300),
]


def gesso(
    folder: Path, *words: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gesso.cli.main", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def test_who_has_a_key_and_trusts_the_authority_gets_an_image(tmp_path: Path) -> None:
    issue(authority(tmp_path), tmp_path / "tls")
    (tmp_path / "keys.yaml").write_text(f"keys: [{{name: me, key: {KEY}}}]")
    body = yaml.safe_load(SAMPLE.read_text())
    body["spec"]["security"] = {
        "tls": {"directory": str(tmp_path / "tls")},
        "keys": {"file": str(tmp_path / "keys.yaml")},
    }
    body["spec"]["workers"]["replicas"] = 1
    body["spec"]["slo"]["latencySeconds"] = 60.0
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(body))
    ports = ("--grpc-port", str(free_port("127.0.0.1")), "--http-port", str(free_port("127.0.0.1")))
    up = gesso(tmp_path, "up", "service.yaml", *ports)
    try:
        assert up.returncode == 0, up.stderr
        ca = ("--ca", str(tmp_path / "tls" / "ca.crt"))
        ask = ("generate", "a large red star", "-o", "star.png")
        made = gesso(tmp_path, *ask, *ca, environment={"GESSO_API_KEY": KEY})
        assert made.returncode == 0, made.stderr
        assert (tmp_path / "star.png").read_bytes().startswith(b"\x89PNG")
        assert "UNAUTHENTICATED: an API key is needed" in gesso(tmp_path, *ask, *ca).stderr
        in_clear = gesso(tmp_path, *ask, "--api-key", KEY, "--timeout", "5")
        assert in_clear.returncode == 1
        # The operator reaches router and worker, which tell it what they do.
        assert gesso(tmp_path, "status").returncode == 0
        state = tmp_path / ".gesso" / "tiny"
        told = "".join(p.read_text() for p in (*state.glob("*.json"), *state.glob("logs/*.log")))
        assert "PRIVATE KEY" not in told
        assert KEY not in told
        assert "large red star" not in told
    finally:
        down = gesso(tmp_path, "down")
    assert down.returncode == 0, down.stderr
