# SPDX-License-Identifier: Apache-2.0
"""What each action would do to whom: the subject, what protects it, and the order it would be.

Input: a threat, an action and its time to live. Output: a :class:`Plan`, or in words why there is nothing to
do. Pure; who may do it is the responder's question.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from schemas.subject import WorkloadSubject
from stream_apps.detect.rule import Destination

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_apps.correlate.pods import Pod
    from stream_apps.respond.desired import State
    from stream_apps.respond.never_cut import NeverCut
    from stream_apps.respond.threat import ActionName, Threat

# A cut in force is renewed when that makes it last longer by this part of its time.
_RENEWAL_PART: Final = 2


@dataclass(frozen=True, slots=True)
class Blocking:
    """How destinations are blocked.

    Attributes:
        whole_address: All ports and protocols of an address, not just the one that was used.
        never: Tells destinations that are never blocked.
    """

    whole_address: bool = True
    never: Callable[[Destination], bool] = field(default=lambda _: False)


@dataclass(frozen=True, slots=True)
class Plan:
    """An action on a subject.

    Attributes:
        action: Which.
        subject: Whom.
        expires_ns: When it would end.
        ttl_ns: How long it lasts.
        effect: What it does, for people.
        protected: Why it must not be; None: it may.
        destinations: What it blocks; None: it quarantines.
    """

    action: ActionName
    subject: str
    expires_ns: int
    ttl_ns: int
    effect: str
    protected: str | None
    destinations: tuple[Destination, ...] | None = None

    @property
    def renewal_ns(self) -> int:
        """What ends later than this needs no renewal."""
        return self.expires_ns - self.ttl_ns // _RENEWAL_PART

    def stands_in(self, state: State | None) -> bool:
        """Whether a state has it already, for long enough."""
        if state is None or state.published_ns <= self.renewal_ns:
            return False
        if self.destinations is not None:
            return all(state.destinations.get(each, 0) > self.renewal_ns for each in self.destinations)
        until_ns = state.killed_ns if self.action == "kill" else state.quarantined_ns
        return until_ns > self.renewal_ns


class Planner:
    """Plans.

    Args:
        never_cut: What is never cut.
        blocking: How destinations are blocked.
    """

    def __init__(self, never_cut: NeverCut, blocking: Blocking) -> None:
        self._never_cut = never_cut
        self._blocking = blocking

    def protects(self, workload: Mapping[str, Any], pod: Pod | None) -> str | None:
        """Why nothing in a workload must be cut, or None."""
        return self._never_cut.protects_workload(workload, pod)

    def plan(self, action: ActionName, ttl_ns: int, threat: Threat) -> Plan | str:
        """What an action would do; in words why nothing."""
        expires_ns = threat.observed_ns + ttl_ns
        if action in {"quarantine-process", "kill"}:
            if threat.root is None:
                return "there is no process to cut"
            tree = f"the process tree below process {threat.root.tgid}"
            effect = f"{tree} is ended" if action == "kill" else f"{tree} is off the network"
            protected = self._never_cut.protects_process(threat)
            return Plan(action, str(threat.root), expires_ns, ttl_ns, effect, protected)
        subject = str(WorkloadSubject(threat.workload["id"]))
        host = "the workload is the whole host" if threat.workload["kind"] == "HOST" else None
        protected = host or self._never_cut.protects_workload(threat.workload, threat.pod)
        if action == "quarantine-pod":
            effect = "the whole workload is off the network, but for the allow-list"
            return Plan(action, subject, expires_ns, ttl_ns, effect, protected)
        wanted = self._to_block(threat)
        if not wanted:
            return "there is no destination that may be blocked"
        effect = f"{', '.join(each.address for each in wanted)} is out of reach for the workload"
        return Plan(action, subject, expires_ns, ttl_ns, effect, protected, wanted)

    def _to_block(self, threat: Threat) -> tuple[Destination, ...]:
        wanted: dict[Destination, None] = {}
        for each in threat.destinations:
            if not self._blocking.never(each):
                whole = self._blocking.whole_address
                wanted[Destination(each.address, 0, 0) if whole else each] = None
        return tuple(wanted)
