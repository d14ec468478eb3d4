"""The file of `gesso profile`, as planner and simulator read it."""

import json

import pytest

from gesso.csv_input import InputError
from gesso.profile_file import ProfileFile, load_profile_file
from gesso.profile_table import read_profile


def document():
    times = {"mean": 0.1, "p95": 0.12}
    return {
        "format": "gesso-profile/1",
        "device": "some GPU",
        "threads": 1,
        "versions": {"torch": "2.13.0"},
        "measured_at": "2026-01-02T03:04:05Z",
        "models": [
            {
                "name": "",
                "source": "some/model",
                "steps": 50,
                "width": 1024,
                "height": 1024,
                "scheduler": "Euler",
                "dtype": "float16",
                "guidance_scale": 5.0,
                "encode_seconds": times,
                "decode_seconds": {"mean": 0.2, "p95": 0.2},
                "step_seconds": [
                    {"batch": 1, "mean": 0.04, "p95": 0.05},
                    {"batch": 4, "mean": 0.1, "p95": 0.1},
                ],
                "latencies": [
                    {"skipped_steps": 0, "batch": 1, "mean": 2.3, "p95": 2.53},
                    {"skipped_steps": 25, "batch": 1, "mean": 1.3, "p95": 1.43},
                ],
            }
        ],
        "fetch_seconds": {"bytes": 131072, "p50": 0.001, "p95": 0.002, "p99": 0.003},
        "switches": [{"before": "", "after": "fast", "load_seconds": 4, "warmup_seconds": 2}],
    }


def written(tmp_path, body):
    path = tmp_path / "profile.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return path


def test_it_becomes_a_profile_with_batches_between_measured_ones(tmp_path):
    fit = read_profile(written(tmp_path, document()), 50)
    profile = fit.profile
    assert (profile.device, profile.steps) == ("some GPU", 50)
    assert profile.step_seconds == pytest.approx((0.04, 0.06, 0.08, 0.1))
    assert profile.fixed_seconds == pytest.approx(0.3)
    assert profile.p95_ratio == pytest.approx(1.1)
    assert fit.most_residual == pytest.approx(0, abs=1e-9)


def test_it_is_read_as_it_was_written(tmp_path):
    found = ProfileFile.model_validate(document())
    assert load_profile_file(written(tmp_path, found.model_dump_json())) == found


def without(path):
    body = document()
    at = body
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    return body


def changed(path, value):
    body = document()
    at = body
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return body


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{", "the file"),
        (changed(["format"], "other/2"), "format: 'other/2' is not allowed"),
        (without(["models", 0, "steps"]), "models.0.steps"),
        (changed(["models", 0, "step_seconds", 0, "mean"], 0), "models.0.step_seconds.0.mean: 0"),
        (changed(["models", 0, "step_seconds", 0, "mean"], float("nan")), "step_seconds.0.mean"),
        (changed(["models", 0, "step_seconds", 0, "batch"], 4), "batches [4, 4]"),
        (changed(["models", 0, "latencies", 0, "skipped_steps"], 50), "below steps (50)"),
        (changed(["models"], []), "models: [] is not allowed"),
        (changed(["more"], 1), "more: 1 is not allowed"),
    ],
)
def test_what_is_wrong_is_told_by_field(tmp_path, body, told):
    path = written(tmp_path, body)
    with pytest.raises(InputError) as error:
        read_profile(path, 50)
    assert str(path) in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_profile_of_other_steps_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"models\.steps: 50 is not allowed: the model's steps, 30"
    ):
        read_profile(written(tmp_path, document()), 30)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_profile(tmp_path / "none.json", 50)
