# SPDX-License-Identifier: Apache-2.0
"""The EventBatch being filled: events, and the dictionaries that let it stand alone.

Input: handlers append events and ask for the index of a process. Output: :meth:`BatchBuilder.close`, the
record for the codec. One builder serves all batches, emptied in place, so that handlers keep their
references. Failure: none; what would grow without bound ends the batch instead (``weight``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sensor.publish.addresses import AddressText
from sensor.publish.lineage import Image, Key, ProcessTable, unknown_record

if TYPE_CHECKING:
    from sensor.policy.remembered import RememberedAnswers
    from sensor.workload.table import Workload, WorkloadTable

# Estimated bytes at which a batch closes whatever its count. Kafka's default largest message is 1 MB, and
# one event can add its 64 ancestors of 2 kB and 32 DNS names of 1 kB after the check.
MAX_WEIGHT: Final = 512 * 1024
# What an event and a process entry weigh without their variable parts; high rather than low.
EVENT_WEIGHT: Final = 96
IMAGE_WEIGHT: Final = 128
# An index that no dictionary has: its parent is not known.
_NONE: Final = 0

Event = tuple[str, dict[str, Any]]


class BatchBuilder:
    """One batch at a time.

    Attributes:
        processes: Images of all processes.
        workloads: Workloads of all cgroups.
        remembered: Where DNS answers are noted besides, if anywhere.
        addresses: Text of addresses.
        events: In kernel order, as the codec takes them.
        index: Process to its index in the dictionary; the handlers look here first.
        downstream: Indices of processes that a service started (see :func:`is_downstream`).
        urgent: Something happened that a detector waits for: a service's descendant began a program, asked a
            name or went out, or a program began on a socket.
        weight: Estimated bytes of all but the plain events.
    """

    def __init__(
        self,
        processes: ProcessTable,
        workloads: WorkloadTable,
        remembered: RememberedAnswers | None = None,
    ) -> None:
        self.processes = processes
        self.workloads = workloads
        self.remembered = remembered
        self.addresses = AddressText()
        self.events: list[Event] = []
        self.index: dict[Key, int] = {}
        self.downstream: set[int] = set()
        self.urgent = False
        self.weight = 0
        self._number = 0
        self._images: list[Image] = []
        self._cgroups: dict[int, int] = {}
        self._workloads: list[Workload] = []
        self._kernel = _kernel_entry()

    @property
    def full(self) -> bool:
        """Whether it has to close for its size."""
        return self.weight + EVENT_WEIGHT * len(self.events) > MAX_WEIGHT

    def process(self, key: Key) -> int:
        """Index of a process that is not in ``index`` yet: enters it with all its ancestors."""
        tgid, start_ns = key
        nobody = not tgid or not start_ns
        index = _NONE if nobody else self.image(self.processes.get(tgid, start_ns))
        self.index[key] = index
        return index

    def current(self, image: Image) -> int:
        """Enter an image as the one its process runs from here on."""
        index = self.index[image.key] = self.image(image)
        return index

    def image(self, image: Image) -> int:
        """Index of an image; it and its ancestors are entered when they are not there yet."""
        number = self._number
        if image.batch == number:
            return image.index
        chain = []
        at: Image | None = image
        while at is not None and at.batch != number:
            chain.append(at)
            at = at.parent
        for each in reversed(chain):
            self._images.append(each)
            each.batch = number
            each.index = len(self._images)  # entry 0 is the kernel's
            self.weight += IMAGE_WEIGHT + len(each.record["executable"]) + sum(map(len, each.record["argv"]))
        if is_downstream(image, self.workloads):
            self.downstream.add(image.index)
        return image.index

    def workload(self, cgroup_id: int) -> int:
        """Index of a cgroup's workload in the dictionary; 0 is the host."""
        host = self.workloads.host
        if not cgroup_id or cgroup_id == host.cgroup_id:
            return 0
        index = self._cgroups.get(cgroup_id)
        if index is None:
            workload = self.workloads.get(cgroup_id)
            self._workloads.append(workload)
            index = self._cgroups[cgroup_id] = len(self._workloads)
            self.weight += IMAGE_WEIGHT + 2 * len(workload.cgroup_path)
        return index

    def close(self, header: dict[str, Any]) -> dict[str, Any]:
        """The batch as the codec takes it; the builder is empty afterwards.

        The record refers to dictionaries that the next batch changes: encode it first.

        Args:
            header: All fields but events, processes and workloads.
        """
        processes = [self._kernel, *map(self._process_entry, self._images)]
        batch = {
            **header,
            "workloads": [_workload_entry(each) for each in (self.workloads.host, *self._workloads)],
            "processes": processes,
            "events": self.events,
        }
        self.events = []
        self.index.clear()
        self.downstream.clear()
        self._images = []
        self._cgroups.clear()
        self._workloads = []
        self.urgent = False
        self.weight = 0
        self._number += 1
        return batch

    def _process_entry(self, image: Image) -> dict[str, Any]:
        record = image.record
        parent = image.parent
        # A parent linked only after this image was entered may itself not be in the batch.
        record["parent"] = parent.index if parent is not None and parent.batch == self._number else _NONE
        record["workload"] = self.workload(image.cgroup_id)
        record["serving"] = image.serving
        return record


def is_downstream(image: Image, workloads: WorkloadTable) -> bool:
    """Whether a service started this program: it is below a serving image and is another program.

    Only within one workload: a container runtime listens too, and everything descends from it.
    """
    home = workloads.get(image.cgroup_id).id
    started = image.record["origin"] == "EXEC"
    executable = (image.record["inode"], image.record["device"])
    above = image.parent
    while above is not None:
        if above.serving and workloads.get(above.cgroup_id).id == home:
            record = above.record
            return started or executable != (record["inode"], record["device"])
        started = started or above.record["origin"] == "EXEC"
        above = above.parent
    return False


def _kernel_entry() -> dict[str, Any]:
    return {**unknown_record(0, 0), "parent": _NONE, "workload": 0, "serving": False}


def _workload_entry(workload: Workload) -> dict[str, Any]:
    return {
        "id": workload.id,
        "kind": workload.kind,
        "cgroup_id": workload.cgroup_id,
        "cgroup_path": workload.cgroup_path,
        "pod_uid": workload.pod_uid,
        "container_id": workload.container_id,
        "unit": workload.unit,
    }
