# SPDX-License-Identifier: Apache-2.0
"""Who a process is and how it is ended, by the system's own means: /proc and pidfds.

A pidfd stands for one process for ever. Whoever opens it first, then finds that the process of that tgid
started when it should have, holds the right one: a tgid is reused only after its process has ended, and what
started before the order cannot have taken the place of what was opened after it.

Failure: a process that is gone is None or False; one that cannot be looked at has no facts but says why.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_NS_PER_S: Final = 1_000_000_000
# include/linux/sched.h.
_PF_KTHREAD: Final = 0x0020_0000
_DELETED: Final = " (deleted)"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the system says of a process.

    Attributes:
        tgid: Process id.
        parent: Its parent's.
        start_ticks: Start since boot, in clock ticks.
        kernel_thread: It is one.
        executable: Path; empty for one that has none.
        cgroup: Cgroup path.
        unreadable: Why the rest is not known; empty: it is.
    """

    tgid: int
    parent: int
    start_ticks: int
    kernel_thread: bool
    executable: str
    cgroup: str
    unreadable: str = ""

    def started_at(self, start_ns: int) -> bool:
        """Whether it started then (CLOCK_BOOTTIME), as exactly as /proc tells."""
        return self.start_ticks == start_ns * _TICKS_PER_S // _NS_PER_S


class Signals(Protocol):
    """Looks at processes and ends them."""

    def facts(self, tgid: int) -> Facts | None:
        """What is known of a process; None when there is none."""

    def kill(self, tgid: int, is_it: Callable[[], bool]) -> bool:
        """SIGKILL, if the process behind a pidfd is the one meant; whether it was sent."""


class SystemSignals:
    """The machine's own."""

    def facts(self, tgid: int) -> Facts | None:
        """See :class:`Signals`."""
        directory = _PROC / str(tgid)
        try:
            stat = (directory / "stat").read_text(encoding="utf-8", errors="replace")
            # The command in parentheses may hold anything, parentheses too.
            fields = stat.rpartition(")")[2].split()
            state, parent, flags, start = fields[0], int(fields[1]), int(fields[6]), int(fields[19])
            if state in {"Z", "X"}:
                return None
        except (FileNotFoundError, ProcessLookupError):
            return None
        except (OSError, IndexError, ValueError) as error:
            return Facts(tgid, 0, 0, kernel_thread=False, executable="", cgroup="", unreadable=str(error))
        executable = cgroup = unreadable = ""
        try:
            executable = str((directory / "exe").readlink()).removesuffix(_DELETED)
        except (FileNotFoundError, ProcessLookupError):
            executable = ""  # a kernel thread, or it ends just now
        except OSError as error:
            unreadable = str(error)
        try:
            lines = (directory / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
            cgroup = next((line[3:] for line in lines if line.startswith("0::")), "/")
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as error:
            unreadable = str(error)
        return Facts(tgid, parent, start, bool(flags & _PF_KTHREAD), executable, cgroup, unreadable)

    def kill(self, tgid: int, is_it: Callable[[], bool]) -> bool:
        """See :class:`Signals`.

        Raises:
            OSError: The system does not let us.
        """
        try:
            pidfd = os.pidfd_open(tgid)
        except ProcessLookupError:
            return False
        try:
            if not is_it():
                return False
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True
