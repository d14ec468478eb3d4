"""What kubelet and containerd leave on a machine when they end, and how it goes."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path


def remove_links(logs: Path) -> None:
    """The kubelet links every container's log into one folder of the machine."""
    for link in Path("/var/log/containers").glob("*.log"):
        with suppress(OSError):
            if link.readlink().is_relative_to(logs):
                link.unlink()


def remove_groups() -> None:
    """Control groups that the kubelet made; those in use stay."""
    for top in Path("/sys/fs/cgroup").glob("*/kubepods"):
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def unmount_below(folder: Path) -> None:
    """Takes out what pods' containers and volumes left mounted."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True, timeout=30)
