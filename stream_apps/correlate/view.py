# SPDX-License-Identifier: Apache-2.0
"""One batch as the detectors see it: its dictionaries, checked once, with what is worked out per image.

Input: a decoded EventBatch. Output: :class:`BatchView`. An image whose parent or workload points outside
the dictionaries loses that link (so that one wrong entry never hides the others) and is reported in
``problems``. Failure: :class:`stream_apps.errors.BatchError` when the dictionaries are not there at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_apps.errors import BatchError

if TYPE_CHECKING:
    from stream_apps.correlate.programs import Programs, Role

Record = dict[str, Any]


class BatchView:
    """A batch's dictionaries.

    Attributes:
        node: Node name.
        boot_id: Boot id.
        wall_offset_ns: Add to a CLOCK_BOOTTIME time to get wall time.
        processes: The batch's images.
        workloads: The batch's workloads.
        parents: For each image the index of the one it came from, 0 for none.
        workload_of: For each image the index of its workload.
        workload_ids: For each image the id of its workload.
        roles: For each image its program's role.
        problems: Entries with a link that leads nowhere: (place, reason).
    """

    __slots__ = (
        "boot_id", "node", "parents", "problems", "processes", "roles", "wall_offset_ns", "workload_ids",
        "workload_of", "workloads",
    )  # fmt: skip

    def __init__(self, batch: Record, programs: Programs) -> None:
        try:
            self.node: str = batch["node"]
            self.boot_id: str = batch["boot_id"]
            clock = batch["clock"]
            self.wall_offset_ns: int = clock["wall_ns"] - clock["boot_ns"]
            self.processes: list[Record] = batch["processes"]
            self.workloads: list[Record] = batch["workloads"]
            if not self.processes or not self.workloads:
                raise BatchError("processes and workloads each have an entry 0")
            self.problems: list[tuple[str, str]] = []
            self.parents = self._links("parent", len(self.processes))
            self.workload_of = self._links("workload", len(self.workloads))
            ids: list[str] = [each["id"] for each in self.workloads]
            self.workload_ids = [ids[index] for index in self.workload_of]
            role = programs.role
            self.roles: list[Role] = [role(image) for image in self.processes]
        except (KeyError, TypeError, AttributeError) as error:
            raise BatchError(f"not the shape of an EventBatch: {type(error).__name__}: {error}") from error

    def _links(self, field: str, count: int) -> list[int]:
        links = [image[field] for image in self.processes]
        if links and min(links) >= 0 and max(links) < count:
            return links
        for index, link in enumerate(links):
            if not 0 <= link < count:
                self.problems.append((f"processes[{index}].{field}", f"{link} is outside of 0..{count - 1}"))
                links[index] = 0
        return links

    def key(self, index: int) -> tuple[int, int]:
        """(tgid, start_ns) of an image's process."""
        image = self.processes[index]
        return image["tgid"], image["start_ns"]

    def same_process(self, one: int, other: int) -> bool:
        """Whether two images are of one process."""
        return self.key(one) == self.key(other)

    def parent_within(self, index: int) -> int:
        """The image this one came from in the same workload; 0 when there is none."""
        parent = self.parents[index]
        if parent == index or not parent or self.workload_ids[parent] != self.workload_ids[index]:
            return 0
        return parent

    def chain(self, index: int) -> list[int]:
        """The image, then what it came from, to the end of what the dictionary knows; across workloads."""
        found: list[int] = []
        seen: set[int] = set()
        while index and index not in seen:
            seen.add(index)
            found.append(index)
            index = self.parents[index]
        return found

    def launcher(self, index: int) -> int:
        """The image of another process that this one's process was forked from; 0 when not known."""
        own = self.key(index)
        for each in self.chain(index):
            if self.key(each) != own:
                return each
        return 0
