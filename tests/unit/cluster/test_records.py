"""What is kept of pods and other objects."""

import pytest

from gesso_operator.cluster.applied import _newer
from gesso_operator.cluster.names import Key, ordinal
from gesso_operator.cluster.records import mark, pod_record
from gesso_operator.cluster.world import World


def pod(name="tiny-worker-0", ready=True, **status):
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": "u",
            "labels": {
                "gesso.dev/service": "tiny",
                "app.kubernetes.io/component": "worker",
                "gesso.dev/skipped-steps": "10",
            },
        },
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            **status,
        },
    }


def waiting(reason, message=""):
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


def test_a_pod_that_serves():
    record = pod_record(pod())
    assert (record.ready, record.ip, record.level, record.reason) == (True, "10.0.0.1", "10", "")
    assert ordinal(record.name) == 0
    assert record.model == ""
    body = pod()
    body["metadata"]["labels"]["gesso.dev/model"] = "turbo"
    assert pod_record(body).model == "turbo"
    assert ordinal("tiny-router-x") == -1


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (waiting("ImagePullBackOff", "no such image"), "ImagePullFailed", "no such image"),
        (waiting("CreateContainerConfigError", 'secret "hf" not found'), "SecretMissing", "hf"),
        (waiting("CreateContainerConfigError", "bad mount"), "BadContainerConfig", "bad mount"),
        (
            {
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "message": "0/1 nodes: 1 Insufficient nvidia.com/gpu.",
                    }
                ]
            },
            "InsufficientGPU",
            "nvidia.com/gpu",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no memory"}]},
            "Unschedulable",
            "no memory",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {
                            "terminated": {
                                "exitCode": 2,
                                "message": "noise\ngesso worker: no such model\n",
                            }
                        },
                    }
                ]
            },
            "Crashing",
            "exit code 2: gesso worker: no such model",
        ),
        (
            {"containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]},
            "Restarting",
            "exit code 1: Error",
        ),
    ],
)
def test_what_keeps_a_pod_from_serving(status, reason, told):
    record = pod_record(pod(ready=False, **status))
    assert record.reason == reason
    assert told in record.message
    assert record.stuck == (reason != "Restarting")


def test_one_that_starts_is_not_stuck():
    assert not pod_record(pod(ready=False, **waiting("ContainerCreating"))).stuck


def test_a_mark_is_that_of_the_spec_where_there_is_a_generation():
    assert mark({"metadata": {"uid": "u", "generation": 3, "resourceVersion": "9"}}) == "u 3"
    assert mark({"metadata": {"uid": "u", "resourceVersion": "9"}}) == "u 9"
    assert _newer("u 10", "u 9")
    assert not _newer("u 9", "u 10")
    assert _newer("other 1", "u 9")


def test_the_world_tells_of_what_changed_and_of_nothing_else():
    world, told = World(), []
    world.on_change(lambda key, owned: told.append((key, owned)))
    tiny = Key("ns", "tiny")
    service = {"metadata": {"namespace": "ns", "name": "tiny", "generation": 1}}
    world.service_event("ADDED", service)
    # Its status, which the operator writes itself, is no news; a new spec is.
    world.service_event("MODIFIED", {**service, "status": {"mix": "0:1"}})
    assert told == [(tiny, False)]
    assert world.services[tiny]["status"] == {"mix": "0:1"}
    world.service_event("MODIFIED", {"metadata": {**service["metadata"], "generation": 2}})
    assert told == [(tiny, False)] * 2
    world.pod_event("ADDED", pod())
    world.pod_event("MODIFIED", pod())
    # Its labels are the operator's own.
    labelled = pod()
    labelled["metadata"]["labels"] |= {"gesso.dev/skipped-steps": "0", "gesso.dev/model": "turbo"}
    world.pod_event("MODIFIED", labelled)
    world.pod_event("MODIFIED", pod(ready=False))
    assert told == [(tiny, False)] * 4
    assert [p.name for p in world.pods(tiny, "worker")] == ["tiny-worker-0"]
    world.pod_event("DELETED", pod())
    assert world.pods(tiny, "worker") == []
    config = {"kind": "ConfigMap", "metadata": {**pod()["metadata"], "resourceVersion": "1"}}
    told.clear()
    world.owned_event("ADDED", config)
    world.owned_event("MODIFIED", config)
    assert told == [(tiny, True)]
    assert world.mark_of("ConfigMap", Key("ns", "tiny-worker-0")) == "u 1"
    world.owned_event("DELETED", config)
    assert world.mark_of("ConfigMap", Key("ns", "tiny-worker-0")) is None


def test_pods_come_in_the_order_of_their_numbers():
    world = World()
    for i in (10, 2, 0):
        world.pod_event("ADDED", pod(f"tiny-worker-{i}"))
    names = [p.name for p in world.pods(Key("ns", "tiny"), "worker")]
    assert names == ["tiny-worker-0", "tiny-worker-2", "tiny-worker-10"]
