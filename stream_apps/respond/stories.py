# SPDX-License-Identifier: Apache-2.0
"""The story of each order: what became of it, told as audit events.

Input: orders that go out or are read on their topic, persons' decisions, the sensors' answers. Output: audit
events, taken by :meth:`Stories.taken`. Failure: bounded; a story forgotten is counted and told no further.

Every process reads all orders and all answers; a story is told by the one that has the node.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from schemas.subject import ProcessSubject, WorkloadSubject, parse_subject
from stream_apps.respond.audit import About, Happened, audit_event
from stream_apps.respond.times import TimeToBlock
from stream_apps.respond.undo import reopened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_apps.correlate.pods import PodTable
    from stream_apps.respond.audit import Status
    from stream_apps.respond.waiting import Waiting

# Audit events of answers between two ticks of a second; the sensors' budgets keep below it.
MAX_AUDITS: Final = 10_000
# Orders whose story is told on; each is forgotten when it has ended.
MAX_STORIES: Final = 20_000
# Nodes whose clocks are known.
MAX_NODES: Final = 8192

Key = tuple[str, str]
"""Node and subject."""


@dataclass(slots=True)
class _Story:
    """The newest order of a subject, to tell what becomes of it."""

    about: About
    record: Mapping[str, Any]
    times: TimeToBlock
    told: set[str] = field(default_factory=set)
    reopened: list[str] = field(default_factory=list)


class Stories:
    """All of them.

    Attributes:
        lost: Audit events and stories given up because of a bound.
    """

    def __init__(self, pods: PodTable) -> None:
        self.lost = 0
        self._pods = pods
        self._stories: OrderedDict[Key, _Story] = OrderedDict()
        self._approved: dict[Key, Waiting] = {}
        self._offsets: OrderedDict[str, int] = OrderedDict()
        self._events: deque[dict[str, Any]] = deque()
        self._is_ours: Callable[[str], bool] = lambda _: True

    def takes(self, is_ours: Callable[[str], bool]) -> None:
        """Say which nodes are told of here from now on."""
        self._is_ours = is_ours

    def clock(self, node: str, offset_ns: int) -> None:
        """A node's wall clock minus its boot clock."""
        self._offsets[node] = offset_ns
        self._offsets.move_to_end(node)
        if len(self._offsets) > MAX_NODES:
            self._offsets.popitem(last=False)

    def offset_ns(self, node: str) -> int:
        """The same, as far as known; else 0."""
        return self._offsets.get(node, 0)

    def taken(self) -> list[dict[str, Any]]:
        """The audit events since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    def ordered(self, record: Mapping[str, Any]) -> None:
        """Take an order from the topic: our own, an approved one, or a person's."""
        key = record["node"], record["subject"]
        story = self._stories.get(key)
        if story is None or record["generation"] > story.record["generation"]:
            self._take_up(key, record, story)

    def decided(self, waiting: Waiting) -> None:
        """Take a person's decision on what has waited."""
        key = waiting.node, waiting.subject
        if waiting.state == "APPROVED":
            self._approved[key] = waiting
            if len(self._approved) > MAX_STORIES:
                self._approved.pop(next(iter(self._approved)))
        elif waiting.state == "REJECTED" and self._is_ours(waiting.node):
            happened = Happened("refused", f"rejected: {waiting.reason}", waiting.requested_ns)
            self._say(about_waiting(waiting), happened)

    def answered(self, status: Mapping[str, Any]) -> None:
        """Take a sensor's word."""
        key = status["node"], status["subject"]
        story = self._stories.get(key)
        if story is not None and self._is_ours(status["node"]):
            self._tell(key, story, status)

    def follow(self, about: About, record: Mapping[str, Any]) -> None:
        """An order goes out."""
        key = record["node"], record["subject"]
        offset_ns = self._offsets.get(about.node, 0)
        decided_ns = record["issued_at_ns"] - offset_ns if offset_ns else 0
        times = TimeToBlock(*key, record["alert_id"], record["evidence_boot_ns"], decided_ns)
        self._stories[key] = _Story(about, record, times)
        self._stories.move_to_end(key)
        if len(self._stories) > MAX_STORIES:
            self._stories.popitem(last=False)
            self.lost += 1

    def _take_up(self, key: Key, record: Mapping[str, Any], before: _Story | None) -> None:
        """Follow an order that was not issued by this process, or by a person."""
        approved = self._approved.pop(key, None)
        if approved is not None and approved.alert_id == record["alert_id"]:
            self.follow(about_waiting(approved), record)
        elif before is not None and _lifts(record):
            self.follow(replace(before.about, by=_person(record)), record)
            self._stories[key].reopened = reopened(before.record, record)
        else:
            self.follow(_about_record(record), record)

    def _tell(self, key: Key, story: _Story, status: Mapping[str, Any]) -> None:
        outcome = status["outcome"]
        if status["generation"] != story.record["generation"]:
            return
        times = story.times = TimeToBlock(
            *key,
            story.times.alert_id,
            story.times.evidence_boot_ns,
            story.times.decided_boot_ns,
            status["applied_boot_ns"] or story.times.applied_boot_ns,
            status["first_refused_boot_ns"] or story.times.first_refused_boot_ns,
        )
        what, reason = _status_of(status, story.record)
        happened = Happened(
            what,
            reason,
            status["reported_at_ns"],
            status["generation"],
            story.record["expires_at_ns"],
            times,
            story.reopened if what == "undone" else (),
            status.get("killed", 0),
        )
        again = f"{outcome} {what} {status.get('killed', 0)}"
        if again not in story.told:
            story.told.add(again)
            self._say(story.about, happened)
        if outcome == "ENDED":
            self._stories.pop(key, None)

    def _say(self, about: About, happened: Happened) -> None:
        if len(self._events) >= MAX_AUDITS:
            self.lost += 1
            return
        known = self._pods.describe(about.workload) if about.workload.get("kind") else None
        self._events.append(audit_event(about, happened, known))


