# SPDX-License-Identifier: Apache-2.0
"""The account of every event: produced = seen + counted lost, or the difference by name.

Input: batches in topic order, repeated ones included. Output: :class:`Totals`, of a node and of all. The
kernel numbers events per CPU, failed attempts included, and each batch says which numbers it covers; the
loss counters are cumulative. So over any stretch of batches

    numbers covered - events seen = missing, to be explained by what the loss counters grew by.

A counter may run ahead: the kernel has counted a loss whose number no later event of that CPU has shown
yet. Such losses are produced and lost, only not yet numbered (``unnumbered``); they can't hide a hole for
longer than until that CPU's next event.

The first batch of a node that isn't the first of its ring is the base line: its numbers and counters, and
nothing before, are where the account starts. Failure: bounded in nodes; the totals of a node forgotten, of
an old boot or an old ring are kept as one sum.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_apps.correlate.order import MAX_NODES, Admission, Ordering

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Loss counters of which one is one numbered event that no batch holds. The others are told for diagnosis:
# something was cut short or done again, no event went missing.
EVENT_LOSSES: Final = frozenset({
    ("kernel", "ring_full"),
    ("kernel", "scratch_missing"),
    ("decode", "unknown_type"),
    ("decode", "malformed"),
    ("decode", "unused"),
    ("encode", "failed"),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Totals:
    """An account.

    Attributes:
        produced: Events the kernel tried to report.
        seen: Events read, each once.
        lost: Events counted as lost.
        unaccounted: Events missing that no counter explains.
        unnumbered: Of ``lost``, those whose sequence numbers have not shown yet.
        duplicates: Events read again and dropped; not part of the others.
        gaps: Holes between ring positions of batches.
    """

    produced: int = 0
    seen: int = 0
    lost: int = 0
    unaccounted: int = 0
    unnumbered: int = 0
    duplicates: int = 0
    gaps: int = 0

    def plus(self, other: Totals) -> Totals:
        """The sum of two accounts."""
        return Totals(*(getattr(self, name) + getattr(other, name) for name in Totals.__slots__))


@dataclass(slots=True)
class _Account:
    numbered: int = 0
    seen: int = 0
    lost: int = 0
    duplicates: int = 0
    gaps: int = 0
    last: dict[int, int] = field(default_factory=dict)
    counters: dict[tuple[str, str], int] = field(default_factory=dict)

    def totals(self) -> Totals:
        missing = self.numbered - self.seen
        explained = max(missing, self.lost)
        return Totals(
            produced=self.seen + explained,
            seen=self.seen,
            lost=self.lost,
            unaccounted=max(0, missing - self.lost),
            unnumbered=max(0, self.lost - missing),
            duplicates=self.duplicates,
            gaps=self.gaps,
        )


class LossLedger:
    """Keeps the accounts.

    Attributes:
        evicted: Nodes forgotten because of the bound.
    """

    def __init__(self, max_nodes: int = MAX_NODES) -> None:
        self.evicted = 0
        self._max_nodes = max_nodes
        self._ordering = Ordering(max_nodes)
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._closed = Totals()

    def add(self, batch: dict[str, Any], admission: Admission | None = None) -> None:
        """Take a batch.

        Args:
            batch: An EventBatch.
            admission: What is new of it, when somebody has worked that out already.
        """
        admitted = admission if admission is not None else self._ordering.admit(batch)
        account = self._accounts.get(batch["node"])
        if account is None or admitted.new_ring:
            self._open(batch, admitted)
            return
        self._accounts.move_to_end(batch["node"])
        self._count(account, batch, admitted)

    def totals(self) -> Totals:
        """The account of everything."""
        total = self._closed
        for account in self._accounts.values():
            total = total.plus(account.totals())
        return total

    def by_node(self) -> Iterator[tuple[str, Totals]]:
        """The account of each node since its ring, or this account of it, began."""
        return ((node, account.totals()) for node, account in self._accounts.items())

    def _open(self, batch: dict[str, Any], admitted: Admission) -> None:
        node = batch["node"]
        closed = self._accounts.pop(node, None)
        if closed is None and len(self._accounts) >= self._max_nodes:
            _, closed = self._accounts.popitem(last=False)
            self.evicted += 1
        if closed is not None:
            self._closed = self._closed.plus(closed.totals())
        account = self._accounts[node] = _Account()
        if batch["sequence"] == 1:
            self._count(account, batch, admitted)
            return
        account.last = {each["cpu"]: each["last_seq"] for each in batch["cpus"]}
        account.counters = _event_losses(batch["losses"])

    @staticmethod
    def _count(account: _Account, batch: dict[str, Any], admitted: Admission) -> None:
        account.seen += len(admitted.events) - admitted.notices
        account.duplicates += admitted.duplicates
        account.gaps += admitted.gap_bytes > 0
        last = account.last
        for entry in batch["cpus"]:
            cpu = entry["cpu"]
            # A CPU first met later on began with 1: per-CPU numbers start when the ring does. In an account
            # opened midway its first number here is where it starts.
            before = last.get(cpu, entry["first_seq"] - 1)
            if entry["last_seq"] > before:
                account.numbered += entry["last_seq"] - before
                last[cpu] = entry["last_seq"]
        counters = _event_losses(batch["losses"])
        for key, count in counters.items():
            known = account.counters.get(key, 0)
            # Lower than before: a new sensor counts from zero. (The kernel's go on.) An old batch that
            # comes again brings old counters: nothing new in it, nothing counted.
            if count > known:
                account.lost += count - known
            elif count < known and not admitted.duplicates:
                account.lost += count
            else:
                continue
            account.counters[key] = count


def _event_losses(losses: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for each in losses:
        key = each["stage"], each["reason"]
        if key in EVENT_LOSSES:
            found[key] = each["count"]
    return found
