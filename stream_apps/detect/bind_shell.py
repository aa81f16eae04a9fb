# SPDX-License-Identifier: Apache-2.0
"""``nsp.bind-shell``: somebody connects to this machine, and gets a shell.

Input: accepted connections, and shells that begin. Told when an interactive shell (no command, no script,
its input a pipe that no script filled, a terminal or a socket that is no connection itself) begins right
after its parent, or that one's parent, accepted a connection from elsewhere. A shell whose input *is* the
connection is ``nsp.reverse-shell``'s, whichever side opened it, and not told again here.

What hands out shells by design (login services, container runtimes, web terminals) is excluded by launcher. A
listening relay is told too, where it listens for others than its own workload below a service: nobody starts
``nc -l`` there with good intent. Remembered: the last connection each process accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.detect.bounded import Bounded
from stream_apps.detect.character import INTRUDER, character
from stream_apps.detect.observer import Frame, Observer
from stream_apps.detect.reverse_shell import LISTEN
from stream_apps.detect.rule import Destination, Rule, Sighting
from stream_apps.detect.scene import endpoint, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Handler
    from stream_apps.detect.rule import Severity
    from stream_apps.detect.scene import Scene

RULE: Final = Rule(
    id="nsp.bind-shell",
    title="A shell begins for whoever connected",
    severity="CRITICAL",
    attack=("T1059.004", "T1571"),
)
ACCEPT: Final = "nsp.SocketAccept"
EXEC: Final = "nsp.ProcessExec"

# Elastic's rules of a shell after a connection have 5 seconds.
WITHIN_S: Final = 5
# Processes that accepted a connection lately.
MAX_PROCESSES: Final = 20_000

_TCP: Final = 6
_NS_PER_S: Final = 1_000_000_000
# A shell's parent, and that one's: an implant forks before it executes.
_GENERATIONS: Final = 2
_LOOPBACK: Final = ("127.", "::1")
_INPUTS: Final = frozenset({"PIPE", "TERMINAL", "SOCKET", "OTHER"})


Accepted = tuple[int, Destination, int]
"""When, from where, at which port here."""


class BindShell(Observer):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        within_s: How long after the connection a shell is its shell.
    """

    settings: ClassVar[tuple[str, ...]] = (*Observer.settings, "_within_ns")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        within_s: int = WITHIN_S,
    ) -> None:
        super().__init__(RULE, exclusions, severity)
        self._within_ns = within_s * _NS_PER_S
        self._accepted: Bounded[tuple[str, int, int], Accepted] = Bounded(
            MAX_PROCESSES, lambda: (0, Destination("", 0, _TCP), 0)
        )

    def handlers(self) -> Mapping[str, Handler]:
        """See :class:`Observer`."""
        return {ACCEPT: self._accept, EXEC: self._executed, LISTEN: self._listen}

    def metrics(self) -> Mapping[str, int]:
        """See :class:`Observer`."""
        return {"evicted": self._accepted.evicted, "processes_now": len(self._accepted)}

    def _accept(self, frame: Frame, index: int, event: Mapping[str, Any]) -> None:
        address = event["remote_address"]
        if index and not frame.scene.stays_inside(index, address):
            where = Destination(address, event["remote_port"], _TCP)
            self._accepted.put(frame.owners[index], (event["ktime_ns"], where, event["local_port"]))

    def _executed(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        view = frame.scene.view
        if view.roles[index] != "shell" or not _is_interactive(view.processes[index]):
            return None
        if _is_in_pipeline(frame.scene, index):
            return None
        above = index
        for _ in range(_GENERATIONS + 1):
            found = self._accepted.peek(frame.owners[above])
            if found is not None and event["ktime_ns"] - found[0] <= self._within_ns:
                return self._sighting(found)
            above = view.launcher(above)
            if not above:
                break
        return None

    def _sighting(self, accepted: Accepted) -> Sighting:
        _, where, port = accepted
        return Sighting(
            self.capped("CRITICAL"),
            f"shell after a connection from {where.address}",
            f"began right after {shown(where.address)} connected to port {port} of the process above it",
            where,
            weight=2,
        )

    def _listen(self, frame: Frame, index: int, event: Mapping[str, Any]) -> Sighting | None:
        if frame.scene.view.roles[index] != "relay" or character(frame, index).level < INTRUDER:
            return None
        if event["local_address"].startswith(_LOOPBACK):
            return None
        where = endpoint(event["local_address"], event["local_port"])
        return Sighting(self.capped("HIGH"), f"listen on {where}", f"listens on {where}", weight=1)


def _is_in_pipeline(scene: Scene, index: int) -> bool:
    """Whether a script pipes something into a shell: ``curl ... | sh``, or a named pipe. Others' rules."""
    view = scene.view
    image, launcher = view.processes[index], view.launcher(index)
    if image["stdio"][0] != "PIPE" or view.roles[launcher] != "shell":
        return False
    return not _is_interactive(view.processes[launcher])


def _is_interactive(image: Mapping[str, Any]) -> bool:
    """Whether a shell reads commands from its input, and that is neither a file nor a connection."""
    stdio = image["stdio"]
    if not stdio or stdio[0] not in _INPUTS:
        return False
    words = image["argv"][1:]
    return all(each.startswith(("-", "+")) for each in words) and not any(
        "c" in each for each in words if each.startswith("-") and not each.startswith("--")
    )
