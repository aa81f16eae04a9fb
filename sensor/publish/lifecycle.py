# SPDX-License-Identifier: Apache-2.0
"""Process and cgroup events: exec, fork, exit, the inventory of processes, cgroup changes.

Input: a ring record's bytes and offset. Output: the process and workload tables brought up to date, and
events appended to the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.publish import layout
from sensor.publish.images import read_image
from sensor.publish.layout import CGROUP_EVENT, EXIT_EVENT, FORK_EVENT, RING_HEADER_BYTES, reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.publish.batch import BatchBuilder

_FORK: Final = reader(
    FORK_EVENT, "ktime_ns", "start_ns", "cgroup_id", "tgid", "parent_start_ns", "parent_tgid", "uid", "comm"
)
_EXIT: Final = reader(EXIT_EVENT, "ktime_ns", "start_ns", "tgid", "exit_code")
_KTIME: Final = reader(EXIT_EVENT, "ktime_ns")
_CGROUP: Final = reader(CGROUP_EVENT, "ktime_ns", "start_ns", "cgroup_id", "tgid", "path_bytes")
_CGROUP_TAIL: Final = RING_HEADER_BYTES + CGROUP_EVENT.size_bytes
_SIGNAL_MASK: Final = 0x7F


class LifecycleEvents:
    """Handlers of the events that change who runs and where.

    Args:
        batch: What they append to; its tables are brought up to date.
    """

    def __init__(self, batch: BatchBuilder) -> None:
        self._batch = batch
        self._addresses = batch.addresses

    def handlers(self) -> dict[int, Callable[[bytes, int, int], None]]:
        """Event type to handler(ring bytes, offset of the record, position)."""
        return {
            layout.EXEC: self.exec,
            layout.FORK: self.fork,
            layout.EXIT: self.exit,
            layout.PROCESS_INVENTORY: self.process_inventory,
            layout.CGROUP_MKDIR: self.cgroup_mkdir,
            layout.CGROUP_RMDIR: self.cgroup_rmdir,
            layout.CGROUP_ATTACH: self.cgroup_attach,
        }

    def exec(self, data: bytes, offset: int, position: int) -> None:
        """ProcessExec: a new image replaces the one before."""
        batch = self._batch
        record, parent, cgroup_id = read_image(data, offset, self._addresses, seen_exec=True)
        index = batch.current(batch.processes.exec(record, parent, cgroup_id))
        if index in batch.downstream or record["stdio_peer"] is not None:
            batch.urgent = True
        self._append("nsp.ProcessExec", position, record["image_ns"], index)

    def fork(self, data: bytes, offset: int, position: int) -> None:
        """ProcessFork: the child runs what its parent runs."""
        ktime_ns, start_ns, cgroup_id, tgid, parent_start_ns, parent_tgid, uid, comm = _FORK.unpack_from(
            data, offset
        )
        batch = self._batch
        own = {"uid": uid, "comm": comm.partition(b"\0")[0].decode("utf-8", "replace")}
        image = batch.processes.fork((tgid, start_ns), (parent_tgid, parent_start_ns), cgroup_id, own)
        self._append("nsp.ProcessFork", position, ktime_ns, batch.current(image))

    def exit(self, data: bytes, offset: int, position: int) -> None:
        """ProcessExit: what ended stays known for a while."""
        ktime_ns, start_ns, tgid, code = _EXIT.unpack_from(data, offset)
        batch = self._batch
        index = batch.image(batch.processes.exit(tgid, start_ns)) if tgid else 0
        batch.events.append((
            "nsp.ProcessExit",
            {
                "position": position,
                "ktime_ns": ktime_ns,
                "process": index,
                "exit_status": code >> 8 & 0xFF,
                "signal": code & _SIGNAL_MASK,
            },
        ))  # fmt: skip

    def process_inventory(self, data: bytes, offset: int, position: int) -> None:
        """ProcessInventory: it was there before the sensor."""
        batch = self._batch
        record, parent, cgroup_id = read_image(data, offset, self._addresses, seen_exec=False)
        image = batch.processes.inventory(record, parent, cgroup_id)
        (ktime_ns,) = _KTIME.unpack_from(data, offset)
        self._append("nsp.ProcessInventory", position, ktime_ns, batch.image(image))

    def cgroup_mkdir(self, data: bytes, offset: int, position: int) -> None:
        """CgroupChange CREATED; the kernel is told where a workload begins."""
        cgroup_id = self._change(data, offset, position, "CREATED")
        path = self._path(data, offset)
        self._batch.workloads.created(cgroup_id, path)
        self._workload_of_last(cgroup_id)

    def cgroup_rmdir(self, data: bytes, offset: int, position: int) -> None:
        """CgroupChange REMOVED."""
        cgroup_id = self._change(data, offset, position, "REMOVED")
        self._batch.workloads.removed(cgroup_id)
        self._workload_of_last(cgroup_id)

    def cgroup_attach(self, data: bytes, offset: int, position: int) -> None:
        """CgroupChange JOINED: the process is the new workload's from here on."""
        cgroup_id = self._change(data, offset, position, "JOINED")
        _, start_ns, _, tgid, _ = _CGROUP.unpack_from(data, offset)
        image = self._batch.processes.find(tgid, start_ns)
        if image is not None:
            image.cgroup_id = cgroup_id
        self._workload_of_last(cgroup_id)

    def _change(self, data: bytes, offset: int, position: int, change: str) -> int:
        ktime_ns, start_ns, cgroup_id, tgid, _ = _CGROUP.unpack_from(data, offset)
        batch = self._batch
        key = (tgid, start_ns)
        index = batch.index.get(key)
        if index is None:
            index = batch.process(key)
        event = {
            "position": position, "ktime_ns": ktime_ns, "process": index, "change": change, "workload": 0,
        }  # fmt: skip
        batch.events.append(("nsp.CgroupChange", event))
        return int(cgroup_id)

    def _workload_of_last(self, cgroup_id: int) -> None:
        # After the table knows the cgroup, so that the dictionary entry is complete.
        batch = self._batch
        batch.events[-1][1]["workload"] = batch.workload(cgroup_id)

    def _path(self, data: bytes, offset: int) -> str:
        path_bytes = _CGROUP.unpack_from(data, offset)[-1]
        start = offset + _CGROUP_TAIL
        return data[start : start + path_bytes].decode("utf-8", "replace")

    def _append(self, name: str, position: int, ktime_ns: int, index: int) -> None:
        event = {"position": position, "ktime_ns": ktime_ns, "process": index}
        self._batch.events.append((name, event))
