"""Deletions that no watch told of."""

import asyncio

import pytest

from gesso_operator.cluster.api import Api, ApiError
from gesso_operator.cluster.names import KIND, Key
from gesso_operator.cluster.sweep import Sweep, missing
from gesso_operator.cluster.world import World
from gesso_operator.logs import Log

LABELS = {"gesso.dev/service": "tiny", "app.kubernetes.io/component": "router"}
TINY = Key("ns", "tiny")


class Quiet(Log):
    def _write(self, level, event, fields):
        pass


class Listed:
    """An API server that lists what it was given."""

    def __init__(self, *there):
        self.there, self.asked, self.meanwhile = set(there), [], lambda: None

    async def names(self, api_version, kind, namespace="", selector=""):
        self.asked.append((kind, namespace, selector))
        self.meanwhile()
        return {key for k, key in self.there if k == kind}


def thing(kind, name, uid="1", labels=LABELS):
    meta = {"namespace": "ns", "name": name, "uid": uid, "generation": 1, "labels": labels}
    return {"kind": kind, "metadata": meta}


@pytest.fixture
def world():
    found = World()
    found.service_event("ADDED", thing(KIND, "tiny"))
    found.pod_event("ADDED", thing("Pod", "r-a"))
    found.pod_event("ADDED", thing("Pod", "r-b"))
    found.owned_event("ADDED", thing("ConfigMap", "c"))
    return found


def sweep(world, api, namespaces=()):
    return asyncio.run(Sweep(api, world, namespaces, Quiet("operator")).once())


ALL = ((KIND, TINY), ("Pod", Key("ns", "r-a")), ("Pod", Key("ns", "r-b")))
CONFIG = ("ConfigMap", Key("ns", "c"))


def test_nothing_is_forgotten_that_is_there(world):
    told = []
    world.on_change(lambda *what: told.append(what))
    assert sweep(world, Listed(*ALL, CONFIG)) == []
    assert (told, len(world.pods(TINY, "router"))) == ([], 2)


def test_what_is_not_there_any_more_is_forgotten_and_told(world):
    told = []
    world.on_change(lambda *what: told.append(what))
    found = sweep(world, Listed(ALL[0], ALL[2]))
    assert set(found) == {ALL[1], CONFIG}
    assert [p.name for p in world.pods(TINY, "router")] == ["r-b"]
    assert world.mark_of(*CONFIG) is None
    assert sorted(told) == [(TINY, False), (TINY, True)]


def test_a_service_that_went_is_forgotten(world):
    assert sweep(world, Listed(*ALL[1:], CONFIG)) == [ALL[0]]
    assert TINY not in world.services


def test_what_came_while_lists_were_read_stays(world):
    """The list of pods was made before the pod came; one of its name was known before."""
    api = Listed(ALL[0], CONFIG)

    def meanwhile():
        world.pod_event("ADDED", thing("Pod", "r-a", uid="2"))
        world.pod_event("ADDED", thing("Pod", "r-c"))

    api.meanwhile = meanwhile
    assert sweep(world, api) == [ALL[2]]
    assert [p.name for p in world.pods(TINY, "router")] == ["r-a", "r-c"]


def test_only_what_is_watched_is_asked_for(world):
    api = Listed(*ALL, CONFIG)
    sweep(world, api, ("a", "b"))
    assert {namespace for _, namespace, _ in api.asked} == {"a", "b"}
    owned = "app.kubernetes.io/managed-by=gesso-operator"
    assert {s for k, _, s in api.asked if k != KIND} == {owned}


def test_missing_is_what_was_known_before_and_still_is():
    before = {CONFIG: "1 1", ALL[1]: "a"}
    assert missing(before, set(), {CONFIG: "1 2"}) == []
    assert missing(before, {ALL[1]}, before) == [CONFIG]


def test_a_list_that_comes_anew_asks_for_a_sweep(world):
    before = world.relisted
    world.pod_event(None, thing("Pod", "r-new"))
    assert world.relisted == before
    world.pod_event(None, thing("Pod", "r-a"))
    assert world.relisted == before + 1


def test_another_service_of_the_same_name_begins_anew(world):
    told = []
    world.on_change(lambda key, _: told.append((key, key in world.services)))
    world.service_event(None, thing(KIND, "tiny", uid="2"))
    assert told == [(TINY, False), (TINY, True)]
    assert len(world.pods(TINY, "router")) == 2


def test_a_list_is_read_to_its_end(monkeypatch):
    api, asked = Api(), []

    async def call(method, path, **given):
        asked.append(path)
        page = len(asked)
        items = [{"metadata": {"namespace": "ns", "name": f"p{page}"}}]
        return {"items": items, "metadata": {"continue": "more&more" if page < 3 else ""}}

    monkeypatch.setattr(api, "call", call)
    found = asyncio.run(api.names("v1", "Pod", selector="a=b"))
    assert found == {Key("ns", f"p{n}") for n in (1, 2, 3)}
    assert asked[0] == "/api/v1/pods?limit=500&labelSelector=a%3Db"
    assert asked[1].endswith("&continue=more%26more")


def test_a_list_that_fails_forgets_nothing(world):
    class Away(Listed):
        async def names(self, *what, **more):
            raise ApiError(410, "Expired", "the continue token is too old")

    with pytest.raises(ApiError):
        sweep(world, Away())
    assert len(world.pods(TINY, "router")) == 2
