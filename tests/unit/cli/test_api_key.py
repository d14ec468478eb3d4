"""An API key that cannot be sent is told by its option's name, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gesso.api_key import key_of
from gesso.cli import bench
from gesso.cli.console import CliError
from gesso.cli.generate import Door, Wish, generate
from gesso.client import AsyncClient, Client

KEY = "a-key-of-16-or-so"
BAD = [f"{KEY}\nx", f"{KEY} x", f"{KEY}\x00", f"{KEY}\x7f", f"{KEY}é", f"{KEY}\n "]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_files_end_of_line_is_no_part_of_a_key(end: str) -> None:
    assert key_of(KEY + end, "api_key") == KEY
    assert key_of(end, "api_key") is None
    assert key_of(None, "api_key") is None


@pytest.mark.parametrize("key", BAD)
def test_a_key_that_cannot_be_sent_is_told_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for made in (Client, AsyncClient):
        with pytest.raises(ValueError, match="api_key: the key's character 18 of ") as error:
            made("127.0.0.1:1", api_key=key)
        assert KEY not in str(error.value)
    with pytest.raises(CliError, match=r"--api-key \(or GESSO_API_KEY\): the key's") as told:
        generate(Wish("x", Path("a.png")), "127.0.0.1:1", 1, Door(api_key=key))
    assert KEY not in str(told.value)
    if "\x00" not in key:  # no environment can hold it
        monkeypatch.setenv("GESSO_API_KEY", key)
        with pytest.raises(CliError, match=r"^GESSO_API_KEY: the key's") as told:
            bench.bench(url="grpc://127.0.0.1:1", rate=1.0, seconds=1.0)
        assert KEY not in str(told.value)


@pytest.mark.parametrize("key", ["", "two words", "x\n", "é", "x" * 256])
def test_an_idempotency_key_that_cannot_be_sent_is_told(key: str) -> None:
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(ValueError, match=r"idempotency_key: .* is not allowed: 1 to 255"),
    ):
        client.generate("a star", idempotency_key=key)
