# SPDX-License-Identifier: Apache-2.0
"""Has orders about profiles carried out, and says what became of them. Knows neither Kafka nor BPF.

Input: verified orders, first the topic's history, then live ones. Output: calls on the sink (sensor/policy),
statuses. Orders are taken as they come and carried out together when no more are waiting: a thousand pods
that start are one change of the kernel's maps.

A profile stays in force until a signed order removes it or it expires by itself; neither a tombstone nor
its absence from the topic removes it. Failure: a profile that is refused leaves the one in force; what the
kernel has no room for is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from sensor.enforce.errors import Refused
from sensor.enforce.profile_order import ProfileOrder, WorkloadsOrder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sensor.enforce.clock import Clock
    from sensor.enforce.ports import Reports

# Twice what a node obeys (sensor/policy/limits.py): generations of removed profiles are remembered too.
MAX_PROFILE_SUBJECTS: Final = 4096
# What could not be applied for want of room is tried again; room comes when something is removed.
RETRY_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """What became of one profile.

    Attributes:
        workloads: Slots it governs now.
        entries: Map entries of its rules.
        refused: Why it is not obeyed, permanently; empty: it is.
        failed: Why it is not in force everywhere yet; empty: it is.
        warnings: For its author.
    """

    workloads: int = 0
    entries: int = 0
    refused: str = ""
    failed: str = ""
    warnings: tuple[str, ...] = ()


class ProfileSink(Protocol):
    """What enforces profiles on this node (sensor/policy/node.py)."""

    def put(self, record: Mapping[str, Any], workloads: Collection[str]) -> str:
        """A profile is there, or is another now; returns why it is refused, or an empty text."""

    def drop(self, key: str) -> None:
        """A profile is gone."""

    def known(self, workloads: Collection[str]) -> None:
        """These are the pods the node has."""

    def apply(self) -> Mapping[str, ProfileResult]:
        """Bring the kernel to it; results by profile key, of all profiles."""

    def tick(self) -> bool:
        """Do what the time asks for; True when something changed that apply() must carry out."""


class ProfileOrders:
    """The newest order of each profile. ``counters`` is shared with the controller's."""

    def __init__(
        self,
        sink: ProfileSink,
        reports: Reports,
        identity: Mapping[str, str],
        clock: Clock,
        counters: dict[str, int],
    ) -> None:
        self._sink = sink
        self._reports = reports
        self._identity = identity
        self._clock = clock
        self._counters = counters
        self._generations: dict[str, int] = {}
        self._waiting: dict[str, ProfileOrder | WorkloadsOrder] = {}
        self._in_force: dict[str, ProfileOrder] = {}
        self._told: dict[str, tuple[int, ProfileResult]] = {}
        self._retry_at_ns = 0

    @property
    def dirty(self) -> bool:
        """Whether orders wait to be carried out."""
        return bool(self._waiting)

    @property
    def active(self) -> bool:
        """Whether a profile is in force or waits: workloads that come must be looked at."""
        return bool(self._in_force or self._waiting)

    def holds(self, subject: str) -> bool:
        """Whether a subject is in force or waiting, so that a tombstone for it is an unsigned removal."""
        return subject in self._in_force or subject in self._waiting

    def take(self, order: ProfileOrder | WorkloadsOrder) -> None:
        """Take one order.

        Raises:
            Refused: ``replayed`` or ``too-many-subjects``.
        """
        subject = str(order.subject)
        before = self._generations.get(subject)
        if before is not None and order.generation < before:
            detail = f"generation {before} was obeyed before"
            raise Refused("replayed", detail, subject, order.generation)
        if before == order.generation:
            self._count("repeated")
            return
        if before is None and len(self._generations) >= MAX_PROFILE_SUBJECTS:
            detail = f"{MAX_PROFILE_SUBJECTS} profiles are known already"
            raise Refused("too-many-subjects", detail, subject, order.generation)
        self._generations[subject] = order.generation
        self._waiting[subject] = order

    def carry_out(self) -> None:
        """Do all that waits, in one change of the kernel's maps."""
        waiting, self._waiting = self._waiting, {}
        removed = [gone for order in waiting.values() if (gone := self._hand_over(order))]
        self._apply()
        for order in removed:
            self._count("profiles_ended")
            self._send(order, "ENDED", ProfileResult(), "removed")

    def _hand_over(self, order: ProfileOrder | WorkloadsOrder) -> ProfileOrder | None:
        """Give an order to the sink; the order, if it removed a profile that was there."""
        if isinstance(order, WorkloadsOrder):
            self._sink.known(order.workloads)
            return None
        subject = str(order.subject)
        if order.profile is None:
            self._sink.drop(f"{order.subject.namespace}/{order.subject.name}")
            self._told.pop(subject, None)
            return order if self._in_force.pop(subject, None) else None
        refused = self._sink.put(order.profile, order.workloads)
        if refused:
            self._count("profiles_refused")
            self._send(order, "REFUSED", ProfileResult(), refused)
        else:
            self._in_force[subject] = order
        return None

    def _apply(self) -> None:
        results = self._sink.apply()
        self._retry_at_ns = 0
        for subject, order in self._in_force.items():
            result = results.get(f"{order.subject.namespace}/{order.subject.name}", ProfileResult())
            if result.failed:
                self._retry_at_ns = self._clock.boot_ns() + RETRY_NS
            if self._told.get(subject) == (order.generation, result):
                continue
            self._told[subject] = order.generation, result
            if result.refused:
                self._send(order, "REFUSED", result, result.refused)
            elif result.failed:
                self._send(order, "FAILED", result, result.failed)
            else:
                self._count("profiles_applied")
                self._send(order, "APPLIED", result, "")

    def tick(self) -> None:
        """Do what the time asks for: profiles that expire, workloads that came, retries."""
        changed = self._sink.tick()
        due = self._retry_at_ns and self._retry_at_ns <= self._clock.boot_ns()
        if self._waiting:
            self.carry_out()
        elif changed or due:
            self._apply()

    def _send(self, order: ProfileOrder, outcome: str, result: ProfileResult, reason: str) -> None:
        applied = outcome in {"APPLIED", "ENDED"}
        self._reports.send({
            **self._identity,
            "subject": str(order.subject),
            "generation": order.generation,
            "outcome": outcome,
            "reason": reason,
            "processes": 0,
            "sockets": 0,
            "alert_id": "",
            "evidence_boot_ns": 0,
            "issued_at_ns": order.issued_at_ns,
            "applied_boot_ns": self._clock.boot_ns() if applied else 0,
            "first_refused_boot_ns": 0,
            "refused_calls": 0,
            "refused_packets": 0,
            "reported_at_ns": self._clock.wall_ns(),
            "profile_generation": order.profile["generation"] if order.profile else 0,
            "workloads": result.workloads,
            "entries": result.entries,
            "warnings": list(result.warnings),
        })  # fmt: skip

    def _count(self, what: str) -> None:
        self._counters[what] = self._counters.get(what, 0) + 1
