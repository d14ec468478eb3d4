"""A user's partial pod template over the operator's."""

from hypothesis import given
from hypothesis import strategies as st

from gesso_operator.cluster.overlay import merged

BASE = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [
            {
                "name": "worker",
                "image": "x",
                "args": ["--a"],
                "env": [{"name": "A", "value": "1"}],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "nodeSelector": {"disk": "ssd"},
    },
}


def test_containers_env_volumes_and_mounts_are_merged_by_what_names_them():
    over = {
        "spec": {
            "containers": [
                {"name": "sidecar", "image": "s"},
                {
                    "name": "worker",
                    "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}],
                    "volumeMounts": [{"mountPath": "/tmp", "name": "fast"}],
                },
            ],
            "volumes": [{"name": "fast", "emptyDir": {"medium": "Memory"}}],
        }
    }
    found = merged(BASE, over)
    worker, sidecar = found["spec"]["containers"]
    assert sidecar == {"name": "sidecar", "image": "s"}
    assert worker["image"] == "x"
    assert worker["env"] == [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]
    assert worker["volumeMounts"] == [{"name": "fast", "mountPath": "/tmp"}]
    assert [v["name"] for v in found["spec"]["volumes"]] == ["tmp", "fast"]


def test_other_lists_are_replaced_and_null_removes():
    over = {"spec": {"nodeSelector": None, "containers": [{"name": "worker", "args": ["--b"]}]}}
    found = merged(BASE, over)
    assert found["spec"]["containers"][0]["args"] == ["--b"]
    assert "nodeSelector" not in found["spec"]


def test_nothing_changes_what_was_given():
    before = repr(BASE)
    merged(
        BASE, {"spec": {"containers": [{"name": "worker", "env": [{"name": "A", "value": "9"}]}]}}
    )
    assert repr(BASE) == before


trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: (
        st.dictionaries(st.sampled_from(["a", "b", "args", "env"]), inner, max_size=3)
        | st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("xyz")}),
            unique_by=lambda d: d["name"],
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(trees)
def test_laid_over_itself_it_stays(tree):
    assert merged(tree, tree) == tree
    assert merged(tree, {}) == tree if isinstance(tree, dict) else True
