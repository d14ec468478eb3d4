"""Who yields the processor to whom: the processes of a local fleet share a few cores.

Workers compute without a pause. Where routers shared the processor with them as equals, a refusal that takes
3 ms of work would come after ten times that; and a router that starts up computes for seconds, too, while
nobody waits for it. So workers always yield, and every process does until it serves.

Linux shares the processor among sessions first (sched_autogroup), each of these processes leading one of its
own, and among threads within them. A session's niceness may be lowered again by its owner, a thread's may not.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: Of workers, and of who starts up: a third of the share of who does not yield.
YIELDING = 5


class Priority:
    """Of one process, which leads a session of its own. `niceness`, 0 to 19, holds once it serves."""

    def __init__(self, pid: int, niceness: int) -> None:
        """At its start: what it starts later yields as it does."""
        self._session = Path(f"/proc/{pid}/autogroup")
        self._niceness = niceness
        self._told: int | None = None
        if niceness:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, pid, niceness)
        self.keep(serving=False)

    def keep(self, *, serving: bool) -> None:
        """Sets it as it is to be now.

        To be called again: who is not root may set ten a second, all sessions together.
        """
        wanted = self._niceness if serving else max(self._niceness, YIELDING)
        if wanted == self._told:
            return
        try:
            self._session.write_text(str(wanted))
        except BlockingIOError:
            return
        except OSError:  # it has ended, or the kernel knows no such thing
            pass
        self._told = wanted
