# SPDX-License-Identifier: Apache-2.0
"""Every cgroup of the node with its workload, in step with the kernel's ``workloads`` map.

Input: a walk over the cgroup v2 tree at start (a directory's inode number is the cgroup's id), then
CGROUP_* events in kernel order. Output: :class:`Workload` by cgroup id for the batches, workload cgroup ids
by workload id for the enforcement, and entries in the kernel so that a packet finds its workload.

The kernel copies the parent's entry to a new cgroup by itself; what user space adds is where a workload
begins. Until it has done so a new pod's cgroup counts as what its parent is, which is nothing: grouping
cgroups are not registered. Failure: the kernel refusing an entry is counted, and the events still carry
the workload's name.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from schemas.self_test import workload_of
from sensor.kernel.errors import KernelError
from sensor.workload.paths import WorkloadKind, identify, workload_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

# As NSP_MAX_WORKLOADS in bpf/maps.h: a cgroup that the kernel cannot hold is of no use here either.
MAX_CGROUPS: Final = 16_384
# Sockets close after their cgroup is gone; a rolling update removes a few hundred at once.
MAX_REMOVED: Final = 512


class WorkloadMap(Protocol):
    """The part of the kernel's state this table writes (sensor/kernel/state.py)."""

    def set_workload(self, cgroup_id: int, workload_cgroup_id: int, policy_slot: int | None = None) -> None:
        """Say whose cgroup it is, and its slot; None: the one it has."""

    def policy_slot_of(self, cgroup_id: int) -> int:
        """The slot it has."""

    def drop_workload(self, cgroup_id: int) -> object:
        """Forget a cgroup."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One cgroup and whose it is.

    Attributes:
        id: Workload id: pod UID, else ``host/<node>/...``.
        kind: POD, CONTAINER, HOST_SERVICE or HOST.
        cgroup_id: This cgroup (v2).
        cgroup_path: Under the cgroup v2 mount; empty when not known.
        workload_cgroup_id: The cgroup that is the whole workload; 0 when it has none (a slice).
        pod_uid: For a pod.
        container_id: For a container, in a pod or outside.
        unit: For a systemd unit.
    """

    id: str
    kind: WorkloadKind
    cgroup_id: int
    cgroup_path: str
    workload_cgroup_id: int = 0
    pod_uid: str | None = None
    container_id: str | None = None
    unit: str | None = None