def _status_of(status: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[Status, str]:
    outcome, reason = status["outcome"], status["reason"]
    if outcome in {"REFUSED", "FAILED"}:
        return "refused", reason
    if outcome == "ENDED":
        return ("undone" if reason == "lifted" else "expired"), reason
    why = status.get("kill_refused", "")
    if record.get("killed") and why:
        return ("partial" if status.get("killed") else "refused"), why
    return "performed", reason


def about_waiting(waiting: Waiting) -> About:
    """What a response that waits is about."""
    return About(
        waiting.action, waiting.node, _boot_of(waiting.subject), waiting.subject, waiting.rule_id,
        waiting.policy, waiting.alert_id, waiting.decided_by, waiting.observed_ns, waiting.observed_boot_ns,
        waiting.workload,
    )  # fmt: skip


def _about_record(record: Mapping[str, Any]) -> About:
    subject = parse_subject(record["subject"])
    if _lifts(record):
        action = "release"
    elif isinstance(subject, ProcessSubject):
        action = "kill" if record.get("killed") else "quarantine-process"
    else:
        action = "quarantine-pod" if record["quarantined"] else "block-destination"
    workload = {"id": subject.workload_id} if isinstance(subject, WorkloadSubject) else {}
    return About(
        action, record["node"], _boot_of(record["subject"]), record["subject"], "", "", record["alert_id"],
        _person(record), record["issued_at_ns"], record["evidence_boot_ns"], workload,
    )  # fmt: skip


def _lifts(record: Mapping[str, Any]) -> bool:
    return not record["quarantined"] and not record["blocked_destinations"]


def _person(record: Mapping[str, Any]) -> str:
    """Whoever ordered it, in his own words; empty: a rule did."""
    return "" if record["alert_id"] else str(record["reason"])


def _boot_of(subject: str) -> str:
    parsed = parse_subject(subject)
    return parsed.boot_id if isinstance(parsed, ProcessSubject) else ""
