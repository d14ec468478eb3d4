"""The bounds of a run: its arrivals, curves and fleet as the linear programs want them."""

from __future__ import annotations

import numpy as np

from gesso_simulator.bounds import BoundInstance, Elastic, Models, Workers, bound
from gesso_simulator.reports.figures import BoundFigures, Bounds
from gesso_simulator.scenarios.spec import DeviceClass, ScenarioRun

#: Largest share of violations that an elastic fleet's bound may use: the attainment that is asked for.
ELASTIC_VIOLATIONS = 0.005


def bounds_of(run: ScenarioRun) -> Bounds:
    """Both bounds: of an elastic fleet those on worker-hours, of others those on violations and quality.

    A bound on worker-hours is left out where the aim is out of reach.
    """
    instance = instance_of(run)
    found: dict[str, BoundFigures] = {}
    for name, informed in (("informed", True), ("clairvoyant", False)):
        best = bound(instance, informed=informed)
        hours = best.worker_hours if run.elastic is not None else None
        if hours is None or np.isfinite(hours):
            found[name] = BoundFigures(best.violation_ratio, best.relative_quality, hours)
    return found


def instance_of(run: ScenarioRun) -> BoundInstance:
    """What a bound is asked about; prompts with equal predictions are of one class."""
    work = run.workload
    _, classes = np.unique(np.round(work.predicted, 9), axis=0, return_inverse=True)
    classes = classes.ravel()
    service = np.array(
        [[_service(run, device, i) for i in range(len(run.variants))] for device in run.classes]
    )
    own = [v for v in run.variants if not v.model]
    models = None
    if len(own) < len(run.variants):
        names = run.models
        loads = np.array([run.classes[0].load_seconds[name] for name in names])
        switch = np.broadcast_to(loads, (len(names), len(names))) * (1 - np.eye(len(names)))
        first = tuple(float(sum(w.model == name for w in run.workers)) for name in names)
        of_variant = np.array([names.index(v.model) for v in run.variants], dtype=np.int64)
        models = Models(of_variant, np.asarray(switch, dtype=np.float64), first)
    elastic = None
    if run.elastic is not None:
        e = run.elastic
        elastic = Elastic(
            e.least, e.most, e.start_seconds, e.least_mean_quality, ELASTIC_VIOLATIONS
        )
    return BoundInstance(
        arrivals_s=work.arrival_s,
        quality=work.quality[work.prompt],
        class_of=classes[work.prompt].astype(np.int64),
        slo_s=run.slo_s,
        service_s=service,
        workers=_workers(run),
        at_once=run.max_batch,
        end_s=work.duration_s,
        models=models,
        elastic=elastic,
    )


def _service(run: ScenarioRun, device: DeviceClass, variant: int) -> float:
    """Worker-seconds of an image; those of the best batch where workers batch."""
    v = run.variants[variant]
    profile = device.profiles[v.model]
    return min(
        profile.work_seconds(v.skipped_steps, b)
        for b in range(1, min(run.max_batch, profile.max_batch) + 1)
    )


def _workers(run: ScenarioRun) -> Workers:
    """Workers of each device class over time, as they are lost and come back."""
    names = [d.name for d in run.classes]
    counts = np.array(
        [sum(w.device.name == n for w in run.workers) for n in names], dtype=np.float64
    )
    device = {w.name: names.index(w.device.name) for w in run.workers}
    times, rows = [0.0], [counts.copy()]
    for event in sorted(run.events, key=lambda e: e.at_s):
        counts[device[event.worker]] += -1 if event.kind == "lost" else 1
        if event.at_s == times[-1]:
            rows[-1] = counts.copy()
        else:
            times.append(event.at_s)
            rows.append(counts.copy())
    return Workers(np.array(times), np.array(rows))
