# SPDX-License-Identifier: Apache-2.0
"""Cuts a process and all that descends from it, and frees them again.

The kernel refuses what a process marked with a quarantine root sends while that root's entry in
``quarantines`` is in force; a child inherits its parent's mark at fork, in the kernel. What is left to do
here is to mark those who were born before the cut.

**Cut**: the entry first, so that each mark has effect at once and a crash in the middle leaves what is
marked cut; then the root; then by turns a scan over the live processes and a stamp on the open sockets of
the marked, until a scan finds nobody new. A descendant is known by the ancestors the kernel remembers for
each process (they outlive the ancestors, so orphans and double forks are found), and beyond those by the
parents it remembers for the ended. A process born during a scan has a parent that was marked before (and
inherits the mark), or a quarantined ancestor near enough for the fork program to see, or is found by the
next scan. One that ended before its mark came may have children: it counts as somebody new. What is left
is found by the controller, which scans again a tick later, until a scan finds nobody.

**Nested**: a process in several quarantined trees carries the root whose quarantine ends last. **Free**:
processes still covered by another root get that one first, then the entry goes, which frees all others at
once, then their marks are cleared.

Failure: what the maps raise; every step may be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sensor.enforce.errors import NotAppliedError
from sensor.kernel.state import ANCESTORS, EnforcementValue, ProcessKey

if TYPE_CHECKING:
    from sensor.enforce.ports import Maps
    from sensor.kernel.state import ProcessValue

# Each scan after the first finds only what was born unmarked during the one before; more than a few
# means that marks do not stick, and then the next tick goes on.
MAX_SCANS: Final = 16

# As many as the kernel remembers of the ended, by default: no chain it could answer for is longer.
MAX_LINKS: Final = 65536

# Members are kept after they ended, so that a chain of descent is not lost with them. Above this the
# oldest trees still hold together by the ancestors the kernel keeps.
MAX_MEMBERS: Final = 8192


@dataclass(slots=True)
class _Tree:
    """One quarantined tree.

    Attributes:
        expires_ns: When its quarantine ends, CLOCK_BOOTTIME.
        members: The root and every descendant seen so far, ended ones too.
        live: How many were alive at the last scan.
    """

    expires_ns: int
    members: set[ProcessKey] = field(default_factory=set)
    live: int = 0
    _tgids: set[int] = field(default_factory=set)

    def add(self, key: ProcessKey) -> None:
        """Take in a member."""
        if len(self.members) < MAX_MEMBERS:
            self.members.add(key)
            self._tgids.add(key.tgid)

    def may_hold(self, tgid: int, process: ProcessValue) -> bool:
        """False for most who are not in the tree, by numbers alone: hashing keys is ten times slower."""
        tgids = self._tgids
        carried = process.quarantine_root
        if tgid in tgids or (carried is not None and carried.tgid in tgids):
            return True
        return any(each.tgid in tgids for each in process.ancestors)

    def holds(self, key: ProcessKey, process: ProcessValue) -> bool:
        """Whether a live process is in the tree."""
        members = self.members
        # Whoever carries the mark of a member's own quarantine descends from that member.
        if key in members or process.quarantine_root in members:
            return True
        return any(each in members for each in process.ancestors)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a cut reached.

    Attributes:
        processes: Live processes of the tree.
        sockets: Sockets already open that were stamped.
        settled: The last scan found nobody new.
        killed: Processes ended, over all rounds.
        kill_refused: Why not all of them; empty: nothing speaks against it.
    """

    processes: int
    sockets: int
    settled: bool = True
    killed: int = 0
    kill_refused: str = ""


