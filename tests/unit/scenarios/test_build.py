"""Scenarios and users' files as runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gesso.api import ModelSpec, parse_service
from gesso.profile_table import Latency, ProfileFit, fit_profile
from gesso_simulator.data import sources
from gesso_simulator.data.sources import Sources, data_folder, load_sources, substitutes
from gesso_simulator.inputs.prompts import PromptLog
from gesso_simulator.inputs.quality_table import QualityTable
from gesso_simulator.inputs.trace import Trace
from gesso_simulator.scenarios.build import Wishes, build, build_given, slo_seconds
from gesso_simulator.scenarios.cached import latent_bytes
from gesso_simulator.scenarios.catalogue import SCENARIOS
from gesso_simulator.scenarios.fleets import JITTER, jitter_of, p95_ratio
from gesso_simulator.scenarios.spec import ScenarioRun

FULL_S = 4.2 / 1.65
SERVICE = """
apiVersion: gesso.dev/v1alpha1
kind: DiffusionService
metadata: {name: day}
spec:
  model: {source: "builtin://tiny-sdxl", steps: 30, width: 64, height: 64}
  variants: [{skippedSteps: [0, 6, 12]}]
  slo: {latencySeconds: 9, attainment: 0.97, minRelativeQuality: 0.8}
  workers: {min: 3, max: 5, maxBatch: 4}
  scheduling: {planIntervalSeconds: 7}
  router: {replicas: 2, maxQueue: 100}
