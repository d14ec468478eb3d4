"""The operator's command line, checked."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import ValidationError

from gesso.api.base import DNS_LABEL
from gesso.api.pods import PodTemplate
from gesso.logs import Form
from gesso.observing import add_log_flag
from gesso.yaml_input import document_of

_ROLES = ("router", "worker")


class UsageError(ValueError):
    """A flag or a file that cannot be used; one clear line."""


@dataclass(frozen=True)
class Flags:
    """What the operator was started with; `namespaces` empty: all."""

    namespaces: tuple[str, ...]
    lease_namespace: str
    lease_name: str
    router_image: str
    worker_image: str
    pod_defaults: Mapping[str, Mapping[str, Any]]
    host: str
    port: int
    pod: str
    tls_dir: Path | None = None
    log_format: Form = "json"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage that argparse puts before it."""
        raise UsageError(f"{message} (see --help)")


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Flags:
    """Raises UsageError that names the flag, the value and what is allowed."""
    parser = _Parser(prog="python -m gesso_operator.cluster", description="Gesso's operator.")
    parser.add_argument(
        "--namespace", action="append", default=[], metavar="NS", help="to look after; none: all"
    )
    parser.add_argument(
        "--lease-namespace", metavar="NS", help="of the Lease; the pod's own if left out"
    )
    parser.add_argument("--lease-name", default="gesso-operator", metavar="NAME")
    parser.add_argument("--router-image", required=True, metavar="IMAGE")
    parser.add_argument("--worker-image", required=True, metavar="IMAGE")
    parser.add_argument(
        "--pod-defaults",
        type=Path,
        metavar="FILE",
        help="partial pod templates, for `router` and `worker`",
    )
    parser.add_argument(
        "--http", default="0.0.0.0:8080", metavar="HOST:PORT", help="health and metrics"
    )
    parser.add_argument(
        "--tls-dir",
        type=Path,
        metavar="DIR",
        help="tls.crt, tls.key and ca.crt to talk to services with that have spec.security.tls",
    )
    add_log_flag(parser)
    given = parser.parse_args(arguments)
    for namespace in given.namespace:
        if not re.match(DNS_LABEL, namespace):
            raise UsageError(f"--namespace: {namespace!r} is not allowed: a namespace's name")
    lease = given.lease_namespace or environment.get("POD_NAMESPACE", "")
    if not re.match(DNS_LABEL, lease):
        raise UsageError(
            f"--lease-namespace: {lease!r} is not allowed: a namespace's name, or POD_NAMESPACE in the "
            "environment"
        )
    host, _, port = given.http.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--http: {given.http!r} is not allowed: HOST:PORT, port 0 to 65535")
    return Flags(
        namespaces=tuple(dict.fromkeys(given.namespace)),
        lease_namespace=lease,
        lease_name=given.lease_name,
        router_image=given.router_image,
        worker_image=given.worker_image,
        pod_defaults=_pod_defaults(given.pod_defaults),
        host=host,
        port=int(port),
        pod=environment.get("POD_NAME") or "gesso-operator",
        tls_dir=given.tls_dir,
        log_format=given.log_format,
    )


def _pod_defaults(path: Path | None) -> Mapping[str, Mapping[str, Any]]:
    if path is None:
        return {}
    try:
        found = document_of(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"--pod-defaults: {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--pod-defaults: {path}: not YAML: {' '.join(str(error).split())}"
        ) from None
    except RecursionError:
        raise UsageError(f"--pod-defaults: {path}: is nested too deep") from None
    if not isinstance(found, dict) or set(found) - set(_ROLES):
        raise UsageError(f"--pod-defaults: {path}: a mapping with `router` and `worker` is needed")
    for role, template in found.items():
        try:
            PodTemplate.model_validate(template or {})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in (role, *first["loc"]))
            raise UsageError(f"--pod-defaults: {path}: {where}: {first['msg']}") from None
    return {role: template or {} for role, template in found.items()}
