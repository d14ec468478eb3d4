"""API keys: who is known, what a bad file says, what a changed one does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from gesso.api import DiffusionService, parse_service
from gesso_router.access import callers as module
from gesso_router.access.callers import ANYBODY, Caller, Callers
from gesso_router.access.key_file import ApiKey, KeyFileError, parse_keys
from gesso_router.errors import Ending, RequestError
from gesso_router.validation import Job, Raw, validate

KEY = "a-secret-of-alice-1"
FILE = f"""
keys:
- {{name: alice, tenant: team-a, key: {KEY}, imagesPerMinute: 60, burst: 2}}
- {{name: bob, tenant: team-b, sha256: {hashlib.sha256(b"a-secret-of-bob-002").hexdigest()}}}
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text(FILE)
    return file


def put(path: Path, text: str | None) -> None:
    """As Kubernetes changes a mounted Secret: another file, moved into its place."""
    if text is None:
        path.unlink()
        return
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def service() -> DiffusionService:
    return parse_service(
        """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: tiny}
spec:
  model: {source: some/model, steps: 50, width: 64, height: 64}
  slo: {latencySeconds: 2.0}
  workers: {min: 1, max: 2}
"""
    )


def job(tenant: str = "") -> Job:
    return validate(Raw(prompt="a star", tenant=tenant), service())


def test_bearer_and_basic_bring_a_key(path: Path) -> None:
    callers = Callers(path)
    assert callers.of(f"Bearer {KEY}") == Caller("alice", "team-a")
    basic = base64.b64encode(b"any:a-secret-of-bob-002").decode()
    assert callers.of(f"basic {basic}") == Caller("bob", "team-b")


@pytest.mark.parametrize(
    "brought",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Token {KEY}",
        KEY,
        "Basic !!",
        "Basic YQ==",
        "Bearer x",
        f"Bearer {KEY}x",
    ],
)
def test_whoever_brings_none_that_is_known_is_refused(path: Path, brought: str | None) -> None:
    with pytest.raises(RequestError, match="API key") as error:
        Callers(path).of(brought)
    assert error.value.ending is Ending.UNKNOWN_CALLER
    assert KEY not in str(error.value)


def test_without_a_file_anybody_may_call() -> None:
    assert Callers(None).of(None) == ANYBODY
    assert ANYBODY.owns(job("t")).tenant == "t"


def test_every_key_is_compared_in_constant_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []
    truly = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return truly(a, b)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    Callers(path).of(f"Bearer {KEY}")
    assert len(compared) == 2  # it does not stop at the first, which is the right one


def test_a_callers_tenants_lie_within_its_own() -> None:
    alice = Caller("alice", "team-a")
    assert (alice.owns(job()).tenant, alice.owns(job("u")).tenant) == ("team-a", "team-a/u")
    assert alice.owns(job("team-b")).tenant == "team-a/team-b"
    assert alice.owns(job("u")).owner == "team-a"
    with pytest.raises(RequestError, match="user: 65 bytes"):
        alice.owns(job("u" * 65))


def test_rates_are_held_with_the_time_to_wait(path: Path) -> None:
    clock = Clock()
    callers = Callers(path, clock)
    alice = callers.of(f"Bearer {KEY}")
    callers.spend(alice, 2)
    with pytest.raises(RequestError, match="more than 60 images per minute") as error:
        callers.spend(alice, 1)
    assert (error.value.ending, error.value.retry_after_seconds) == (Ending.SHED, 1.0)
    clock.now = 1.0
    callers.spend(alice, 1)
    with pytest.raises(RequestError, match="n: 3 is not allowed: at most 2 at once"):
        callers.spend(alice, 3)
    for _ in range(1000):
        callers.spend(Caller("bob", "team-b"), 10)


