# SPDX-License-Identifier: Apache-2.0
"""Ends a process and all that descends from it, or nobody.

Input: the live processes of a quarantined tree, by (tgid, start). Output: :class:`Killed`. The tree is off
the network and each newborn inherits its mark, so nobody leaves it unseen; what was born meanwhile is for the
next round. Before the first signal every process of the tree is looked at: one that is protected, and none
is ended. Each is looked at again, behind its pidfd, in the moment it is ended.

Protected are: process 1 and below, the sensor and its ancestors, kernel threads, what break-glass entries
name, and executables on the list. The list counts for processes of the host and its services only: inside of
a container anybody can call a file /usr/sbin/sshd.

Failure: what cannot be looked at is protected; what the system does not let us end is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from sensor.workload.paths import identify

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sensor.enforce.ports import Maps
    from sensor.enforce.signals import Facts, Signals
    from sensor.kernel.state import ProcessKey

# A tree larger than this is no intruder's but a mistake: it is quarantined, and a person decides.
MAX_KILLED: Final = 4096
_LAST_RESERVED_TGID: Final = 1
# So many links up the sensor is at process 1; a loop in /proc cannot hold us.
_MAX_ANCESTORS: Final = 64
_OF_THE_HOST: Final = frozenset({"HOST", "HOST_SERVICE"})

DEFAULT_PROTECTED: Final = (
    "*/sshd", "*/sshd-session", "*/kubelet", "*/containerd", "*/containerd-shim*", "*/dockerd", "*/crio",
    "*/conmon", "*/runc", "*/crun", "*/systemd", "*/systemd-*", "*/dbus-daemon", "*/init", "*/k3s",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Protection:
    """Who is never ended.

    Attributes:
        executables: Shell patterns of executable paths.
        services: Units or cgroup paths that break-glass entries name.
    """

    executables: tuple[str, ...] = DEFAULT_PROTECTED
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Killed:
    """What became of a tree.

    Attributes:
        ended: Processes that were sent the signal, over all rounds.
        refused: Why not all of them; empty: nothing speaks against it.
    """

    ended: int
    refused: str = ""


class Killer:
    """Ends trees.

    Args:
        maps: Who is alive, as the kernel has it.
        signals: How it is done.
        protection: Who is spared.
        own_tgid: The sensor.
    """

    def __init__(self, maps: Maps, signals: Signals, protection: Protection, own_tgid: int) -> None:
        self._maps = maps
        self._signals = signals
        self._services = frozenset(protection.services)
        patterns = "|".join(translate(each) for each in protection.executables)
        self._executables = re.compile(patterns) if patterns else None
        self._own_tgid = own_tgid
        self._ended: dict[ProcessKey, set[ProcessKey]] = {}

    def forbids(self, key: ProcessKey) -> str:
        """Why a process must not be ended; empty when it may, or is gone."""
        spared = self._spared()
        if key.tgid <= _LAST_RESERVED_TGID or key.tgid in spared:
            return self._words(key.tgid, spared)
        facts = self._signals.facts(key.tgid)
        return "" if facts is None or not self._is(key, facts) else self._objection(facts, spared)

    def kill(self, root: ProcessKey, members: Collection[ProcessKey]) -> Killed:
        """One round: end every live process of a tree, or, if one is protected, none."""
        ended = self._ended.setdefault(root, set())
        if len(members) > MAX_KILLED:
            return Killed(len(ended), f"too-many: {len(members)} processes are more than {MAX_KILLED}")
        spared = self._spared()
        for key in members:
            facts = self._signals.facts(key.tgid)
            why = self._objection(facts, spared) if facts is not None and self._is(key, facts) else ""
            if why:
                return Killed(len(ended), f"protected: {why}")
        refused = ""
        # Parents before children: nobody is left to take a child's end for a reason to start another.
        for key in sorted(members, key=lambda each: each.start_ns):
            try:
                if self._signals.kill(key.tgid, lambda key=key: self._may_end(key, spared)):  # type: ignore[misc]
                    ended.add(key)
            except OSError as error:
                refused = f"not-permitted: process {key.tgid}: {error.strerror}"
        return Killed(len(ended), refused)

    def forget(self, root: ProcessKey) -> None:
        """A tree is no concern any more."""
        self._ended.pop(root, None)

    def _may_end(self, key: ProcessKey, spared: Collection[int]) -> bool:
        """The last look, behind an open pidfd."""
        facts = self._signals.facts(key.tgid)
        return facts is not None and self._is(key, facts) and not self._objection(facts, spared)

    def _is(self, key: ProcessKey, facts: Facts) -> bool:
        """Whether the process of that tgid is the one meant: to the kernel's map and to /proc."""
        if facts.unreadable and not facts.start_ticks:
            return True  # nobody can say; then it is protected
        known = self._maps.process(key.tgid)
        return known is not None and known.start_ns == key.start_ns and facts.started_at(key.start_ns)

    def _objection(self, facts: Facts, spared: Collection[int]) -> str:
        words = self._words(facts.tgid, spared)
        if words:
            return words
        if facts.kernel_thread:
            return f"process {facts.tgid} is a kernel thread"
        if facts.unreadable:
            return f"process {facts.tgid} cannot be looked at: {facts.unreadable}"
        identity = identify(facts.cgroup)
        if self._named_by_break_glass(identity.unit or "", facts.cgroup):
            return f"process {facts.tgid} is in a service that break-glass entries name"
        if (
            identity.kind in _OF_THE_HOST
            and self._executables is not None
            and self._executables.match(facts.executable)
        ):
            return f"{facts.executable} (process {facts.tgid}) is on the list of protected executables"
        return ""

    def _words(self, tgid: int, spared: Collection[int]) -> str:
        if tgid <= _LAST_RESERVED_TGID:
            return f"process {tgid} is the node's own"
        if tgid == self._own_tgid:
            return f"process {tgid} is the sensor"
        return f"process {tgid} is an ancestor of the sensor" if tgid in spared else ""

    def _named_by_break_glass(self, unit: str, cgroup: str) -> bool:
        if unit and unit in self._services:
            return True
        return any(
            cgroup == each.rstrip("/") or cgroup.startswith(each.rstrip("/") + "/")
            for each in self._services
            if each.startswith("/") and each != "/"
        )

    def _spared(self) -> frozenset[int]:
        return frozenset(self._ancestors())

    def _ancestors(self) -> Iterable[int]:
        """The sensor and what it came from."""
        tgid = self._own_tgid
        for _ in range(_MAX_ANCESTORS):
            yield tgid
            facts = self._signals.facts(tgid)
            if facts is None or facts.parent <= _LAST_RESERVED_TGID:
                return
            tgid = facts.parent
