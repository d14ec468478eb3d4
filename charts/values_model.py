"""The chart's values as typed Python: what `values.yaml`, its schema and its reference are made from.

Unknown keys are refused at every level that is Gesso's own; what Kubernetes defines (affinity, volumes, ...) is
passed on as it is, and checked by the API server.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
Label = Annotated[str, Field(pattern=LABEL)]
LabelOrEmpty = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")]
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]*(ms|s|m|h)$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Verbatim = dict[str, Any]


class Strict(BaseModel):
    """Base of all of them: camelCase keys, unknown ones refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Images(Strict):
    """Which container images run."""

    registry: str = Field(
        default="ghcr.io/gesso",
        min_length=1,
        description="Where all three images come from; a mirror is set here, once.",
    )
    tag: str = Field(
        default="", description="Tag of all three; empty: the chart's `appVersion`, that fits it."
    )
    operator: str = Field(
        default="",
        description="The operator's image in full, by tag or digest; empty: REGISTRY/operator:TAG.",
    )
    router: str = Field(
        default="",
        description="The routers' image in full; empty: REGISTRY/router:TAG. A DiffusionService's "
        "`spec.router.image` goes before it.",
    )
    worker: str = Field(
        default="",
        description="The workers' image in full; empty: REGISTRY/worker:TAG, for NVIDIA GPUs. For CPUs: "
        "REGISTRY/worker:TAG-cpu. A DiffusionService's `spec.workers.image` goes before it.",
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When the operator's image is pulled."
    )
    pull_secrets: list[Label] = Field(
        default=[],
        description="Names of the operator's pull secrets, in its namespace. Those of routers and workers lie "
        "in the namespaces of the services: see `podDefaults`.",
    )


