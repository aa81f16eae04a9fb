# SPDX-License-Identifier: Apache-2.0
"""The desired state of each subject, as far as it is not over.

A message on ``nsp.enforcement`` is the whole state of its subject, so whoever adds a destination must know
the others. Input: what was decided here, and what is read back from the topic: own messages after a restart,
and persons' orders. Output: ``Enforcement`` records. A person's order stands until it expires; rules leave
its subject alone.

Failure: bounded; a subject forgotten (counted) keeps what the sensor has until that expires, and a further
destination for it would replace the earlier ones.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.rule import Destination

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_apps.respond.threat import Threat

# Subjects in force at once, over all nodes; the sensors' maps are bounded too.
MAX_SUBJECTS: Final = 20_000
# Destinations of one workload; each costs a kernel map entry for every cgroup of it.
MAX_DESTINATIONS: Final = 64

Key = tuple[str, str]
"""Node and subject."""


@dataclass(slots=True)
class State:
    """One subject's desired state.

    Attributes:
        generation: Newest known.
        expires_ns: Wall ns.
        quarantined: May not use the network.
        destinations: Blocked ones, with the wall time each is over.
        alert_id: Alert behind the newest generation; empty for a person's order.
        reason: For people.
        evidence_boot_ns: Of that alert.
    """

    generation: int = 0
    expires_ns: int = 0
    quarantined: bool = False
    destinations: dict[Destination, int] = field(default_factory=dict)
    alert_id: str = ""
    reason: str = ""
    evidence_boot_ns: int = 0

    @property
    def by_person(self) -> bool:
        """Whether a person ordered it."""
        return self.generation != 0 and not self.alert_id


class DesiredStates:
    """All subjects.

    Attributes:
        evicted: Subjects forgotten because of the bound.
        destinations_dropped: Destinations given up because of the bound.
    """

    def __init__(self, max_subjects: int = MAX_SUBJECTS) -> None:
        self.evicted = 0
        self.destinations_dropped = 0
        self._max_subjects = max_subjects
        self._states: OrderedDict[Key, State] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, node: str, subject: str, now_ns: int) -> State | None:
        """The state of a subject; None when there is none or it is over."""
        state = self._states.get((node, subject))
        return state if state is not None and state.expires_ns > now_ns else None

    def quarantine(self, subject: str, threat: Threat, expires_ns: int, now_ns: int) -> dict[str, Any]:
        """Quarantine a process."""
        state = self._renewed(subject, threat)
        state.quarantined = True
        state.expires_ns = expires_ns
        return _record(threat.node, subject, state, now_ns)

    def block(
        self, subject: str, threat: Threat, destinations: list[Destination], expires_ns: int, now_ns: int
    ) -> dict[str, Any]:
        """Block further destinations of a workload."""
        state = self._renewed(subject, threat)
        _drop_over(state, now_ns)
        for each in destinations:
            state.destinations.pop(each, None)
            state.destinations[each] = expires_ns
        while len(state.destinations) > MAX_DESTINATIONS:
            state.destinations.pop(next(iter(state.destinations)))
            self.destinations_dropped += 1
        state.expires_ns = max(state.destinations.values())
        return _record(threat.node, subject, state, now_ns)

    def read_back(self, record: Mapping[str, Any]) -> None:
        """Take an ``Enforcement`` record from the topic."""
        key = record["node"], record["subject"]
        known = self._states.get(key)
        if known is not None and record["generation"] <= known.generation:
            return
        destinations = {
            Destination(each["address"], each["port"], each["protocol"]): record["expires_at_ns"]
            for each in record["blocked_destinations"]
        }
        state = self._put(key, State())
        state.generation = record["generation"]
        state.expires_ns = record["expires_at_ns"]
        state.quarantined = record["quarantined"]
        state.destinations = destinations
        state.alert_id = record["alert_id"]
        state.reason = record["reason"]
        state.evidence_boot_ns = record["evidence_boot_ns"]

    def expire(self, now_ns: int) -> Iterator[dict[str, Any]]:
        """Forget what is over; yields the smaller state of subjects of which a part is.

        The sensor ends a whole subject by itself; single destinations only when told so.
        """
        for key, state in list(self._states.items()):
            if state.expires_ns <= now_ns:
                del self._states[key]
                continue
            over_ns = _drop_over(state, now_ns) if not state.by_person else 0
            if over_ns:
                state.generation = max(state.generation + 1, over_ns)
                yield _record(key[0], key[1], state, now_ns)

    def _renewed(self, subject: str, threat: Threat) -> State:
        key = threat.node, subject
        state = self._states.get(key) or self._put(key, State())
        # From the evidence, so that reprocessing gives the same; above the last one even if the node's
        # clock was set back in between, else the sensor would take it for a replay.
        state.generation = max(threat.observed_ns, state.generation + 1)
        state.alert_id = threat.alert_id
        state.reason = threat.summary
        state.evidence_boot_ns = threat.observed_boot_ns
        return state

    def _put(self, key: Key, state: State) -> State:
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > self._max_subjects:
            self._states.popitem(last=False)
            self.evicted += 1
        return state


def _drop_over(state: State, now_ns: int) -> int:
    """Drop destinations that are over; the latest of their ends, 0 when none was."""
    over = [each for each, until_ns in state.destinations.items() if until_ns <= now_ns]
    return max((state.destinations.pop(each) for each in over), default=0)


def _record(node: str, subject: str, state: State, now_ns: int) -> dict[str, Any]:
    return {
        "node": node,
        "subject": subject,
        "generation": state.generation,
        "issued_at_ns": now_ns,
        "expires_at_ns": state.expires_ns,
        "quarantined": state.quarantined,
        "blocked_destinations": [
            {"address": each.address, "port": each.port, "protocol": each.protocol}
            for each in state.destinations
        ],
        "alert_id": state.alert_id,
        "reason": state.reason,
        "evidence_boot_ns": state.evidence_boot_ns,
    }
