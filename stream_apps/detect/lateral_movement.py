# SPDX-License-Identifier: Apache-2.0
"""``nsp.lateral-movement``: from one workload to the next.

Input: connects to addresses inside. Told is, once a workload and destination,

- a process out of character (below a service by way of a shell or tool, or dropped) that contacts another
  pod, or a port by which machines are administered;
- any other tool in a container at such a port, except ``ssh`` that ``git`` or ``rsync`` started;
- a workload that was learned without the contact.

A program in character is not: services talk to each other, that is what they are for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from stream_apps.correlate.programs import program_name
from stream_apps.detect.character import DROPPED, character
from stream_apps.detect.contact import ContactObserver
from stream_apps.detect.networks import INSIDE
from stream_apps.detect.rule import Rule
from stream_apps.detect.scene import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_apps.detect.baseline import Baseline
    from stream_apps.detect.exclusions import Exclusion
    from stream_apps.detect.observer import Frame
    from stream_apps.detect.rule import Severity

RULE: Final = Rule(
    id="nsp.lateral-movement",
    title="A process reaches for another workload",
    severity="HIGH",
    attack=("T1021", "T1210"),
)

ADMIN_PORTS: Final = {
    22: "ssh", 23: "telnet", 139: "SMB", 445: "SMB", 2375: "Docker", 2376: "Docker", 2379: "etcd",
    2380: "etcd", 3389: "RDP", 5900: "VNC", 5985: "WinRM", 5986: "WinRM", 10250: "the kubelet",
    10255: "the kubelet", 4194: "cAdvisor",
}  # fmt: skip
_SSH_PORT: Final = 22
_USES_SSH: Final = frozenset({"git", "rsync", "git-remote-ssh"})


class LateralMovement(ContactObserver):
    """The detector.

    Args:
        exclusions: What is known and wanted.
        severity: The highest it gives.
        admin_ports: Ports by which machines are administered.
        baseline: What workloads did before, where that is known.
    """

    settings: ClassVar[tuple[str, ...]] = (*ContactObserver.settings, "_ports")

    def __init__(
        self,
        exclusions: Sequence[Exclusion] = (),
        severity: Severity | None = None,
        *,
        admin_ports: Sequence[int] = tuple(ADMIN_PORTS),
        baseline: Baseline | None = None,
    ) -> None:
        super().__init__(RULE, exclusions, severity, baseline)
        self._ports = frozenset(admin_ports)
        self._inside = INSIDE

    def target(self, frame: Frame, index: int, event: Mapping[str, Any]) -> str:
        """See :class:`ContactObserver`."""
        scene = frame.scene
        address, port = event["remote_address"], event["remote_port"]
        if address not in self._inside or not frame.contained(index) or scene.stays_inside(index, address):
            return ""
        if port in self._ports:
            return ADMIN_PORTS.get(port, f"the administration port {port}")
        other = scene.pods.at(address)
        if other is None or character(frame, index).level < DROPPED:
            return ""
        own = scene.pod(index)
        if own is not None and (own.namespace, own.owner) == (other.namespace, other.owner):
            return ""
        return f"the pod {shown(other.namespace)}/{shown(other.name)}"

    def may(self, frame: Frame, index: int, event: Mapping[str, Any]) -> bool:
        """See :class:`ContactObserver`."""
        if event["remote_port"] not in self._ports:
            return True
        view = frame.scene.view
        launcher = view.launcher(index)
        return (
            event["remote_port"] == _SSH_PORT
            and launcher != 0
            and program_name(view.processes[launcher]["executable"]) in _USES_SSH
        )