class WorkloadTable:
    """Cgroup id to workload and back.

    One thread (the drain) changes it; any may look up. ``changes`` grows whenever a workload's own cgroup
    appears, or goes, so that a waiting enforcement can be tried again. ``counters`` is read by the metrics.
    """

    def __init__(self, node: str, kernel: WorkloadMap) -> None:
        self.node = node
        self.changes = 0
        self.counters = {"table_full": 0, "kernel_refused": 0, "cgroup_unknown": 0}
        self.host = Workload(f"host/{node}", "HOST", 1, "/")
        self._kernel = kernel
        self._by_id: dict[int, Workload] = {}
        self._by_path: dict[str, int] = {}
        self._removed: OrderedDict[int, Workload] = OrderedDict()
        self._roots: dict[str, set[int]] = {}
        self._lock = threading.Lock()
        # Slots are decided in another thread; what that one says last is what the kernel gets.
        self._placing = threading.Lock()
        self._slot_of: Callable[[Workload], int | None] = lambda _: None
        self._placed: dict[int, int | None] = {}
        self._guard: tuple[int, Collection[str]] | None = None
        self._own: Workload | None = None
        # A cgroup was named that is not in the table: its CGROUP_MKDIR was lost, so walk again.
        self.incomplete = False

    def walk(self, cgroup_root: Path) -> int:
        """Read the whole tree that ``cgroup_root`` is part of, each parent before its children.

        Returns:
            How many cgroups there are. A directory that vanishes meanwhile is skipped: its removal is
            on the ring. What is in the table and not in the tree any more is removed.
        """
        mount = str(_mount_of(cgroup_root))
        found = set()
        for directory, cgroup_id in _directories(mount):
            relative = os.path.relpath(directory, mount)
            self.created(cgroup_id, "/" if relative == "." else f"/{relative}")
            found.add(cgroup_id)
        for gone in self._by_id.keys() - found:
            self.removed(gone)
        self.incomplete = False
        return len(found)

    def created(self, cgroup_id: int, path: str) -> Workload:
        """A cgroup is there: from the walk or a CGROUP_MKDIR event. Saying so twice changes nothing."""
        known = self._by_id.get(cgroup_id)
        if known is not None and known.cgroup_path == path:
            return known
        if self._own is not None and self._own.cgroup_id == cgroup_id:
            return self._own
        identity = identify(path)
        if identity.kind == "HOST":
            self.host = Workload(f"host/{self.node}", "HOST", cgroup_id, path)
            self._by_id[cgroup_id] = self.host
            return self.host
        if identity.grouping:
            root_id = 0
        else:
            root_id = cgroup_id if identity.root == path else self._by_path.get(identity.root, 0)
        workload = Workload(
            workload_id(identity, self.node), identity.kind, cgroup_id, path, root_id,
            identity.pod_uid, identity.container_id, identity.unit,
        )  # fmt: skip
        if len(self._by_id) >= MAX_CGROUPS:
            self.counters["table_full"] += 1
            return workload
        self._add(workload)
        return workload

    def own(self, directory: Path) -> int:
        """Make a cgroup the sensor's own: nobody's workload, so that no profile or order is about it.

        Returns:
            Its id.
        """
        cgroup_id = directory.stat().st_ino
        if self._own is None or self._own.cgroup_id != cgroup_id or cgroup_id not in self._by_id:
            if cgroup_id in self._by_id:
                self.removed(cgroup_id)
            path = "/" + str(directory.resolve().relative_to(_mount_of(directory)))
            self._own = Workload(workload_of(self.node), "HOST_SERVICE", cgroup_id, path)
            with self._lock:
                self._by_id[cgroup_id] = self._own
                self._by_path[path] = cgroup_id
        return cgroup_id

    def _add(self, workload: Workload) -> None:
        with self._lock:
            self._by_id[workload.cgroup_id] = workload
            self._by_path[workload.cgroup_path] = workload.cgroup_id
            if workload.workload_cgroup_id == workload.cgroup_id:
                self._roots.setdefault(workload.id, set()).add(workload.cgroup_id)
        if workload.workload_cgroup_id:
            with self._placing:
                self._place(workload)
        elif self._guard is not None:
            self._guard_one(workload, *self._guard)
        if workload.workload_cgroup_id == workload.cgroup_id:
            self.changes += 1

    def _place(self, workload: Workload) -> None:
        slot = self._slot_of(workload)
        cgroup_id = workload.cgroup_id
        self._placed[cgroup_id] = slot
        self._tell(lambda: self._kernel.set_workload(cgroup_id, workload.workload_cgroup_id, slot))

    def place(self, slot_of: Callable[[Workload], int | None]) -> None:
        """Give every cgroup of a workload its slot, now and when it appears. Any thread.

        Args:
            slot_of: The slot of a workload's cgroup; None leaves it the one it inherited.
        """
        with self._placing:
            self._slot_of = slot_of
            for workload in self.governed():
                if self._placed.get(workload.cgroup_id) != slot_of(workload):
                    self._place(workload)

    def governed(self) -> list[Workload]:
        """Every cgroup that belongs to a workload. Any thread."""
        with self._lock:
            return [each for each in self._by_id.values() if each.workload_cgroup_id]

    def slots_held(self) -> list[tuple[Workload, int]]:
        """Every such cgroup with the slot the kernel has for it."""
        return [(each, self._kernel.policy_slot_of(each.cgroup_id)) for each in self.governed()]

    def guard(self, slot: int, paths: Collection[str] = ()) -> int:
        """Give a slot to what is below some cgroups and no workload yet, and to what will be made there.

        Args:
            slot: Of unknown workloads.
            paths: Under the cgroup v2 mount; none: where Kubernetes has its pods.

        Returns:
            How many cgroups got it.
        """
        self._guard = slot, paths
        without = [each for each in list(self._by_id.values()) if not each.workload_cgroup_id]
        return sum(self._guard_one(each, slot, paths) for each in without)

    def _guard_one(self, workload: Workload, slot: int, paths: Collection[str]) -> bool:
        guarded = _is_guarded(workload.cgroup_path, paths)
        if guarded:
            self._tell(partial(self._kernel.set_workload, workload.cgroup_id, 0, slot))
        return guarded

    def removed(self, cgroup_id: int) -> Workload:
        """A cgroup is gone. It is remembered a while for events that come after."""
        with self._lock:
            workload = self._by_id.pop(cgroup_id, None)
            if workload is not None:
                if self._by_path.get(workload.cgroup_path) == cgroup_id:
                    del self._by_path[workload.cgroup_path]
                roots = self._roots.get(workload.id)
                if roots is not None:
                    roots.discard(cgroup_id)
                    if not roots:
                        del self._roots[workload.id]
        if workload is None:
            return self.get(cgroup_id)
        self._removed[cgroup_id] = workload
        if len(self._removed) > MAX_REMOVED:
            self._removed.popitem(last=False)
        with self._placing:
            self._placed.pop(cgroup_id, None)
            self._tell(lambda: self._kernel.drop_workload(cgroup_id))
        self.changes += workload.workload_cgroup_id == cgroup_id
        return workload

    def get(self, cgroup_id: int) -> Workload:
        """The workload of a cgroup, also of one removed lately; a nameless one when it is not known."""
        found = self._by_id.get(cgroup_id) or self._removed.get(cgroup_id)
        if found is not None:
            return found
        if not cgroup_id:
            return self.host
        if not self.incomplete:
            self.counters["cgroup_unknown"] += 1
            self.incomplete = True
        return Workload(f"host/{self.node}/cgroup/{cgroup_id}", "HOST_SERVICE", cgroup_id, "")

    def cgroups_of(self, workload: str) -> tuple[int, ...]:
        """The workload cgroups a workload id has now: none when it is not on this node. Any thread."""
        with self._lock:
            return tuple(self._roots.get(workload, ()))

    def directories(self, cgroup_root: Path) -> list[tuple[Path, int]]:
        """Every cgroup that belongs to a workload: its directory, and the workload's cgroup id."""
        mount = _mount_of(cgroup_root)
        return [
            (mount / each.cgroup_path.lstrip("/"), each.workload_cgroup_id)
            for each in tuple(self._by_id.values())
            if each.workload_cgroup_id
        ]

    def __len__(self) -> int:
        return len(self._by_id)

    def _tell(self, change: Callable[[], object]) -> None:
        try:
            change()
        except KernelError:
            # The map is full; the batches still name the workload.
            self.counters["kernel_refused"] += 1


def _is_guarded(path: str, paths: Collection[str]) -> bool:
    if not paths:
        return any("kubepods" in part for part in path.split("/"))
    return any(path == each or path.startswith(each.rstrip("/") + "/") for each in paths)


def _mount_of(directory: Path) -> Path:
    """The topmost directory on the same file system: paths are told from there."""
    top = directory.resolve()
    device = top.stat().st_dev
    while top != top.parent and top.parent.stat().st_dev == device:
        top = top.parent
    return top


def _directories(top: str) -> Iterator[tuple[str, int]]:
    """Each directory from ``top`` on with its inode number, parents first."""
    pending = [(top, os.stat(top).st_ino)]  # noqa: PTH116 - scandir entries below are strings too
    while pending:
        directory, inode = pending.pop()
        yield directory, inode
        try:
            with os.scandir(directory) as entries:
                pending.extend(
                    (entry.path, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False)
                )
        except FileNotFoundError:
            continue
