"""What is written to the API server, and what is not; what counts as alive."""

import asyncio
import copy

import pytest

from gesso.api import ServiceStatus
from gesso_operator.cluster.api import ApiError, path_of
from gesso_operator.cluster.applied import Applied
from gesso_operator.cluster.guarded import GuardedApi
from gesso_operator.cluster.manager import Manager
from gesso_operator.cluster.names import Key
from gesso_operator.cluster.runner import Tools, retry_s, told_of
from gesso_operator.cluster.status_writer import StatusWriter, status_of
from gesso_operator.cluster.world import World
from gesso_operator.logs import Log


class Silent(Log):
    def _write(self, level, event, fields):
        pass


class FakeApi:
    """Keeps what is applied as the API server would, with generations."""

    def __init__(self):
        self.applied, self.patched, self.refuses, self.generation = [], [], None, 0

    async def apply(self, body):
        if self.refuses:
            raise self.refuses
        self.generation += 1
        self.applied.append(body["metadata"]["name"])
        meta = {**body["metadata"], "uid": "u", "generation": self.generation}
        return {**copy.deepcopy(body), "metadata": meta}

    async def patch(self, api_version, kind, namespace, name, body, sub=""):
        if self.refuses:
            raise self.refuses
        self.patched.append((name, sub, body))
        return {}


def workload(replicas=1):
    labels = {"gesso.dev/service": "tiny"}
    return {
        "kind": "StatefulSet",
        "metadata": {"namespace": "ns", "name": "w", "labels": labels},
        "spec": {"replicas": replicas},
    }


def seen(generation, uid="u"):
    body = workload()
    body["metadata"] |= {"uid": uid, "generation": generation}
    return body


async def test_only_what_differs_is_applied():
    api, world = FakeApi(), World()
    applied = Applied(api, world)
    assert await applied.apply([workload()]) == 1
    world.owned_event("ADDED", seen(1))
    assert await applied.apply([workload()]) == 0
    assert await applied.apply([workload(2)]) == 1
    # The watch still tells of what was there before: no news.
    assert await applied.apply([workload(2)]) == 0
    world.owned_event("MODIFIED", seen(2))
    assert await applied.apply([workload(2)]) == 0


async def test_what_others_did_is_taken_back():
    api, world = FakeApi(), World()
    applied = Applied(api, world)
    await applied.apply([workload()])
    world.owned_event("ADDED", seen(1))
    world.owned_event("MODIFIED", seen(7))
    assert await applied.apply([workload()]) == 1
    world.owned_event("DELETED", seen(7))
    assert await applied.apply([workload()]) == 1


async def test_after_an_error_it_is_tried_again():
    api = FakeApi()
    applied = Applied(api, World())
    api.refuses = ApiError(403, "Forbidden", "no")
    with pytest.raises(ApiError):
        await applied.apply([workload()])
    api.refuses = None
    assert await applied.apply([workload()]) == 1


async def test_a_status_is_written_once_and_again_after_an_error():
    api = FakeApi()
    writer = StatusWriter(api, Silent("t"))
    key = Key("ns", "tiny")
    status = ServiceStatus(mix="0:1")
    api.refuses = ApiError(0, "Unreachable", "away")
    await writer.write(key, status)
    api.refuses = None
    await writer.write(key, status)
    await writer.write(key, status.model_copy(update={"observed_at": None}))
    assert [(name, sub) for name, sub, _ in api.patched] == [("tiny", "status")]
    await writer.write(key, status.model_copy(update={"mix": "0:2"}))
    assert writer.writes == 2


def test_a_status_that_makes_no_sense_begins_anew():
    assert status_of({"status": {"mix": 7}}) == ServiceStatus()
    assert status_of({}) == ServiceStatus()
    told = ServiceStatus(mix="0:2", desired_mix="0:2")
    assert status_of({"status": {"mix": "0:2", "desiredMix": "0:2"}}).mix == told.mix


def test_a_kind_that_is_too_new_is_waited_for_and_told_as_such():
    unknown = ApiError(
        403,
        "Forbidden",
        'configmaps "a" is forbidden: cannot set blockOwnerDeletion in this case because cannot find '
        "RESTMapping for APIVersion gesso.dev/v1alpha1 Kind DiffusionService: no matches for kind "
        '"DiffusionService"',
    )
    refused = ApiError(403, "Forbidden", 'cannot patch resource "statefulsets"')
    assert [retry_s(n, unknown) for n in (1, 2, 3, 20)] == [1, 2, 2, 2]
    assert [retry_s(n, refused) for n in (1, 2, 3, 20)] == [1, 2, 4, 15]
    assert told_of(unknown)[0] == "KindNotKnownYet"
    assert told_of(refused) == ("Forbidden", 'cannot patch resource "statefulsets"')


async def test_nothing_is_written_by_one_who_does_not_lead():
    leads = False
    api = GuardedApi(FakeApi(), lambda: leads)
    with pytest.raises(ApiError, match="does not hold the Lease"):
        await api.call("PATCH", "/x", {})


def test_paths():
    assert path_of("v1", "Pod", "ns", "p", "status") == "/api/v1/namespaces/ns/pods/p/status"
    assert path_of("apps/v1", "StatefulSet", "ns") == "/apis/apps/v1/namespaces/ns/statefulsets"
    with pytest.raises(KeyError):
        path_of("v1", "Secret", "ns", "s")


async def test_a_loop_that_does_not_go_round_is_told():
    now, world = 0.0, World()
    tools = Tools(
        api=FakeApi(),
        world=world,
        clients=FakeClients,
        writer=StatusWriter(FakeApi(), Silent("t")),
        events=None,
        defaults=None,
        log=Silent("t"),
        leads=lambda: False,
        planner=None,
    )
    manager = Manager(tools, clock=lambda: now)
    world.service_event("ADDED", {"metadata": {"namespace": "ns", "name": "tiny"}})
    await asyncio.sleep(0)
    assert manager.frozen() == []
    # Its own clock is the real one, which has not reached so far.
    now = 1e9
    assert manager.frozen() == ["ns/tiny"]
    world.service_event("DELETED", {"metadata": {"namespace": "ns", "name": "tiny"}})
    assert manager.frozen() == []
    await manager.stop()


class FakeClients:
    def __init__(self, tls):
        self.tls = tls

    async def close(self):
        pass
