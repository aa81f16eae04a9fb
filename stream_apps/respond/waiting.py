# SPDX-License-Identifier: Apache-2.0
"""Responses that wait: kills for the disarmer's say, others for a person's.

Input: what the responder puts here, and ``PendingResponse`` records read back from ``nsp.responses`` after a
restart, or as a person decided. Output: what is due. Failure: bounded; what finds no room is refused and
counted, never dropped in silence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from stream_apps.detect.rule import Destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_apps.detect.rule import Severity
    from stream_apps.respond.threat import ActionName

# Far more than a person will look at; what waits for the disarmer does so for seconds.
MAX_WAITING: Final = 4096
_ID_DIGITS: Final = 16
_WORKLOAD_FIELDS: Final = ("id", "kind", "cgroup_path", "pod_uid", "container_id")

State = Literal["QUEUED", "PENDING", "APPROVED", "REJECTED", "DONE", "DROPPED"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """One response that waits. It has what :class:`~stream_apps.respond.desired.Cause` asks for.

    Attributes:
        id: From node, subject and action: who asks for the same twice waits once.
        state: QUEUED waits for the disarmer, PENDING for a person; the others are over.
        action: What would be done.
        subject: To whom.
        rule_id: Rule behind it.
        policy: Policy behind it.
        severity: Of the alert.
        alert_id: The alert.
        node: Node.
        summary: What was seen.
        workload: Id, kind, cgroup path, pod uid and container id.
        destinations: What would be blocked.
        allowed: What would pass, as ``AllowedFlow`` records.
        observed_ns: Wall time of the evidence.
        observed_boot_ns: The same, CLOCK_BOOTTIME.
        requested_ns: When it was decided, wall.
        due_ns: QUEUED: when it is done; PENDING: when it is given up.
        expires_ns: When what would be done ends.
        decided_by: The person who decided.
        reason: Why it is in this state.
    """

    id: str
    state: State
    action: ActionName
    subject: str
    rule_id: str
    policy: str
    severity: Severity
    alert_id: str
    node: str
    summary: str
    workload: Mapping[str, Any]
    destinations: tuple[Destination, ...]
    observed_ns: int
    observed_boot_ns: int
    requested_ns: int
    due_ns: int
    expires_ns: int
    allowed: tuple[Mapping[str, Any], ...] = ()
    decided_by: str = ""
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is not over."""
        return self.state in {"QUEUED", "PENDING"}

    def record(self) -> dict[str, Any]:
        """The ``PendingResponse`` record."""
        fields = {name: getattr(self, name) for name in _SAME}
        return {
            **fields,
            "workload": {name: self.workload.get(name) for name in _WORKLOAD_FIELDS},
            "destinations": [
                {"address": each.address, "port": each.port, "protocol": each.protocol}
                for each in self.destinations
            ],
            "allowed": [dict(each) for each in self.allowed],
            "requested_at_ns": self.requested_ns,
            "due_at_ns": self.due_ns,
            "expires_at_ns": self.expires_ns,
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Waiting:
        """Read a ``PendingResponse`` record."""
        return cls(
            **{name: record[name] for name in _SAME},
            workload=record["workload"],
            destinations=tuple(
                Destination(each["address"], each["port"], each["protocol"])
                for each in record["destinations"]
            ),
            allowed=tuple(record["allowed"]),
            requested_ns=record["requested_at_ns"],
            due_ns=record["due_at_ns"],
            expires_ns=record["expires_at_ns"],
        )


_SAME: Final = (
    "id", "state", "action", "subject", "rule_id", "policy", "severity", "alert_id", "node", "summary",
    "observed_ns", "observed_boot_ns", "decided_by", "reason",
)  # fmt: skip


def waiting_id(node: str, subject: str, action: str) -> str:
    """The id of a response that waits."""
    return hashlib.sha256(f"{node}\0{subject}\0{action}".encode()).hexdigest()[:_ID_DIGITS]


class WaitingRoom:
    """All that waits, and what a person decided for as long as that counts.

    Attributes:
        refused: Found no room.
    """

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self.refused = 0
        self._max_waiting = max_waiting
        self._by_id: dict[str, Waiting] = {}
        self._is_ours: Callable[[str], bool] = lambda _: True

    def __len__(self) -> int:
        return sum(each.waits for each in self._by_id.values())

    def takes(self, is_ours: Callable[[str], bool]) -> None:
        """Say which nodes' responses are done here; every process knows of all."""
        self._is_ours = is_ours

    def get(self, which: str, now_ns: int) -> Waiting | None:
        """What waits under an id, or was decided and still counts."""
        found = self._by_id.get(which)
        return found if found is not None and found.expires_ns > now_ns else None

    def put(self, waiting: Waiting) -> bool:
        """Take one in, new or changed; False when there is no room."""
        if waiting.id not in self._by_id and len(self._by_id) >= self._max_waiting:
            self.refused += 1
            return False
        if waiting.state in {"DONE", "DROPPED", "APPROVED"}:
            self._by_id.pop(waiting.id, None)
        else:
            self._by_id[waiting.id] = waiting
        return True

    def due(self, now_ns: int) -> Iterator[Waiting]:
        """What is due here; it is the caller's to say what became of it, with :meth:`put`."""
        for each in list(self._by_id.values()):
            if not each.waits and each.expires_ns <= now_ns:
                del self._by_id[each.id]
            elif each.waits and self._is_ours(each.node) and min(each.due_ns, each.expires_ns) <= now_ns:
                yield each


def over(waiting: Waiting, state: State, reason: str, decided_by: str = "") -> Waiting:
    """The same, over."""
    return replace(waiting, state=state, reason=reason, decided_by=decided_by or waiting.decided_by)
