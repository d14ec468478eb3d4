"""One tenant reads nothing of another's, by whichever call it tries."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from one_query import one_query, only_answer
from shard_fleet import LADDER, PRINT, SHAPE, fleet_of, latents, unit

from gesso.rpc.v1 import worker_pb2
from gesso.vectors import packed
from gesso_worker.cache import announcer
from gesso_worker.requests import Limits, check_generate
from gesso_worker.starts import StartFinder

NAMES = tuple(f"worker-{i}" for i in range(6))
ROW = unit(1)[0]
READERS = ("", "other", "victim ", "VICTIM", "victim\0", "*")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "PAUSE_S", 0.01)


async def test_no_call_tells_a_tenant_of_anothers_entries() -> None:
    async with fleet_of(*NAMES) as fleet:
        holder = fleet.members[NAMES[0]]
        entry = holder.shard.insert("victim", PRINT, ROW, latents(1.0))
        assert entry is not None
        await fleet.place()
        await fleet.settled()
        assert any(len(m.signposts) for m in fleet.members.values()), "nobody knows of it"
        for member in fleet.members.values():
            for tenant in READERS:
                for limit in (1, 64):
                    request = one_query(tenant=tenant, embedding=packed(ROW), limit=limit)
                    assert not only_answer(await member.stub.Lookup(request, timeout=5))
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await member.stub.FetchLatents(
                        worker_pb2.FetchLatentsRequest(
                            tenant=tenant, entry_id=entry, skipped_steps=10
                        ),
                        timeout=5,
                    )
                assert error.value.code() is grpc.StatusCode.NOT_FOUND
        got = await holder.stub.FetchLatents(
            worker_pb2.FetchLatentsRequest(tenant="victim", entry_id=entry, skipped_steps=10),
            timeout=5,
        )
        assert got.skipped_steps == 10


async def test_a_run_starts_from_its_own_tenants_latents_only() -> None:
    async with fleet_of(*NAMES[:2]) as fleet:
        holder, other = (fleet.members[n] for n in NAMES[:2])
        entry = holder.shard.insert("victim", PRINT, ROW, latents(1.0))
        for member, address in ((holder, ""), (other, holder.address)):
            finder = StartFinder(member.name, member.shard, member.peers, SHAPE)
            for tenant, found in (*((t, 0) for t in READERS), ("victim", 10)):
                request = worker_pb2.WorkerGenerateRequest(
                    prompt="p",
                    skipped_steps=10,
                    source=worker_pb2.LatentSource(
                        entry_id=entry, worker=holder.name, address=address
                    ),
                    tenant=tenant,
                    embedding=packed(ROW),
                )
                spec = check_generate(request, Limits(64, 64, 2.0, LADDER))
                assert (await finder.find(spec, PRINT, 10)).skipped_steps == found


async def test_an_entry_that_is_brought_overwrites_nothing_of_another_tenant() -> None:
    async with fleet_of(NAMES[0]) as fleet:
        holder = fleet.members[NAMES[0]]
        entry = str(holder.shard.insert("victim", PRINT, ROW, latents(1.0)))
        level = worker_pb2.HeldLevel(
            skipped_steps=10,
            shape=SHAPE,
            dtype="float32",
            data=latents(666.0)[10].tobytes(),
            hits=1 << 40,
        )
        request = worker_pb2.StoreEntriesRequest(
            fingerprint=PRINT,
            entries=[worker_pb2.CacheEntry(tenant="other", embedding=packed(ROW), levels=[level])],
        )
        assert (await holder.stub.StoreEntries(request, timeout=5)).stored == [True]
        (match,) = holder.shard.lookup("victim", PRINT, ROW, 8)
        assert match.entry_id == entry
        held = holder.shard.fetch("victim", entry, 10)
        assert held is not None
        assert np.array_equal(held.latents, latents(1.0)[10])


async def test_a_hand_over_keeps_every_entry_its_tenants() -> None:
    async with fleet_of(*NAMES[:2]) as fleet:
        leaving, staying = (fleet.members[n] for n in NAMES[:2])
        leaving.shard.insert("victim", PRINT, ROW, latents(1.0), origin="r1.ab")
        request = worker_pb2.HandOverRequest(
            targets=[worker_pb2.Peer(name=staying.name, address=staying.address)],
            timeout_seconds=5,
        )
        assert (await leaving.stub.HandOver(request, timeout=10)).entries == 1
        assert all(not staying.shard.lookup(t, PRINT, ROW, 8) for t in READERS)
        (match,) = staying.shard.lookup("victim", PRINT, ROW, 8)
        request = worker_pb2.WithdrawRequest(request_ids=["r1"])
        assert (await staying.stub.Withdraw(request, timeout=5)).latents == 2
        assert staying.shard.fetch("victim", match.entry_id, 10) is None


async def test_what_was_withdrawn_is_served_by_nobody() -> None:
    async with fleet_of(*NAMES) as fleet:
        holder = fleet.members[NAMES[0]]
        entry = holder.shard.insert("t", PRINT, ROW, latents(1.0), origin="r1.ab")
        await fleet.place()
        await fleet.settled()
        request = worker_pb2.WithdrawRequest(request_ids=["r1"])
        told = [(await m.stub.Withdraw(request, timeout=5)).latents for m in fleet.members.values()]
        assert told == [2, 0, 0, 0, 0, 0]
        assert holder.shard.fetch("t", str(entry), 10) is None
        await fleet.settled()
        for member in fleet.members.values():
            lookup = one_query(tenant="t", embedding=packed(ROW), limit=8)
            assert not only_answer(await member.stub.Lookup(lookup, timeout=5))
        assert holder.shard.insert("t", PRINT, ROW, latents(1.0), origin="r1.ab") is None
        assert holder.shard.insert("t", PRINT, ROW, latents(1.0), origin="r2.ab") is not None


@pytest.mark.parametrize("ids", [[""], ["x" * 300], ["r"] * 300])
async def test_bad_withdrawals_are_refused(ids: list[str]) -> None:
    async with fleet_of(NAMES[0]) as fleet:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await fleet.members[NAMES[0]].stub.Withdraw(
                worker_pb2.WithdrawRequest(request_ids=ids), timeout=5
            )
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "request_ids" in error.value.details()


async def test_latents_that_are_not_finite_are_not_kept() -> None:
    async with fleet_of(NAMES[0]) as fleet:
        shard = fleet.members[NAMES[0]].shard
        bad = latents(1.0)
        bad[5] = bad[5] * np.float32("nan")
        assert shard.insert("t", PRINT, ROW, bad) is None
        assert shard.stats().entries == 0