"""


def made(name: str, **more: object) -> ScenarioRun:
    return build(name, sources=substitutes(), **more)  # type: ignore[arg-type]


def given_trace(*counts: int) -> Trace:
    n = len(counts)
    return Trace(np.arange(n) * 60.0, np.full(n, 60.0), np.array(counts, dtype=np.int64))


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_resolves_the_same_way_twice(name: str) -> None:
    run, again = made(name, seed=3), made(name, seed=3)
    work = run.workload
    assert np.array_equal(work.arrival_s, again.workload.arrival_s)
    assert np.array_equal(work.quality, again.workload.quality)
    assert not np.array_equal(work.arrival_s[:50], made(name, seed=4).workload.arrival_s[:50])
    assert len(work) == work.offered.sum()
    assert np.all(np.diff(work.arrival_s) >= 0)
    assert 0 <= work.arrival_s[0] <= work.arrival_s[-1] <= work.duration_s
    assert work.quality.shape == work.predicted.shape == (10_000, len(run.variants))
    assert work.prompt[:3].tolist() == [0, 1, 2]
    assert work.prompt.max() < 10_000
    assert run.ladder == (0, 5, 10, 15, 20, 25)
    assert run.slo_s == pytest.approx(5 * FULL_S)
    assert run.origin == "synthetic"


@pytest.mark.parametrize(
    ("name", "mean", "peak"),
    [
        ("twitter", 0.73, 2.07),
        ("twitter-heavy", 1.25, 2.07),
        ("model-family", 1.25, 3.0),
        ("two-gpu-classes", 0.73, 2.07),
    ],
)
def test_days_have_their_mean_and_peak_of_the_fleets_capacity(
    name: str, mean: float, peak: float
) -> None:
    for day in (0, 1, 2):
        run = made(name, day=day)
        work = run.workload
        assert work.duration_s == 800 * 60
        assert len(work) / work.duration_s / run.full_capacity == pytest.approx(mean, rel=0.002)
        # Counts are whole: one request of a minute's 200 or more.
        assert work.offered.max() / 60 / run.full_capacity == pytest.approx(peak, rel=0.01)
        assert (run.history is not None) == (day > 0)
    assert not np.array_equal(made(name).workload.offered, made(name, raw=True).workload.offered)


def test_the_published_fleet() -> None:
    run = made("bursty")
    assert len(run.workers) == 8
    assert 60 * run.full_capacity == pytest.approx(188.6, abs=0.05)
    for k in run.ladder:
        assert run.classes[0].own.latency_seconds(k) == pytest.approx(FULL_S * (50 - k) / 50)
    assert run.jitter == pytest.approx(JITTER)
    assert run.workload.offered.max() == pytest.approx(390, abs=1)
    assert run.workload.offered.min() == pytest.approx(50, abs=1)


def test_load_is_relative_to_the_fleet_and_scaled() -> None:
    base = made("constant")
    assert len(base.workload) == pytest.approx(base.full_capacity * 3600, abs=1)
    half = made("constant", wishes=Wishes(load_scale=0.5))
    assert len(half.workload) == pytest.approx(len(base.workload) / 2, abs=1)
    double = made("constant", wishes=Wishes(workers=16))
    assert len(double.workload) == pytest.approx(2 * len(base.workload), abs=1)


def test_a_quarter_of_the_workers_is_lost_at_the_peak_and_comes_back() -> None:
    run = made("worker-loss")
    peak = run.workload.step_starts[int(run.workload.offered.argmax())]
    lost = [e for e in run.events if e.kind == "lost"]
    back = [e for e in run.events if e.kind == "back"]
    assert [e.worker for e in lost] == [e.worker for e in back] == ["worker-6", "worker-7"]
    assert all(abs(e.at_s - peak) <= 900 for e in lost)
    assert all(b.at_s - e.at_s == 1200 for e, b in zip(lost, back, strict=True))


def test_two_classes_of_gpus() -> None:
    run = made("two-gpu-classes")
    fast, slow = run.classes
    assert [w.device.name for w in run.workers] == [fast.name] * 4 + [slow.name] * 4
    assert slow.own.latency_seconds(0) == pytest.approx(FULL_S / 0.55 + 0.28)
    assert slow.own.device == slow.name
    odd = made("two-gpu-classes", wishes=Wishes(workers=5))
    assert [w.device.name for w in odd.workers].count(fast.name) == 3


@pytest.mark.parametrize("name", ["model-family", "flash-crowd-family"])
def test_a_family_has_one_more_variant(name: str) -> None:
    run = made(name)
    assert [v.name for v in run.variants] == ["0", "5", "10", "15", "20", "25", "lightning"]
    assert run.models == ("", "lightning")
    device = run.classes[0]
    assert device.profiles["lightning"].latency_seconds(0) == pytest.approx(0.09 * FULL_S)
    assert device.load_seconds == {"": 47, "lightning": 47}
    assert np.all(run.workload.quality[:, -1] == 0.88)
    assert np.all(run.workload.predicted[:, -1] == 0.88)
    assert any("assumed" in note for note in run.notes)


def test_a_services_other_model_takes_the_place_of_the_scenarios() -> None:
    light = "{name: light, model: {source: x, steps: 3, quality: 0.7}}"
    ladder = "{name: default, skippedSteps: [0, 6, 12]}"
    text = SERVICE.replace("[{skippedSteps: [0, 6, 12]}]", f"[{ladder}, {light}]")
    service = parse_service(text)
    run = made("model-family", wishes=Wishes(service=service))
    assert run.models == ("", "light")
    (device,) = run.classes
    # A step as long as one of the own model, of which an image has thirty.
    assert device.profiles["light"].latency_seconds(0) == pytest.approx(
        device.own.latency_seconds(0) / 10
    )
    assert np.all(run.workload.quality[:, -1] == 0.7)
    assert any("light: relative quality 0.7" in note and "assumed" in note for note in run.notes)
    own = device.own
    quick = replace(own, steps=3, step_seconds=(0.01,))
    fit = ProfileFit(own, 0.0, 0.0, {"light": quick}, {"": 9.0, "light": 4.0})
    measured = made("two-gpu-classes", wishes=Wishes(service=service, profile=fit))
    fast, slow = measured.classes
    assert fast.profiles["light"] == quick
    assert slow.profiles["light"].step_seconds[0] > quick.step_seconds[0]
    assert fast.load_seconds == slow.load_seconds == {"": 9.0, "light": 4.0}
    assert any("4 s to load (measured)" in note for note in measured.notes)


def test_an_elastic_fleet_has_days_behind_it() -> None:
    run = made("elastic")
    assert run.elastic is not None
    assert run.history is not None
    assert (run.elastic.least, run.elastic.most, run.elastic.start_seconds) == (2, 16, 180)
    assert 2 <= run.elastic.initial < 12
    assert run.workload.duration_s == 3 * 86400
    per_worker = run.full_capacity / 16
    assert run.workload.offered.max() / 300 / per_worker == pytest.approx(12, rel=0.002)
    assert run.history.step_seconds == 300
    assert len(run.history.counts) == 3 * 288
    smaller = made("elastic", wishes=Wishes(workers=1))
    assert smaller.elastic is not None
    assert (smaller.elastic.least, smaller.elastic.initial) == (1, 1)


def test_without_recordings_the_projects_own_day_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sources.ENVIRONMENT, str(tmp_path / "nowhere"))
    assert build("twitter").origin == "synthetic"
    assert data_folder({sources.ENVIRONMENT: "/data"}) == Path("/data")
    assert data_folder({}).parts[-2:] == ("shared", "data")


def test_recorded_days_are_used_where_they_are() -> None:
    found = load_sources()
    if found.origin != "recorded":
        pytest.skip(f"no recordings in {data_folder()}: set {sources.ENVIRONMENT}")
    run = build("twitter", sources=found)
    assert run.origin == "recorded"
    assert len(run.workload) == pytest.approx(0.73 * 800 * 188.57, rel=0.002)
    similarity = run.workload.similarity
    assert np.percentile(similarity, 50) == pytest.approx(0.712, abs=0.005)
    assert np.isnan(found.minutes[1411:1440]).all(), "the hole before midnight was not observed"


@pytest.mark.parametrize(
    ("text", "seconds"), [("3x", 6.0), ("12", 12.0), ("12.5s", 12.5), (".5x", 1.0), (" 5x ", 10.0)]
)
def test_slo(text: str, seconds: float) -> None:
    assert slo_seconds(text, 2.0) == seconds


@pytest.mark.parametrize("text", ["", "x", "0", "-3x", "nan", "3y", "1e9", "5xx", "4000"])
def test_bad_slos_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"slo: .* is not allowed: a multiple"):
        slo_seconds(text, 2.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workers", 0),
        ("workers", 5000),
        ("load_scale", 0.0),
        ("load_scale", float("nan")),
        ("load_scale", float("inf")),
        ("plan_interval_s", 0.0),
        ("plan_interval_s", float("nan")),
    ],
)
def test_bad_wishes_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field.removesuffix('_s')}: .* is not allowed"):
        Wishes(**{field: value})  # type: ignore[arg-type]


def test_unknown_names_and_days_are_refused() -> None:
    with pytest.raises(ValueError, match="scenario: tweets is not allowed: twitter, "):
        made("tweets")
    with pytest.raises(ValueError, match="day: -1 is not allowed"):
        made("twitter", day=-1)
    with pytest.raises(ValueError, match="day: 10 is not allowed: 0 to 9"):
        made("elastic", day=10)


def test_a_users_trace_with_everything_else_from_the_service() -> None:
    wishes = Wishes(service=parse_service(SERVICE, "day.yaml"))
    run = build_given(given_trace(30, 60), wishes=wishes, sources=substitutes())
    assert run.name == "trace"
    assert run.origin == "given"
    assert run.workload.offered.tolist() == [30, 60]
    assert run.ladder == (0, 6, 12)
    assert run.steps == 30
    assert run.slo_s == 9
    assert (run.attainment, run.min_quality, run.plan_interval_s) == (0.97, 0.8, 7)
    assert (len(run.workers), run.max_queue) == (5, 200)
    assert run.elastic is not None
    assert (run.elastic.least, run.elastic.most) == (3, 5)
    assert any("prompts: synthetic" in note for note in run.notes)
    fixed = build_given(given_trace(30), wishes=replace(wishes, workers=4), sources=substitutes())
    assert fixed.elastic is None
    assert len(fixed.workers) == 4


def test_a_measured_profile_sets_times_batch_and_jitter() -> None:
    latencies = [
        Latency(k, b, 1 + (50 - k) * tick, 1.1 * (1 + (50 - k) * tick))
        for k in (0, 25)
        for b, tick in ((1, 0.1), (2, 0.15))
    ]
    fit = fit_profile(latencies, 50, "gpu")
    run = build_given(given_trace(9), wishes=Wishes(profile=fit, slo="2x"), sources=substitutes())
    assert run.slo_s == pytest.approx(12)
    assert run.max_batch == 2
    assert p95_ratio(run.jitter) == pytest.approx(1.1)
    assert run.classes[0].name == "gpu"
    wrong = Wishes(profile=fit, service=parse_service(SERVICE, "day.yaml"))
    with pytest.raises(ValueError, match="profile: 50 steps are not allowed: the model has 30"):
        build_given(given_trace(9), wishes=wrong, sources=substitutes())


@pytest.mark.parametrize("jitter", [0.001, 0.02, 0.3, 1.0])
def test_jitter_and_its_percentile_are_inverse(jitter: float) -> None:
    assert jitter_of(p95_ratio(jitter)) == pytest.approx(jitter)


def small_table(**more: object) -> QualityTable:
    quality = np.array([[1, 0.9], [1, 0.8], [1, 0.7]])
    return QualityTable((0, 5), np.array([7, 8, 9]), np.full(3, 0.5), quality, **more)  # type: ignore[arg-type]


def test_a_log_is_joined_with_its_table_by_row() -> None:
    log = PromptLog(np.array([9, 7]), ("b", "a"), np.array([0.1, 0.2]))
    run = build_given(given_trace(5), wishes=Wishes(log=log, table=small_table()))
    work = run.workload
    assert work.prompt.tolist() == [0, 1, 0, 1, 0]
    assert work.prompt_rows.tolist() == [9, 7]
    assert work.quality.tolist() == [[1, 0.7], [1, 0.9]]
    assert work.similarity.tolist() == [0.1, 0.2]
    assert work.predicted == pytest.approx(np.array([[1, 0.8], [1, 0.8]]))
    bare = replace(log, similarity=None)
    run = build_given(given_trace(5), wishes=Wishes(log=bare, table=small_table()))
    assert run.workload.similarity.tolist() == [0.5, 0.5]
    stray = PromptLog(np.array([7, 3]), ("a", "b"))
    with pytest.raises(ValueError, match="prompt_row: 3 is not allowed: one of the quality table"):
        build_given(given_trace(5), wishes=Wishes(log=stray, table=small_table()))


def test_a_table_alone_brings_its_held_out_prompts() -> None:
    table = small_table(
        learning=np.array([True, False, False]), heldout=np.array([False, False, True])
    )
    work = build_given(given_trace(2), wishes=Wishes(table=table)).workload
    assert work.prompt_rows.tolist() == [9]
    assert work.quality.tolist() == [[1, 0.7]]
    assert work.predicted.tolist() == [[1, 0.9]]


def test_a_ladder_beyond_the_table_is_refused() -> None:
    wishes = Wishes(table=small_table(), service=parse_service(SERVICE, "day.yaml"))
    with pytest.raises(ValueError, match="ladder: K = 6,12 is not allowed: the quality table has"):
        build_given(given_trace(2), wishes=wishes)


def test_a_log_without_similarities_is_embedded_and_looked_up_or_refused() -> None:
    log = PromptLog(np.arange(3), ("a", "b", "a"))
    same = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    wishes = Wishes(log=log, embed=lambda texts: same[: len(texts)], embedded_by="by hand")
    run = build_given(given_trace(5), wishes=wishes, sources=substitutes())
    work = run.workload
    assert np.isnan(work.similarity).all()
    assert run.cache is not None
    assert run.cache() is not run.cache()
    assert any("by hand" in note for note in run.notes)
    # Asked again, a prompt is the same prompt, but the best cache has it by then.
    assert work.prompt_rows[work.prompt].tolist() == [0, 1, 2, 0, 1]
    assert len(set(work.prompt.tolist())) == 5
    assert np.all(work.quality[work.prompt[3:], -1] > work.quality[work.prompt[:2], -1])
    assert run.quality_at is not None
    found = run.quality_at(np.array([1, 1, 4]), np.array([0.5, 1.0, 1.0]))
    assert found[0].tolist() == work.quality[1].tolist()
    assert found[2].tolist() == found[1].tolist() == work.quality[4].tolist()
    with pytest.raises(ValueError, match="similarity: missing is not allowed"):
        build_given(given_trace(3), wishes=Wishes(log=log))


def test_a_scenario_on_a_users_prompts_keeps_its_recorded_load() -> None:
    mine = Sources("synthetic", substitutes().minutes, substitutes().log)
    run = build("twitter", wishes=Wishes(table=small_table()), sources=mine)
    assert run.origin == "synthetic"
    assert build("constant", wishes=Wishes(table=small_table()), sources=mine).origin == "given"


def test_bytes_of_a_latent_follow_from_the_model() -> None:
    assert latent_bytes(None) == 131_072
    sdxl = ModelSpec(source="stabilityai/stable-diffusion-xl-base-1.0")
    assert latent_bytes(sdxl) == 131_072
    assert latent_bytes(sdxl.model_copy(update={"dtype": "bfloat16"})) == 262_144
    tiny = ModelSpec(source="builtin://tiny-sdxl", width=64, height=64, dtype="float32")
    assert latent_bytes(tiny) == 4 * 16 * 8 * 8
