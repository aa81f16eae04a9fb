# SPDX-License-Identifier: Apache-2.0
"""Which program each process runs now, and how it came to: the lineage behind every event.

Input: forks, execs, exits and the start-up inventory in kernel order. Output: :class:`Image` chains. An
image is one program in one process; an exec makes a new one whose parent is the image it replaced, a fork
one whose parent is the image the forking process had. The table refers to the images of living processes
and, for a while, of exited ones; ancestors are kept alive by the links of their descendants alone and go
when the last of them goes, so nothing has to be swept.

Failure: a process nobody announced is entered as UNKNOWN, from /proc where that still shows the same
process. Every bound that is reached is counted in ``counters``; none raises.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from sensor.publish.procfs import ProcessFiles

if TYPE_CHECKING:
    from collections.abc import Iterable

# Processes alive at once. About 1.5 kB each with argv: 8192 stay under 12 MB, and a node that runs more
# loses the longest-known processes without children first, which come back as UNKNOWN when they act.
MAX_LIVING: Final = 8192
# Exited processes still named by events to come: closes, last packets. They follow within seconds.
MAX_EXITED: Final = 2048
# Links of a chain. A shell, its service and a container runtime take about ten.
MAX_DEPTH: Final = 64
# Where a longer chain is cut: this many nearest, then the service they descend from and what is above it,
# so that a process cannot shake off its service by forking or by exec of itself.
KEPT_NEAREST: Final = 32

Key = tuple[int, int]  # (tgid, start_ns)
Record = dict[str, Any]


class Image:
    """One program image; mutable, and private to the drain thread.

    Attributes:
        record: The schema's ProcessImage, without what only a batch knows (parent, workload, serving).
        parent: Where it came from.
        cgroup_id: Of its process now.
        serving: Listened or accepted.
        depth: At most this many links above it; exact unless a chain was cut.
        batch: Number of the batch whose dictionary it is in, and
        index: where.
    """

    __slots__ = ("batch", "cgroup_id", "depth", "index", "parent", "record", "serving")

    def __init__(self, record: Record, parent: Image | None, cgroup_id: int) -> None:
        self.record = record
        self.parent = parent
        self.cgroup_id = cgroup_id
        self.serving = False
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.batch = -1
        self.index = 0

    @property
    def key(self) -> Key:
        """(tgid, start_ns) of its process."""
        return self.record["tgid"], self.record["start_ns"]


def unknown_record(tgid: int, start_ns: int) -> Record:
    """All that an event says of a process nobody announced."""
    return {
        "tgid": tgid, "start_ns": start_ns, "image_ns": start_ns, "origin": "UNKNOWN", "executable": "",
        "inode": 0, "device": 0, "deleted": False, "argv": [], "argv_truncated": False, "comm": "",
        "uid": 0, "gid": 0, "mnt_ns": 0, "pid_ns": 0, "net_ns": 0, "stdio": [], "stdio_peer": None,
    }  # fmt: skip


class ProcessTable:
    """The images of the node's processes."""

    def __init__(self, files: ProcessFiles | None = None) -> None:
        self.counters = {"process_evicted": 0, "process_unknown": 0, "lineage_cut": 0}
        self._files = files if files is not None else ProcessFiles()
        self._living: dict[int, Image] = {}
        self._exited: OrderedDict[Key, Image] = OrderedDict()

    def __len__(self) -> int:
        return len(self._living)

    def get(self, tgid: int, start_ns: int) -> Image:
        """The current image of a process, made up from /proc when nobody announced it."""
        return self.find(tgid, start_ns) or self._unknown(tgid, start_ns)

    def find(self, tgid: int, start_ns: int) -> Image | None:
        """The current image of a process, living or exited lately."""
        image = self._living.get(tgid)
        if image is not None and image.record["start_ns"] == start_ns:
            return image
        return self._exited.get((tgid, start_ns))

    def fork(self, child: Key, parent: Key, cgroup_id: int, fields: Record) -> Image:
        """A process was born; ``fields`` are the child's own (uid, comm)."""
        tgid, start_ns = child
        parent_image = self.get(*parent) if parent[0] else None
        base = parent_image.record if parent_image is not None else unknown_record(tgid, start_ns)
        record = {
            **base, **fields, "tgid": tgid, "start_ns": start_ns, "image_ns": start_ns, "origin": "FORK",
        }  # fmt: skip
        return self._enter(record, parent_image, cgroup_id)

    def exec(self, record: Record, parent: Key, cgroup_id: int) -> Image:
        """A process began a new image; ``parent`` is its parent process, for when it is not known itself."""
        replaced = self.find(record["tgid"], record["start_ns"])
        if replaced is None or _is_bare(replaced):
            return self._enter(record, self.get(*parent) if parent[0] else None, cgroup_id)
        return self._enter(record, replaced, cgroup_id)

    def inventory(self, record: Record, parent: Key, cgroup_id: int) -> Image:
        """A process that was there before the sensor. What is known better from events stays."""
        known = self.find(record["tgid"], record["start_ns"])
        if known is not None and known.record["origin"] != "UNKNOWN":
            return known
        self._files.complete(record, unlimited=True)
        parent_image = (self.find(*parent) or self._placeholder(*parent)) if parent[0] else None
        if known is None:
            return self._enter(record, parent_image, cgroup_id)
        known.record.update(record)
        known.cgroup_id = cgroup_id
        if parent_image is not None and not _descends(parent_image, known):
            known.parent = parent_image
            known.depth = parent_image.depth + 1
        return known

    def link_ancestors(self, tgid: int, start_ns: int, ancestors: Iterable[Key]) -> None:
        """Take over what the kernel remembers of a process's ancestors, nearest first.

        A process whose parent exited is found below init, where the kernel moved it; its true ancestors
        are entered as UNKNOWN when nothing else is known of them. For processes of the inventory only:
        whoever was seen to fork or exec has its links from that.
        """
        image = self.find(tgid, start_ns)
        for key in ancestors:
            if not key[0]:
                return
            above = self.find(*key)
            if above is None:
                above = Image(unknown_record(*key), None, 0)
                self._retire(above)
            if image is not None and image.record["origin"] in ("INVENTORY", "UNKNOWN"):
                if image.parent is not above and _descends(above, image):
                    return
                image.parent = above
                self._shorten(image)
            image = above

    def exit(self, tgid: int, start_ns: int) -> Image:
        """A process ended. Its image is still found for a while."""
        image = self._living.get(tgid)
        if image is None or image.record["start_ns"] != start_ns:
            return self.get(tgid, start_ns)
        del self._living[tgid]
        self._retire(image)
        return image

    def _enter(self, record: Record, parent: Image | None, cgroup_id: int) -> Image:
        tgid = record["tgid"]
        before = self._living.pop(tgid, None) or self._exited.pop((tgid, record["start_ns"]), None)
        image = Image(record, parent, cgroup_id)
        if before is not None:
            if before.record["start_ns"] != record["start_ns"]:
                self._retire(before)  # its exit was lost: the tgid is reused
            elif _is_bare(before) and not (parent is not None and _descends(parent, before)):
                # Others already link to it: it becomes what it stood for.
                before.record.update(record)
                before.parent, before.cgroup_id, before.depth = parent, cgroup_id, image.depth
                image = before
        if image.depth > MAX_DEPTH:
            self._shorten(image)
        if len(self._living) >= MAX_LIVING:
            self._evict()
        self._living[tgid] = image
        return image

    def _unknown(self, tgid: int, start_ns: int) -> Image:
        self.counters["process_unknown"] += 1
        record = unknown_record(tgid, start_ns)
        parent_tgid = self._files.complete(record)
        return self._enter(record, self._living.get(parent_tgid), 0)

    def _placeholder(self, tgid: int, start_ns: int) -> Image:
        """A process only known as somebody's ancestor: filled when its own inventory event comes."""
        image = Image(unknown_record(tgid, start_ns), None, 0)
        if tgid in self._living:
            self._retire(image)
        else:
            self._living[tgid] = image
        return image

    def _retire(self, image: Image) -> None:
        self._exited[image.key] = image
        if len(self._exited) > MAX_EXITED:
            self._exited.popitem(last=False)

    def _evict(self) -> None:
        """Make room for an eighth at once: leaves that were entered first go first."""
        parents = {id(image.parent) for image in self._living.values()}
        victims = [tgid for tgid, image in self._living.items() if id(image) not in parents]
        for tgid in victims[: MAX_LIVING // 8] or list(self._living)[: MAX_LIVING // 8]:
            del self._living[tgid]
            self.counters["process_evicted"] += 1

    def _shorten(self, image: Image) -> None:
        """Bring a chain back to MAX_DEPTH links, keeping the nearest and the service they come from."""
        chain: list[Image] = []
        above = image.parent
        while above is not None and len(chain) <= 2 * MAX_DEPTH:
            chain.append(above)
            above = above.parent
        if len(chain) > MAX_DEPTH:
            self.counters["lineage_cut"] += 1
            rest = chain[KEPT_NEAREST:]
            service = next((place for place, each in enumerate(rest) if each.serving), None)
            if service is None:
                chain[MAX_DEPTH - 1].parent = None
            else:
                joined = rest[service:][: MAX_DEPTH - KEPT_NEAREST]
                chain[KEPT_NEAREST - 1].parent = joined[0]
                joined[-1].parent = None
                chain = chain[:KEPT_NEAREST] + joined
            chain = chain[:MAX_DEPTH]
        image.depth = len(chain)


def _is_bare(image: Image) -> bool:
    """Nothing is known of it but its key."""
    record = image.record
    return record["origin"] == "UNKNOWN" and not record["executable"] and not image.serving


def _descends(image: Image, ancestor: Image) -> bool:
    """Whether ``ancestor`` is on the chain of ``image``: linking the other way round would close a ring."""
    at: Image | None = image
    while at is not None:
        if at is ancestor:
            return True
        at = at.parent
    return False
