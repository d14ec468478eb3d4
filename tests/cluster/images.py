"""Container images from local files, and what lets a pod run the project's Python without an image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FOLDERS = ("bin", "dev", "etc", "proc", "sys", "tmp", "usr", "lib", "lib64", "var")
_NOBODY = 65532


def write_archive(
    out: Path,
    references: Sequence[str],
    files: Mapping[str, Path],
    links: Mapping[str, str],
    command: Sequence[str],
) -> None:
    """An OCI image archive of one layer, under any number of names.

    `files` by their path in the image, `links` to their targets.
    """
    layer = _layer(files, links)
    packed = gzip.compress(layer, 1, mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": list(command), "User": str(_NOBODY)},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config_blob = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config_blob),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
    }
    manifest_blob = json.dumps(manifest).encode()
    described = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest_blob)
    entries = [
        {
            **described,
            "annotations": {
                "io.containerd.image.name": reference,
                "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
            },
        }
        for reference in references
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    with tarfile.open(out, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", index)
        for blob in (packed, config_blob, manifest_blob):
            _add(archive, f"blobs/{_digest(blob).replace(':', '/')}", blob)


def python_pod(module: str, container: str) -> dict[str, Any]:
    """A partial pod template in which a container runs a module of this virtual environment, from the host's
    files, read-only.
    """
    root = Path(__file__).parents[2]
    python = Path(sys.executable)
    home = Path(sys.base_prefix)
    folders = {Path("/usr"), Path("/lib"), Path("/lib64"), root, Path(sys.prefix), home}
    outer = sorted(
        f for f in folders if f.exists() and not any(o != f and o in f.parents for o in folders)
    )
    named = [(f"host-{i}", str(folder)) for i, folder in enumerate(outer)]
    env = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {
        "spec": {
            "containers": [
                {
                    "name": container,
                    "command": [str(python), "-m", module],
                    "imagePullPolicy": "Never",
                    "env": [{"name": k, "value": v} for k, v in env.items()],
                    "volumeMounts": [
                        {"name": n, "mountPath": path, "readOnly": True} for n, path in named
                    ],
                }
            ],
            "volumes": [{"name": n, "hostPath": {"path": path}} for n, path in named],
        }
    }


def _layer(files: Mapping[str, Path], links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder in _FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            layer.addfile(entry)
        for path, source in files.items():
            data = source.read_bytes()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o755
            layer.addfile(entry, io.BytesIO(data))
        for path, target in links.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            layer.addfile(entry)
    return buffer.getvalue()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))