class ProcessCuts:
    """All quarantined trees of this node."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._trees: dict[ProcessKey, _Tree] = {}

    def adopt(self, root: ProcessKey, expires_ns: int) -> None:
        """Take over a quarantine that an earlier sensor began."""
        tree = self._trees.setdefault(root, _Tree(expires_ns))
        tree.add(root)

    def roots(self) -> frozenset[ProcessKey]:
        """The roots of all trees that are cut."""
        return frozenset(self._trees)

    def cut(self, root: ProcessKey, generation: int, expires_ns: int) -> Cut:
        """Cut a tree, or complete the cut of one.

        An entry of this generation that is in the kernel already stays as it is, with its counters.

        Raises:
            NotAppliedError: ``no-such-process``: neither the process nor a descendant is alive.
        """
        present = self._maps.quarantine(root)
        if present is None or present.generation != generation:
            self._maps.set_quarantine(root, EnforcementValue(generation=generation, expires_ns=expires_ns))
        self.adopt(root, expires_ns)
        tree = self._trees[root]
        shortened, tree.expires_ns = expires_ns < tree.expires_ns, expires_ns
        process = self._maps.process(root.tgid)
        if process is not None and process.start_ns == root.start_ns:
            wanted = self._lasting(root, process.quarantine_root)
            self._maps.mark_process(root.tgid, root.start_ns, wanted)
        sockets, settled = self._mark_all(root, tree)
        if not tree.live:
            self.free(root)
            raise NotAppliedError("no-such-process", retry=False)
        if shortened:  # others may last longer now, and must not end with this one's marks
            self._settle_others(root)
        return Cut(tree.live, sockets, settled)

    def rescan(self, root: ProcessKey) -> Cut:
        """Mark descendants that earlier scans missed."""
        tree = self._trees[root]
        newly = self._scan(root, tree)
        return Cut(tree.live, self._maps.mark_sockets() if newly else 0, settled=not newly)

    def alive(self, root: ProcessKey) -> list[ProcessKey]:
        """The live processes of a tree."""
        tree = self._trees.get(root)
        if tree is None:
            return []
        return [
            key
            for tgid, process in self._maps.processes()
            if tree.may_hold(tgid, process)
            and tree.holds(key := ProcessKey(tgid=tgid, start_ns=process.start_ns), process)
        ]

    def free(self, root: ProcessKey) -> None:
        """End a quarantine, whether or not this sensor began it."""
        self._trees.pop(root, None)
        self._settle_others(root)
        if self._trees:
            self._maps.mark_sockets()
        self._maps.drop_quarantine(root)
        for tgid, process in self._maps.processes():
            if process.quarantine_root == root:
                self._maps.mark_process(tgid, process.start_ns, None)

    def _mark_all(self, root: ProcessKey, tree: _Tree) -> tuple[int, bool]:
        """Scan and stamp by turns until a scan finds nobody new; sockets stamped, and whether it did."""
        self._scan(root, tree)
        sockets = self._maps.mark_sockets()
        for _ in range(MAX_SCANS - 1):
            if not self._scan(root, tree):
                return sockets, True
            sockets += self._maps.mark_sockets()
        return sockets, False

    def _settle_others(self, root: ProcessKey) -> None:
        for other, tree in list(self._trees.items()):
            if other != root:
                self._settle(other, tree)

    def _settle(self, root: ProcessKey, tree: _Tree) -> bool:
        return any(not self._scan(root, tree) for _ in range(MAX_SCANS))

    def _scan(self, root: ProcessKey, tree: _Tree) -> int:
        """One pass over the live processes; how many had to be marked."""
        newly = live = 0
        for tgid, process in self._maps.processes():
            near = tree.may_hold(tgid, process)
            if not near and len(process.ancestors) < ANCESTORS:
                continue
            key = ProcessKey(tgid=tgid, start_ns=process.start_ns)
            carried = process.quarantine_root
            if not (near and tree.holds(key, process)) and not self._descends(tree, process):
                continue
            live += 1
            tree.add(key)
            wanted = self._lasting(root, carried)
            if carried != wanted:
                # Even if it has ended meanwhile and was not marked: it may have children by now.
                newly += 1
                self._maps.mark_process(tgid, process.start_ns, wanted)
        tree.live = live
        return newly

    def _descends(self, tree: _Tree, process: ProcessValue) -> bool:
        """Whether a process all of whose remembered ancestors have ended is below a member even so."""
        if len(process.ancestors) < ANCESTORS:
            return False
        link: ProcessKey | None = process.ancestors[-1]
        for _ in range(MAX_LINKS):
            link = self._maps.parent_of_ended(link) if link is not None else None
            if link is None:
                return False
            if link in tree.members:
                return True
        return False

    def _lasting(self, root: ProcessKey, carried: ProcessKey | None) -> ProcessKey:
        """Of the root to mark with and the one carried, the one whose quarantine ends last."""
        other = self._trees.get(carried) if carried is not None else None
        if carried is None or other is None or other.expires_ns <= self._trees[root].expires_ns:
            return root
        return carried
