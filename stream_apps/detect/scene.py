# SPDX-License-Identifier: Apache-2.0
"""What detectors look at: one batch, its lineage, and what is known of names and pods.

Input: a batch's view and the tables of ``correlate``. Output: look-ups, and the words for hostile text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stream_apps.correlate.lineage import Descent
    from stream_apps.correlate.names import KnownName, NameTable
    from stream_apps.correlate.pods import Pod, PodTable
    from stream_apps.correlate.view import BatchView

# Of names, arguments and the like in a sentence; the full text is in the lineage.
SHOWN_CHARACTERS: Final = 200
# What reaches no other machine: loopback, and "this host" which connects there.
_LOOPBACK: Final = frozenset({"::1", "::", "0.0.0.0"})  # noqa: S104 - addresses in events, nothing is bound


@dataclass(frozen=True, slots=True)
class Scene:
    """One batch and what is known around it.

    Attributes:
        view: The batch's dictionaries.
        descents: For each image how it descends from a service, or None.
        names: Names by workload and address.
        pods: Pods.
    """

    view: BatchView
    descents: list[Descent | None]
    names: NameTable
    pods: PodTable
    # By workload of the batch, once somebody asked.
    _pod_of: dict[int, Pod | None] = field(default_factory=dict)

    def wall_ns(self, boot_ns: int) -> int:
        """Wall time of an instant of the node's boot clock."""
        return boot_ns + self.view.wall_offset_ns

    def pod(self, index: int) -> Pod | None:
        """The pod an image runs in."""
        number = self.view.workload_of[index]
        try:
            return self._pod_of[number]
        except KeyError:
            found = self._pod_of[number] = self.pods.of_workload(self.view.workloads[number])
            return found

    def name_behind(self, index: int, address: str, boot_ns: int) -> KnownName | None:
        """The name an image's workload knows an address by."""
        return self.names.name_of(self.view.workload_ids[index], address, self.wall_ns(boot_ns))

    def stays_inside(self, index: int, address: str) -> bool:
        """Whether an address is the image's own workload: loopback, or its own pod's address."""
        if address in _LOOPBACK or address.startswith("127."):
            return True
        own = self.pod(index)
        return own is not None and address in own.ips and self.pods.at(address) is own


def shown(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """Hostile text for one line: nothing that moves a cursor, breaks a line or hides, and not too long."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


def endpoint(address: str, port: int) -> str:
    """Address and port as people write them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
