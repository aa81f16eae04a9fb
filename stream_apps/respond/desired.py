# SPDX-License-Identifier: Apache-2.0
"""The desired state of each subject, as far as it is not over.

A message on ``nsp.enforcement`` is the whole state of its subject, so whoever adds a destination must know
the others. Input: what was decided here, and what is read back from the topic: own messages after a restart,
and persons' orders. Output: ``Enforcement`` records. A person's order stands until it expires; rules leave
its subject alone.

What is wanted of a subject only ever grows together: the later end of each part, the union of destinations.
So the same evidence in whatever order, however often, gives the same state, and nothing flaps between a
stronger and a weaker response; a part ends when its own time is over.

Failure: bounded; a subject forgotten (counted) keeps what the sensor has until that expires, and a further
destination for it would replace the earlier ones.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from stream_apps.detect.rule import Destination

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Subjects in force at once, over all nodes; the sensors' maps are bounded too.
MAX_SUBJECTS: Final = 20_000
# Destinations of one workload; each costs a kernel map entry for every cgroup of it.
MAX_DESTINATIONS: Final = 64
# What is wanted for longer than was published is published so long before the published end: far above what
# an order takes, far below a TTL.
RENEW_BEFORE_NS: Final = 60_000_000_000

Key = tuple[str, str]
"""Node and subject."""


class Cause(Protocol):
    """What a desired state rests on: a threat, or a response that has waited."""

    @property
    def node(self) -> str:
        """Node."""

    @property
    def alert_id(self) -> str:
        """The alert."""

    @property
    def summary(self) -> str:
        """For people."""

    @property
    def observed_ns(self) -> int:
        """Wall time of the evidence."""

    @property
    def observed_boot_ns(self) -> int:
        """The same, CLOCK_BOOTTIME."""


@dataclass(slots=True)
class State:
    """One subject's desired state.

    Attributes:
        generation: Newest known.
        published_ns: When the newest published order ends, wall ns.
        quarantined_ns: May not use the network until then; 0: it may.
        killed_ns: Is to be ended, if that happens before then; 0: it may live.
        destinations: Blocked ones, with the wall time each is over.
        allowed: What passes a quarantine, as ``AllowedFlow`` records.
        alert_id: Alert behind the newest generation; empty for a person's order.
        reason: For people.
        evidence_boot_ns: Of that alert.
    """

    generation: int = 0
    published_ns: int = 0
    quarantined_ns: int = 0
    killed_ns: int = 0
    destinations: dict[Destination, int] = field(default_factory=dict)
    allowed: tuple[Mapping[str, Any], ...] = ()
    alert_id: str = ""
    reason: str = ""
    evidence_boot_ns: int = 0

    @property
    def by_person(self) -> bool:
        """Whether a person ordered it."""
        return self.generation != 0 and not self.alert_id

    @property
    def expires_ns(self) -> int:
        """When the last part is over."""
        parts = max(self.quarantined_ns, self.killed_ns, *self.destinations.values(), 0)
        return self.published_ns if self.by_person else parts


class DesiredStates:
    """All subjects.

    Attributes:
        evicted: Subjects forgotten because of the bound.
        destinations_dropped: Destinations given up because of the bound.
        allowed: What passes the quarantine of a workload, as ``AllowedFlow`` records.
    """

    def __init__(self, max_subjects: int = MAX_SUBJECTS, allowed: Sequence[Mapping[str, Any]] = ()) -> None:
        self.evicted = 0
        self.destinations_dropped = 0
        self._max_subjects = max_subjects
        self.allowed = tuple(allowed)
        self._states: OrderedDict[Key, State] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, node: str, subject: str, now_ns: int) -> State | None:
        """The state of a subject; None when there is none or it is over."""
        state = self._states.get((node, subject))
        return state if state is not None and state.expires_ns > now_ns else None

    def quarantine(
        self, subject: str, cause: Cause, expires_ns: int, now_ns: int, *, kill: bool = False
    ) -> dict[str, Any]:
        """Quarantine a process or a workload; with ``kill`` end the process tree too."""
        state = self._known(cause.node, subject)
        _drop_over(state, now_ns)
        state.quarantined_ns = max(state.quarantined_ns, expires_ns)
        if kill:
            state.killed_ns = max(state.killed_ns, expires_ns)
        if subject.startswith("workload/"):
            state.allowed = self.allowed
        return _renewed(subject, state, cause, now_ns)

    def block(
        self, subject: str, cause: Cause, destinations: Sequence[Destination], expires_ns: int, now_ns: int
    ) -> dict[str, Any]:
        """Block further destinations of a workload."""
        state = self._known(cause.node, subject)
        _drop_over(state, now_ns)
        self._want(state, destinations, expires_ns)
        return _renewed(subject, state, cause, now_ns)

    def prolong(
        self, node: str, subject: str, destinations: Sequence[Destination] | None, expires_ns: int
    ) -> None:
        """Want what is in force already until later; published when that is worth it (:meth:`expire`)."""
        state = self._states[node, subject]
        if destinations is None:
            state.quarantined_ns = max(state.quarantined_ns, expires_ns)
        else:
            self._want(state, destinations, expires_ns)

    def read_back(self, record: Mapping[str, Any]) -> None:
        """Take an ``Enforcement`` record from the topic."""
        key = record["node"], record["subject"]
        known = self._states.get(key)
        if known is not None and record["generation"] <= known.generation:
            return
        until_ns = record["expires_at_ns"]
        state = self._put(key, State())
        state.generation = record["generation"]
        state.published_ns = until_ns
        state.quarantined_ns = until_ns if record["quarantined"] else 0
        state.killed_ns = until_ns if record.get("killed") else 0
        state.destinations = {
            Destination(each["address"], each["port"], each["protocol"]): until_ns
            for each in record["blocked_destinations"]
        }
        state.allowed = tuple(record.get("allowed", ()))
        state.alert_id = record["alert_id"]
        state.reason = record["reason"]
        state.evidence_boot_ns = record["evidence_boot_ns"]

    def expire(self, now_ns: int) -> Iterator[dict[str, Any]]:
        """Forget what is over; yields the smaller or longer state of subjects of which a part is.

        The sensor ends a whole subject by itself; single parts only when told so.
        """
        for key, state in list(self._states.items()):
            if state.expires_ns <= now_ns:
                del self._states[key]
                continue
            if state.by_person:
                continue
            over_ns = _drop_over(state, now_ns)
            ends_soon = state.published_ns - now_ns < RENEW_BEFORE_NS
            if over_ns or (ends_soon and state.expires_ns > state.published_ns):
                state.generation = max(state.generation + 1, over_ns)
                yield _record(key[0], key[1], state, now_ns)

    def _want(self, state: State, destinations: Sequence[Destination], expires_ns: int) -> None:
        for each in destinations:
            state.destinations[each] = max(state.destinations.pop(each, 0), expires_ns)
        spare = len(state.destinations) - MAX_DESTINATIONS
        if spare > 0:
            # Those that end first, by name where they end together: whatever came in which order.
            for each in sorted(state.destinations, key=lambda one: _rank(one, state))[:spare]:
                del state.destinations[each]
            self.destinations_dropped += spare

    def _known(self, node: str, subject: str) -> State:
        return self._states.get((node, subject)) or self._put((node, subject), State())

    def _put(self, key: Key, state: State) -> State:
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > self._max_subjects:
            self._states.popitem(last=False)
            self.evicted += 1
        return state


def _rank(destination: Destination, state: State) -> tuple[int, str, int, int]:
    until_ns = state.destinations[destination]
    return until_ns, destination.address, destination.port, destination.protocol


def _drop_over(state: State, now_ns: int) -> int:
    """Drop parts that are over; the latest of their ends, 0 when none was."""
    over = [each for each, until_ns in state.destinations.items() if until_ns <= now_ns]
    ends = [state.destinations.pop(each) for each in over]
    if 0 < state.quarantined_ns <= now_ns:
        ends.append(state.quarantined_ns)
        state.quarantined_ns, state.allowed = 0, ()
    if 0 < state.killed_ns <= now_ns:
        ends.append(state.killed_ns)
        state.killed_ns = 0
    return max(ends, default=0)


def _renewed(subject: str, state: State, cause: Cause, now_ns: int) -> dict[str, Any]:
    # From the evidence, so that reprocessing gives the same; above the last one even if the node's
    # clock was set back in between, else the sensor would take it for a replay.
    state.generation = max(cause.observed_ns, state.generation + 1)
    state.alert_id = cause.alert_id
    state.reason = cause.summary
    state.evidence_boot_ns = cause.observed_boot_ns
    return _record(cause.node, subject, state, now_ns)


def _record(node: str, subject: str, state: State, now_ns: int) -> dict[str, Any]:
    state.published_ns = state.expires_ns
    return {
        "node": node,
        "subject": subject,
        "generation": state.generation,
        "issued_at_ns": now_ns,
        "expires_at_ns": state.published_ns,
        "quarantined": bool(state.quarantined_ns),
        "blocked_destinations": [
            {"address": each.address, "port": each.port, "protocol": each.protocol}
            for each in state.destinations
        ],
        "alert_id": state.alert_id,
        "reason": state.reason,
        "evidence_boot_ns": state.evidence_boot_ns,
        "allowed": [dict(each) for each in state.allowed] if state.quarantined_ns else [],
        "killed": bool(state.killed_ns),
    }