class Operator(Strict):
    """The operator's pod."""

    command: list[str] = Field(
        default=[], description="Replaces the image's entry point; its flags follow all the same."
    )
    extra_args: list[str] = Field(default=[], description="Further flags of the operator.")
    extra_env: list[Verbatim] = Field(default=[], description="Further environment variables.")
    extra_volumes: list[Verbatim] = Field(default=[], description="Further volumes of the pod.")
    extra_volume_mounts: list[Verbatim] = Field(
        default=[], description="Further mounts of the container."
    )
    resources: Verbatim = Field(
        default={
            "requests": {"cpu": "200m", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        },
        description="What the container asks for and may use. The planner takes some tens of milliseconds of "
        "one core each time, per service.",
    )
    node_selector: dict[str, str] = Field(
        default={}, description="Labels of the nodes it may run on."
    )
    tolerations: list[Verbatim] = Field(default=[], description="Taints it puts up with.")
    affinity: Verbatim = Field(default={}, description="Node and pod affinity.")
    priority_class_name: str = Field(
        default="", description="Priority class of the pod; empty: the cluster's default."
    )
    pod_annotations: dict[str, str] = Field(default={}, description="Annotations of the pod.")
    pod_labels: dict[str, str] = Field(default={}, description="Further labels of the pod.")
    pod_security_context: Verbatim = Field(
        default={
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        description="Security context of the pod, as the restricted Pod Security standard asks for.",
    )
    security_context: Verbatim = Field(
        default={
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        description="Security context of the container; it writes to /tmp alone, an emptyDir.",
    )
    termination_grace_period_seconds: int = Field(
        default=30, ge=1, le=3600, description="Seconds to stop in."
    )


class PodMetadata(Strict):
    """Labels and annotations of pods."""

    labels: dict[str, str] = Field(default={}, description="Further labels.")
    annotations: dict[str, str] = Field(default={}, description="Further annotations.")


class PodTemplate(Strict):
    """Part of a pod template."""

    metadata: PodMetadata = Field(default=PodMetadata(), description="Labels and annotations.")
    spec: Verbatim = Field(
        default={},
        description="Part of a pod's spec; the containers are named `router` and `worker`.",
    )


class PodDefaults(Strict):
    """What the pods of every DiffusionService have, unless it says otherwise itself: maps are merged,
    containers, environment variables and volumes by their name, mounts by their path, other lists replaced.
    """

    router: PodTemplate = Field(default=PodTemplate(), description="Of the routers' pods.")
    worker: PodTemplate = Field(default=PodTemplate(), description="Of the workers' pods.")


class Crds(Strict):
    """The custom resource definition."""

    install: bool = Field(
        default=True,
        description="Whether the release holds the definition: `helm upgrade` then upgrades it too. Off where "
        "someone else applies `crds/`, or a second release is installed.",
    )
    keep: bool = Field(
        default=True,
        description="Whether it, and with it every DiffusionService, stays when the release is uninstalled.",
    )


class Rbac(Strict):
    """Roles."""

    create: bool = Field(
        default=True, description="Whether the operator's own roles and bindings are made."
    )
    user_roles: bool = Field(
        default=True,
        description="Whether the cluster roles gesso-admin, gesso-editor and gesso-viewer are made, which add "
        "DiffusionServices to Kubernetes' own admin, edit and view. Off in a second release.",
    )


class ServiceAccount(Strict):
    """The operator's service account."""

    create: bool = Field(default=True, description="Whether it is made.")
    name: str = Field(default="", description="Its name; empty: the operator's.")
    annotations: dict[str, str] = Field(default={}, description="Its annotations.")


class ServiceMonitor(Strict):
    """A ServiceMonitor of the Prometheus Operator."""

    enabled: bool = Field(
        default=False, description="Whether it is made; the cluster must know the kind."
    )
    interval: Duration = Field(default="15s", description="How often the operator is scraped.")
    labels: dict[str, str] = Field(
        default={}, description="Labels by which a Prometheus selects it."
    )


class Metrics(Strict):
    """The operator's metrics."""

    service_monitor: ServiceMonitor = Field(
        default=ServiceMonitor(), description="For the Prometheus Operator."
    )


class PrometheusRule(Strict):
    """Alerts."""

    enabled: bool = Field(
        default=False,
        description="Whether a PrometheusRule is made; the cluster must know the kind. The rules as a file: "
        "`manifests/rules/gesso.yaml`.",
    )
    labels: dict[str, str] = Field(
        default={}, description="Labels by which a Prometheus selects it."
    )


class Dashboards(Strict):
    """Grafana's dashboards."""

    enabled: bool = Field(
        default=False,
        description="Whether a ConfigMap with them is made. As files: `manifests/dashboards`.",
    )
    labels: dict[str, str] = Field(
        default={"grafana_dashboard": "1"},
        description="Labels by which Grafana's sidecar finds it.",
    )


class NetworkPolicy(Strict):
    """What the operator may reach, and who may reach it."""

    enabled: bool = Field(
        default=False,
        description="Whether a NetworkPolicy is made: in only on the metrics port, out only to DNS, the API "
        "server, routers and workers.",
    )
    api_server_ports: list[Port] = Field(
        default=[443, 6443], min_length=1, description="Ports that the API server listens on."
    )


class Pdb(Strict):
    """A PodDisruptionBudget for the operator."""

    enabled: bool = Field(
        default=False,
        description="Whether it is made. It lets no drain evict the operator, of which there is one; services "
        "go on serving without it, so that few will want this.",
    )


class HelmTest(Strict):
    """The pod of `helm test`, which asks the operator whether it is ready."""

    python: str = Field(
        default="python", min_length=1, description="The interpreter in the operator's image."
    )


class Values(Strict):
    """All values of the chart."""

    name_override: LabelOrEmpty = Field(
        default="", description="Takes the place of the chart's name in names."
    )
    fullname_override: LabelOrEmpty = Field(
        default="", description="Takes the place of RELEASE-gesso in names."
    )
    watch_namespaces: list[Label] = Field(
        default=[],
        description="Namespaces whose DiffusionServices are looked after, with roles in these alone; empty: "
        "all of them, with a cluster role.",
    )
    lease_name: LabelOrEmpty = Field(
        default="", description="Name of the leader's lease; empty: the operator's."
    )
    images: Images = Field(default=Images(), description=str(Images.__doc__))
    operator: Operator = Field(default=Operator(), description=str(Operator.__doc__))
    pod_defaults: PodDefaults = Field(
        default=PodDefaults(), description=" ".join(str(PodDefaults.__doc__).split())
    )
    crds: Crds = Field(default=Crds(), description=str(Crds.__doc__))
    rbac: Rbac = Field(default=Rbac(), description=str(Rbac.__doc__))
    service_account: ServiceAccount = Field(
        default=ServiceAccount(), description=str(ServiceAccount.__doc__)
    )
    metrics: Metrics = Field(default=Metrics(), description=str(Metrics.__doc__))
    prometheus_rule: PrometheusRule = Field(
        default=PrometheusRule(), description=str(PrometheusRule.__doc__)
    )
    dashboards: Dashboards = Field(default=Dashboards(), description=str(Dashboards.__doc__))
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy(), description=str(NetworkPolicy.__doc__)
    )
    pdb: Pdb = Field(default=Pdb(), description=str(Pdb.__doc__))
    helm_test: HelmTest = Field(default=HelmTest(), description=str(HelmTest.__doc__))
    global_: Verbatim = Field(
        default={},
        alias="global",
        description="What a parent chart shares; Gesso reads none of it.",
    )
