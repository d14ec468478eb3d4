"""Runs a command that dies with its parent: `python -m gesso_operator.local.tether PARENT_PID COMMAND...`.

On Linux the kernel sends SIGKILL when the parent dies (PR_SET_PDEATHSIG), and the command takes this
process's place. Elsewhere this process stays, looks for its parent twice a second and kills its process
group when the parent is gone. A wrapper rather than `preexec_fn`: that one runs Python between fork and
exec, where gRPC's threads may hold locks.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.5


def main(argv: list[str]) -> int:
    """Becomes, or minds, the command."""
    parent, command = int(argv[0]), argv[1:]
    if platform.system() == "Linux":
        die_with_parent(parent)
        os.execvp(command[0], command)
    return mind(parent, command)


def die_with_parent(parent: int) -> None:
    """Asks the kernel for SIGKILL at the parent's death; ends at once if the parent is dead already."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)


def mind(parent: int, command: list[str]) -> int:
    """Runs the command beside itself until it ends or the parent is gone. This process leads the group."""
    child = subprocess.Popen(command)
    # The group is signalled as a whole: the command answers SIGTERM, and this process ends after it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    while True:
        try:
            return child.wait(timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
