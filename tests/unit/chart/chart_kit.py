"""Renders the chart, and judges what comes out."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "gesso"
RELEASES = tuple(f"1.{minor}.0" for minor in range(29, 37))
Object = dict[str, Any]

#: Values of the chart by what they are for.
VALUE_SETS: Mapping[str, Object] = {
    "defaults": {},
    "two namespaces": {"watchNamespaces": ["images", "studio"]},
    "everything": {
        "images": {"registry": "mirror.example/gesso", "tag": "1.2.3", "pullSecrets": ["mirror"]},
        "operator": {
            "command": ["/bin/python", "-m", "gesso_operator.cluster"],
            "extraArgs": ["--verbose"],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "system-cluster-critical",
            "podAnnotations": {"a": "1"},
            "podLabels": {"team": "images"},
        },
        "podDefaults": {
            "worker": {"spec": {"runtimeClassName": "nvidia", "imagePullSecrets": [{"name": "x"}]}},
            "router": {"metadata": {"annotations": {"sidecar": "no"}}},
        },
        "serviceAccount": {"name": "gesso", "annotations": {"role": "x"}},
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "pdb": {"enabled": True},
    },
    "least": {
        "crds": {"install": False},
        "rbac": {"create": False, "userRoles": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "fullnameOverride": "ge",
        "leaseName": "leader",
    },
    "a parent's globals": {"global": {"region": "eu"}, "crds": {"keep": False}},
}


def template(
    helm: Path, values: Object, release: str = "gesso", kubernetes: str = "1.36.0"
) -> subprocess.CompletedProcess[str]:
    """`helm template` with these values."""
    return subprocess.run(
        [
            *(helm, "template", release, CHART, "--namespace", "gesso-system", "--values", "-"),
            *("--kube-version", kubernetes),
        ],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        timeout=60,
    )


def rendered(helm: Path, values: Object, release: str = "gesso") -> list[Object]:
    """All that the chart makes of these values."""
    return copy.deepcopy(_rendered(helm, json.dumps(values), release))


@functools.cache
def _rendered(helm: Path, values: str, release: str) -> list[Object]:
    done = template(helm, json.loads(values), release)
    assert done.returncode == 0, done.stderr
    return [d for d in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if d]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Those of these kinds."""
    return [o for o in objects if o["kind"] in kinds]


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """The pod specs in them, each with its owner's name."""
    for o in objects:
        if o["kind"] == "Pod":
            yield o["metadata"]["name"], o["spec"]
        elif "template" in o.get("spec", {}):
            yield o["metadata"]["name"], o["spec"]["template"]["spec"]


def restricted_faults(spec: Object) -> list[str]:
    """What the restricted Pod Security standard has against a pod, in words; nothing where it is restricted."""
    faults = []
    pod = spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            faults.append(f"{name} is set")
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
    allowed.add("persistentVolumeClaim")
    for volume in spec.get("volumes", ()):
        for kind in set(volume) - {"name"} - allowed:
            faults.append(f"volume {volume['name']} is a {kind}")
    for c in (*spec.get("initContainers", ()), *spec["containers"]):
        own = c.get("securityContext", {})
        both = {**pod, **own}
        if own.get("privileged"):
            faults.append(f"{c['name']} is privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            faults.append(f"{c['name']} may escalate privileges")
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            faults.append(f"{c['name']} may run as root")
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            faults.append(f"{c['name']} has no seccomp profile")
        if "ALL" not in own.get("capabilities", {}).get("drop", ()):
            faults.append(f"{c['name']} keeps capabilities")
        if set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
            faults.append(f"{c['name']} adds capabilities")
        if any(p.get("hostPort") for p in c.get("ports", ())):
            faults.append(f"{c['name']} takes a port of the host")
    return faults
