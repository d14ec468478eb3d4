"""The CustomResourceDefinition, made from the typed model: `python -m gesso.api.crd` prints it."""

from __future__ import annotations

import sys
from typing import Any

import yaml

from gesso.api.base import GROUP, KIND, VERSION
from gesso.api.crd_schema import structural
from gesso.api.rules import RULES
from gesso.api.service import DiffusionService, ServiceSpec
from gesso.api.status import ServiceStatus

NAME = f"diffusionservices.{GROUP}"
_READY = '.status.conditions[?(@.type=="Ready")]'
#: Columns of `kubectl get`: name, type, path, what it says.
COLUMNS = (
    ("Ready", "string", f"{_READY}.status", "Whether images are served."),
    ("Reason", "string", f"{_READY}.reason", "Why, or why not."),
    ("Workers", "string", ".status.workers.summary", "Ready of desired workers."),
    ("Mix", "string", ".status.mix", "Workers by skipped steps."),
    ("SLO", "string", ".status.slo.summary", "Served in time, over the last minute."),
    (
        "Quality",
        "number",
        ".status.quality",
        "Mean predicted relative quality, over the last minute.",
    ),
    ("Age", "date", ".metadata.creationTimestamp", "Since it was made."),
)


def crd() -> dict[str, Any]:
    """The CRD as a mapping."""
    status = structural(ServiceStatus, "status")
    # Server-side apply merges conditions by their type.
    status["properties"]["conditions"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": "diffusionservices",
                "singular": "diffusionservice",
                "shortNames": ["dsvc"],
                "categories": ["all", "gesso"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "description": says}
                        for name, kind, path, says in COLUMNS
                    ],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.workers.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {
                        "openAPIV3Schema": {
                            "description": (DiffusionService.__doc__ or "").strip(),
                            "type": "object",
                            "required": ["spec"],
                            "x-kubernetes-validations": [r.as_schema() for r in RULES if not r.at],
                            "properties": {
                                "apiVersion": {
                                    "type": "string",
                                    "description": f"{GROUP}/{VERSION}.",
                                },
                                "kind": {"type": "string", "description": f"{KIND}."},
                                "metadata": {"type": "object"},
                                "spec": {
                                    **structural(ServiceSpec, "spec"),
                                    "description": "What the user wants.",
                                },
                                "status": {**status, "description": "What the operator sees."},
                            },
                        }
                    },
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Without anchors, which not every reader of manifests knows."""

    def ignore_aliases(self, data: Any) -> bool:
        """Writes what occurs twice twice."""
        return True


def as_yaml(document: object) -> str:
    """A document in YAML, fields in their order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def main() -> int:
    """Prints the CRD."""
    sys.stdout.write(
        "# Made by `make crds` from common/gesso/api; not to be edited.\n" + as_yaml(crd())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
