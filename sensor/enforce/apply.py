# SPDX-License-Identifier: Apache-2.0
"""Carries out orders in the kernel's maps, whatever their subject is.

Input: verified orders with their end in boot time. Output: what the cut reached, and later what the
kernel counted. Failure: :class:`~sensor.enforce.errors.NotAppliedError`; nothing is half in force that
was not ordered, and each call may be repeated.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from schemas.subject import ProcessSubject, Subject, WorkloadSubject
from sensor.enforce.errors import NotAppliedError
from sensor.enforce.process_cut import Cut, ProcessCuts
from sensor.enforce.workload_cut import WorkloadCuts
from sensor.kernel.errors import KernelError
from sensor.kernel.state import EnforcementValue, ProcessKey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sensor.enforce.kill import Killer
    from sensor.enforce.order import Order
    from sensor.enforce.ports import Maps, Workloads


@dataclass(frozen=True, slots=True)
class Refusals:
    """What the kernel refused because of one order, so far.

    Attributes:
        first_ns: CLOCK_BOOTTIME of the first; 0 if none.
        calls: connect, sendmsg and bind.
        packets: Of flows that were open.
    """

    first_ns: int = 0
    calls: int = 0
    packets: int = 0


class Applier:
    """The one writer of the maps that enforce."""

    def __init__(self, maps: Maps, workloads: Workloads, killer: Killer | None = None) -> None:
        self._maps = maps
        self._killer = killer
        self._workloads = workloads
        self._processes = ProcessCuts(maps)
        self._workload_cuts = WorkloadCuts(maps)
        # Where each workload order stands, to see cgroups come and go.
        self._cgroups: dict[WorkloadSubject, frozenset[int]] = {}

    def adopt(self) -> int:
        """Take over what an earlier sensor left in force; how many quarantines of processes."""
        with _kernel_failures():
            for root, value in self._maps.quarantines():
                self._processes.adopt(root, value.expires_ns)
        return len(self._processes.roots())

    def apply(self, order: Order, expires_ns: int) -> Cut:
        """Bring the kernel to what an order wants.

        Args:
            order: The order; it wants something and has not expired.
            expires_ns: Its end, CLOCK_BOOTTIME.

        Raises:
            NotAppliedError: ``no-such-process``, ``no-such-workload`` (retry: it may come), or what the
                kernel said (retry).
        """
        with _kernel_failures():
            if isinstance(order.subject, ProcessSubject):
                return self._apply_process(order.subject, order, expires_ns)
            return self._apply_workload(order.subject, order, expires_ns)

    def _apply_process(self, subject: ProcessSubject, order: Order, expires_ns: int) -> Cut:
        root = _key(subject)
        try:
            cut = self._processes.cut(root, order.generation, expires_ns)
        except NotAppliedError as error:
            if not order.killed or error.retry:
                raise
            return Cut(0, 0, kill_refused="gone: no process of the tree is alive")
        return self._kill(root, cut) if order.killed else cut

    def forbids_kill(self, subject: Subject) -> str:
        """Why a process must not be ended, by what it is; empty when nothing speaks against it."""
        if self._killer is None:
            return "this sensor ends no processes"
        return self._killer.forbids(_key(subject)) if isinstance(subject, ProcessSubject) else ""

    def _kill(self, root: ProcessKey, cut: Cut) -> Cut:
        """One round; the tree is off the network already."""
        if self._killer is None:
            return cut
        killed = self._killer.kill(root, self._processes.alive(root))
        return replace(cut, killed=killed.ended, kill_refused=killed.refused)

    def _apply_workload(self, subject: WorkloadSubject, order: Order, expires_ns: int) -> Cut:
        cgroups = frozenset(self._workloads.cgroups_of(subject.workload_id))
        self._free_cgroups(self._cgroups.get(subject, frozenset()) - cgroups)
        self._cgroups[subject] = cgroups
        if not cgroups:
            raise NotAppliedError("no-such-workload", retry=True)
        self._workload_cuts.cut(
            cgroups,
            EnforcementValue(generation=order.generation, expires_ns=expires_ns),
            quarantined=order.quarantined,
            destinations=order.destinations,
            allowed=order.allowed,
        )
        return Cut(processes=0, sockets=0)

    def rescan(self, subject: ProcessSubject, *, kill: bool = False) -> Cut:
        """Mark descendants of a cut process that its cut missed; with ``kill`` end whoever is left."""
        root = _key(subject)
        with _kernel_failures():
            cut = self._processes.rescan(root)
            return self._kill(root, cut) if kill and cut.processes else cut

    def restamp(self) -> int:
        """Stamp the sockets that came into quarantined hands since the cut; how many."""
        with _kernel_failures():
            return self._maps.mark_sockets()

    def moved(self, subject: Subject) -> bool:
        """Whether the workload has other cgroups now than those that are cut."""
        if isinstance(subject, ProcessSubject):
            return False
        return frozenset(self._workloads.cgroups_of(subject.workload_id)) != self._cgroups.get(subject)

    def free(self, subject: Subject) -> None:
        """End whatever is in force for a subject, whoever began it."""
        with _kernel_failures():
            if isinstance(subject, ProcessSubject):
                self._processes.free(_key(subject))
                if self._killer is not None:
                    self._killer.forget(_key(subject))
                return
            now = frozenset(self._workloads.cgroups_of(subject.workload_id))
            self._free_cgroups(now | self._cgroups.get(subject, frozenset()))
            self._cgroups.pop(subject, None)

    def _free_cgroups(self, cgroups: Collection[int]) -> None:
        if cgroups:
            self._workload_cuts.free(cgroups)

    def refusals(self, subjects: Iterable[Subject]) -> dict[Subject, Refusals]:
        """What the kernel counted for each subject."""
        wanted = list(subjects)
        found: dict[Subject, Refusals] = {}
        with _kernel_failures():
            for each in wanted:
                if isinstance(each, ProcessSubject):
                    value = self._maps.quarantine(_key(each))
                    found[each] = _sum([value] if value else [])
            if any(isinstance(each, WorkloadSubject) for each in wanted):
                by_cgroup = self._values_by_cgroup()
                for each in wanted:
                    if isinstance(each, WorkloadSubject):
                        cgroups = self._cgroups.get(each, frozenset())
                        found[each] = _sum(
                            [value for cgroup in cgroups for value in by_cgroup.get(cgroup, ())]
                        )
        return found

    def _values_by_cgroup(self) -> dict[int, list[EnforcementValue]]:
        values: dict[int, list[EnforcementValue]] = {}
        for cgroup, value in self._maps.workload_quarantines():
            values.setdefault(cgroup, []).append(value)
        for key, value in self._maps.blocked_destinations():
            values.setdefault(key.workload_cgroup_id, []).append(value)
        return values

    def sweep(self, owned: Collection[Subject], now_ns: int) -> int:
        """Remove what no order owns and the kernel does not enforce any more; how many entries.

        What no order owns but is still in force stays: orders are on a topic that others can delete
        from, and only a signed order lifts. It ends by its own expiry.
        """
        with _kernel_failures():
            return self._sweep_processes(owned, now_ns) + self._sweep_workloads(owned, now_ns)

    def _sweep_processes(self, owned: Collection[Subject], now_ns: int) -> int:
        roots = {_key(each) for each in owned if isinstance(each, ProcessSubject)}
        ended = [
            root
            for root, value in self._maps.quarantines()
            if root not in roots and value.expires_ns <= now_ns
        ]
        for root in ended:
            self._processes.free(root)
        return len(ended)

    def _sweep_workloads(self, owned: Collection[Subject], now_ns: int) -> int:
        cgroups = {
            cgroup
            for each in owned
            if isinstance(each, WorkloadSubject)
            for cgroup in self._cgroups.get(each, frozenset())
        }
        quarantines = [
            cgroup
            for cgroup, value in self._maps.workload_quarantines()
            if cgroup not in cgroups and value.expires_ns <= now_ns
        ]
        blocks = [
            key
            for key, value in self._maps.blocked_destinations()
            if key.workload_cgroup_id not in cgroups and value.expires_ns <= now_ns
        ]
        for cgroup in quarantines:
            self._maps.drop_workload_quarantine(cgroup)
        for key in blocks:
            self._maps.unblock_destination(key)
        quarantined = {cgroup for cgroup, _ in self._maps.workload_quarantines()} - set(quarantines)
        for flow in list(self._maps.allowed_flows()):
            if flow.workload_cgroup_id not in quarantined:
                self._maps.drop_allowed_flow(flow)
        touched = {*quarantines, *(key.workload_cgroup_id for key in blocks)}
        for cgroup in touched - self._values_by_cgroup().keys():
            self._maps.set_workload_flags(cgroup, 0)
        return len(quarantines) + len(blocks)


def _key(subject: ProcessSubject) -> ProcessKey:
    return ProcessKey(tgid=subject.tgid, start_ns=subject.start_ns)


def _sum(values: Collection[EnforcementValue]) -> Refusals:
    return Refusals(
        first_ns=min((each.first_refused_ns for each in values if each.first_refused_ns), default=0),
        calls=sum(each.refused_calls for each in values),
        packets=sum(each.refused_packets for each in values),
    )


@contextmanager
def _kernel_failures() -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        raise NotAppliedError(f"kernel: {error}", retry=True) from error