async def test_a_changed_file_is_taken_up_and_a_broken_one_is_not(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    callers = Callers(path, clock)
    callers.spend(callers.of(f"Bearer {KEY}"), 2)
    put(path, FILE.replace("a-secret-of-alice-1", "another-one-of-alice"))
    await callers.refresh()
    alice = callers.of("Bearer another-one-of-alice")
    with pytest.raises(RequestError, match="not one that is known"):
        callers.of(f"Bearer {KEY}")
    with pytest.raises(RequestError, match="per minute"):  # a new key is not a new allowance
        callers.spend(alice, 1)
    put(path, "keys: [{name: alice, key: short}]")
    await callers.refresh()
    assert callers.of("Bearer another-one-of-alice").name == "alice"
    assert "keys kept as they were" in caplog.text
    put(path, None)
    await callers.refresh()
    assert callers.of("Bearer another-one-of-alice").name == "alice"


async def test_a_watch_goes_on_after_whatever_a_file_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.01)
    truly = module.read_keys

    def read(path: Path) -> tuple[ApiKey, ...]:
        if path.read_text() == "unforeseen":
            raise RuntimeError(f"cannot read {KEY}")
        return truly(path)

    monkeypatch.setattr(module, "read_keys", read)
    callers = Callers(path)
    watching = asyncio.create_task(callers.watch())
    for text, told in (
        ("keys:\n- {name: a, tenant: 2024-02-30}", "not YAML at line 2"),
        ("unforeseen", "RuntimeError"),
    ):
        put(path, text)
        await asyncio.sleep(0.2)
        assert [vars(r)["cause"] for r in caplog.records] == [told]  # once, not at each look
        caplog.clear()
    put(path, FILE.replace(KEY, "another-one-of-alice"))
    async with asyncio.timeout(5):
        while not _known(callers, "another-one-of-alice"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not _known(callers, KEY)
    watching.cancel()


async def test_a_file_that_could_not_be_read_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(path)
    put(path, FILE.replace(KEY, "another-one-of-alice"))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refused)  # root may read whatever its mode says
        await callers.refresh()
        await callers.refresh()
    assert [vars(r)["cause"] for r in caplog.records] == ["Permission denied"]
    await callers.refresh()
    assert _known(callers, "another-one-of-alice")
    assert not _known(callers, KEY)


def _known(callers: Callers, key: str) -> bool:
    try:
        callers.of(f"Bearer {key}")
    except RequestError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"keys:\n- {{name: a, tenant: 2024-02-30, key: {KEY}}}", "not YAML at line 2"),
        (f"keys: [{{name: !!int a, key: {KEY}}}]", "not YAML at line 1"),
        ("keys: [{name: a, key: " + "1" * 5000 + "}]", "not YAML at line 1"),
        ("- " * 3000, "nested too deep"),
        ("", "the file: "),
        ("keys: [", "not YAML at line 1"),
        (f"keys: [{{name: a, key: {KEY}, sha256: {'a' * 64}}}]", "exactly one of key and sha256"),
        ("keys: [{name: a}]", "exactly one of key and sha256"),
        ("keys: [{name: a, key: hunter2}]", "16 to 256 printable ASCII"),
        (f"keys: [{{name: a, sha256: {KEY}}}]", "64 hexadecimal digits"),
        (f"keys: [{{name: a/b, key: {KEY}}}]", "keys.0.name"),
        (f"keys: [{{name: a, tenant: a/b, key: {KEY}}}]", "keys.0.tenant"),
        (f"keys: [{{name: a, key: {KEY}, rate: 1}}]", "keys.0.rate"),
        (f"keys: [{{name: a, key: {KEY}, burst: 1}}]", "no use without imagesPerMinute"),
        (f"keys: [{{name: a, key: {KEY}, imagesPerMinute: 0}}]", "greater than 0"),
        (f"keys: [{{name: a, key: {KEY}}}, {{name: b, key: {KEY}}}]", "two have the same key"),
        (f"keys: [{{name: a, key: {KEY}}}, {{name: a, key: {KEY}2}}]", "two have the same name"),
    ],
)
def test_a_bad_file_is_told_without_a_key(text: str, says: str) -> None:
    with pytest.raises(KeyFileError, match=says) as error:
        parse_keys(text)
    assert KEY not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        Callers(tmp_path / "none")
    large = tmp_path / "large"
    large.write_bytes(bytes(5 * 2**20))
    with pytest.raises(KeyFileError, match="larger than"):
        Callers(large)


def test_keys_do_not_show() -> None:
    (alice, _) = parse_keys(FILE)
    assert KEY not in repr(alice)
