"""Who answers for a cell knows what others hold of it, whoever comes, goes or begins anew."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from one_query import one_query, only_answer
from shard_fleet import PRINT, FleetOfShards, Member, fleet_of, latents, unit, until

from gesso.codebook import to_bytes
from gesso.placement import Placement
from gesso.rpc.v1 import worker_pb2
from gesso.vectors import packed, unpacked
from gesso_worker.cache import announcer
from gesso_worker.cache.policy import entry_bytes
from gesso_worker.cache.records import Post
from gesso_worker.cache.signposts import Signposts

NAMES = tuple(f"worker-{i}" for i in range(10))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "PAUSE_S", 0.01)
    monkeypatch.setattr(announcer, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(announcer, "RETRY_S", 0.05)


def fill(fleet: FleetOfShards, count: int, seed: int = 0) -> dict[str, tuple[str, np.ndarray]]:
    """Entries dealt in turn: by id, who holds each and its embedding."""
    members = list(fleet.members.values())
    made = {}
    for i, row in enumerate(unit(count, seed)):
        member = members[i % len(members)]
        entry = member.shard.insert("t", PRINT, row, latents(i))
        assert entry is not None
        made[entry] = (member.name, row)
    return made


async def ask(member: Member, row: np.ndarray, limit: int = 1, tenant: str = "t") -> list:
    request = one_query(tenant=tenant, embedding=packed(row), limit=limit)
    return list(only_answer(await member.stub.Lookup(request, timeout=5)))


def known_to(fleet: FleetOfShards) -> dict[str, set[str]]:
    """By worker, the entries of others that it knows of."""
    return {n: {entry for _, entry in m.signposts._held} for n, m in fleet.members.items()}


def expected(fleet: FleetOfShards, made: dict[str, tuple[str, np.ndarray]]) -> dict[str, set[str]]:
    placed = Placement.of(fleet.codebook, tuple(fleet.members))
    return {
        name: {
            entry
            for entry, (holder, row) in made.items()
            if holder != name
            and holder in fleet.members
            and name in placed.nearest(row, placed.copies)
        }
        for name in fleet.members
    }


async def until_known(fleet: FleetOfShards, made: dict[str, tuple[str, np.ndarray]]) -> None:
    await until(lambda: known_to(fleet) == expected(fleet, made))


async def test_the_owners_of_its_cells_find_an_entry_wherever_it_lies() -> None:
    async with fleet_of(*NAMES) as fleet:
        made = fill(fleet, 80)
        await fleet.place()
        made |= fill(fleet, 40, seed=1)
        await until_known(fleet, made)
        await fleet.settled()
        placed = Placement.of(fleet.codebook, NAMES)
        for entry, (holder, row) in made.items():
            for name in placed.nearest(row, 2):
                (match,) = await ask(fleet.members[name], row)
                assert match.entry_id == entry
                assert match.worker == ("" if name == holder else holder)
                assert list(match.held_levels) == [5, 10]
                assert np.allclose(unpacked(match.embedding), row)


async def test_what_is_evicted_or_gains_levels_is_told() -> None:
    async with fleet_of(*NAMES) as fleet:
        made = fill(fleet, 16)
        await fleet.place()
        await until_known(fleet, made)
        gone, (holder, row) = next(iter(made.items()))
        shard = fleet.members[holder].shard
        with shard._lock:
            shard._table.drop_memory(gone, 5)
            shard._table.drop_memory(gone, 10)
        kept, (keeper, other) = list(made.items())[1]
        with fleet.members[keeper].shard._lock:
            fleet.members[keeper].shard._table.drop_memory(kept, 10)
        del made[gone]
        await until_known(fleet, made)
        await fleet.settled()
        for name, member in fleet.members.items():
            assert all(m.entry_id != gone for m in await ask(member, row, 20))
            for match in await ask(member, other, 20):
                if match.entry_id == kept and name != keeper:
                    assert list(match.held_levels) == [5]


async def test_who_joins_is_told_its_share_and_no_more_is_sent() -> None:
    async with fleet_of(*NAMES[:9]) as fleet:
        made = fill(fleet, 140)
        await fleet.place()
        await until_known(fleet, made)
        before = expected(fleet, made)
        sent: list[tuple[str, int]] = []
        for member in fleet.members.values():
            tell = member.peers.announce

            async def counted(address, worker, *rest, tell=tell):
                # A message that is refused, since its placement is older, is sent again.
                life = await tell(address, worker, *rest)
                sent.append((address, len(rest[2])))
                return life

            member.peers.announce = counted
        joined = await fleet.add(NAMES[9])
        await fleet.place()
        await until_known(fleet, made)
        await fleet.settled()
        after = expected(fleet, made)
        new = sum(len(after[n] - before.get(n, set())) for n in after)
        assert 0 < len(after[NAMES[9]]) <= sum(c for a, c in sent if a == joined.address)
        assert sum(count for _, count in sent) <= 1.5 * new
        assert new < sum(map(len, after.values())) / 2


async def test_entries_of_a_worker_that_left_are_forgotten_and_the_rest_is_found() -> None:
    async with fleet_of(*NAMES) as fleet:
        made = fill(fleet, 80)
        await fleet.place()
        await until_known(fleet, made)
        await fleet.remove(NAMES[3])
        await fleet.place()
        await until_known(fleet, made)
        await fleet.settled()


async def test_who_begins_anew_is_told_everything_again() -> None:
    async with fleet_of(*NAMES) as fleet:
        made = fill(fleet, 60)
        await fleet.place()
        await until_known(fleet, made)
        port = int(fleet.members[NAMES[2]].address.rpartition(":")[2])
        await fleet.remove(NAMES[2])
        made = {entry: m for entry, m in made.items() if m[0] != NAMES[2]}
        await asyncio.sleep(0.1)
        await fleet.add(NAMES[2], port)
        await fleet.place()
        known = expected(fleet, made)[NAMES[2]]
        assert known
        await until(lambda: known_to(fleet)[NAMES[2]] == known)


async def test_a_worker_that_does_not_answer_holds_up_nobody() -> None:
    async with fleet_of(*NAMES) as fleet:
        await fleet.members[NAMES[0]].server.stop(None)
        made = {e: m for e, m in fill(fleet, 80).items() if m[0] != NAMES[0]}
        silent = fleet.members.pop(NAMES[0])
        request = worker_pb2.PlaceRequest(
            workers=[worker_pb2.Peer(name=NAMES[0], address=silent.address)]
            + [worker_pb2.Peer(name=m.name, address=m.address) for m in fleet.members.values()],
            codebook=to_bytes(fleet.codebook),
            revision=1,
        )
        for member in fleet.members.values():
            await member.stub.Place(request, timeout=5)
        placed = Placement.of(fleet.codebook, NAMES)
        wanted = {
            n: {
                e
                for e, (h, row) in made.items()
                if h != n and n in placed.nearest(row, placed.copies)
            }
            for n in fleet.members
        }
        await until(lambda: known_to(fleet) == wanted)
        assert any(m.servicer.announcer.unannounced for m in fleet.members.values())
        await silent.stop()


async def refused(call: grpc.aio.UnaryUnaryCall) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details()


async def test_bad_placements_and_announcements_are_refused() -> None:
    async with fleet_of(*NAMES[:2]) as fleet:
        one = fleet.members[NAMES[0]]
        version = await fleet.place()
        peer = worker_pb2.Peer(name=NAMES[0], address=one.address)
        book = to_bytes(fleet.codebook)
        for change, code, message in (
            ({"revision": 0}, "FAILED_PRECONDITION", "revision: 0 is not allowed: at least 1"),
            ({"workers": []}, "INVALID_ARGUMENT", "worker-0, which was asked, among them"),
            ({"workers": [peer, peer]}, "INVALID_ARGUMENT", "workers[1].name"),
            ({"codebook": b"no"}, "INVALID_ARGUMENT", "codebook"),
        ):
            request = {"workers": [peer], "codebook": book, "revision": 2, **change}
            found = await refused(one.stub.Place(worker_pb2.PlaceRequest(**request), timeout=5))
            assert found[0].name == code
            assert message in found[1]
        post = {"tenant": "t", "entry_id": "e", "embedding": packed(unit(1)[0]), "held_levels": [5]}
        for change, changed_post, code, message in (
            ({"fingerprint": "other"}, {}, "FAILED_PRECONDITION", "fingerprint: 'other'"),
            ({"placement": "other"}, {}, "FAILED_PRECONDITION", "placement: 'other'"),
            ({"worker": "stranger"}, {}, "INVALID_ARGUMENT", "worker: 'stranger'"),
            ({}, {"held_levels": [7]}, "INVALID_ARGUMENT", "skipped_steps: 7"),
            ({}, {"held_levels": [0]}, "INVALID_ARGUMENT", "levels above 0"),
            ({}, {"embedding": packed([1.0])}, "INVALID_ARGUMENT", "16, as the codebook has it"),
            ({}, {"embedding": packed([9.0] * 16)}, "INVALID_ARGUMENT", "unit length"),
            ({}, {"entry_id": ""}, "INVALID_ARGUMENT", "signposts[0].entry_id"),
            ({}, {"tenant": "x" * 300}, "INVALID_ARGUMENT", "signposts[0].tenant"),
        ):
            signpost = worker_pb2.Signpost(**{**post, **changed_post})
            request = {
                "worker": NAMES[1],
                "fingerprint": PRINT,
                "placement": version,
                "signposts": [signpost],
                **change,
            }
            found = await refused(
                one.stub.Announce(worker_pb2.AnnounceRequest(**request), timeout=5)
            )
            assert found[0].name == code
            assert message in found[1]
        assert len(one.signposts) == 0


def test_signposts_stay_within_their_bound_and_the_oldest_go() -> None:
    size = entry_bytes(16)
    reserved = [0]

    def reserve(wanted: int) -> bool:
        reserved[0] = wanted
        return True

    posts = Signposts(5 * size, reserve=reserve)
    rows = unit(8)
    for i, row in enumerate(rows):
        assert posts.keep("w", PRINT, [Post(f"e{i}", "t", row, (5,))]) == 1
        assert reserved[0] == posts.used_bytes <= 5 * size
    found = {m.entry_id for m in posts.lookup("t", PRINT, rows[0], 8)}
    assert found == {f"e{i}" for i in range(3, 8)}
    posts.keep("w", PRINT, [Post("e5", "", np.zeros(0, np.float32), ())])
    assert len(posts) == 4
    assert reserved[0] == posts.used_bytes == 4 * size
    assert Signposts(size - 1).keep("w", PRINT, [Post("e", "t", rows[0], (5,))]) == 0
    assert (
        Signposts(size, reserve=lambda _: False).keep("w", PRINT, [Post("e", "t", rows[0], (5,))])
        == 0
    )
