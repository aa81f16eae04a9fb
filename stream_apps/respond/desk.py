# SPDX-License-Identifier: Apache-2.0
"""Where responses are decided, wait, go out, and are accounted for: the pure whole of ``respond``.

Input: threats, the clock, and what the topics say of orders, of the sensors' answers and of persons'
decisions. Output: :class:`Produced`: orders to publish, ``PendingResponse`` records, and audit events.
Failure: everything kept is bounded and what is forgotten is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stream_apps.respond.audit import About, Happened, audit_event, disarmed_alert
from stream_apps.respond.stories import Stories, about_waiting
from stream_apps.respond.waiting import over

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_apps.correlate.pods import PodTable
    from stream_apps.respond.audit import Status
    from stream_apps.respond.disarmer import DisarmerLimits
    from stream_apps.respond.limits import Rate
    from stream_apps.respond.plans import Planner
    from stream_apps.respond.policy import Policy, PolicyBook
    from stream_apps.respond.responder import Pauses, Responder, Situation
    from stream_apps.respond.threat import Decision, Response, Threat
    from stream_apps.respond.times import Times, TimeToBlock
    from stream_apps.respond.waiting import Waiting

_TOLD: Final[Mapping[str, Status]] = {
    "queued": "queued", "refused": "refused", "never-cut": "refused", "rate-limited": "rate-limited",
    "disarmed": "disarmed", "dismantled": "dismantled", "expired": "expired",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a configuration says of responses.

    Attributes:
        book: Who may do what.
        planner: What that is.
        pauses: How long things wait.
        per_node: Rate of each node.
        fleet: Disarmer over all rules.
        allowed: What passes the quarantine of a workload, as ``AllowedFlow`` records.
    """

    book: PolicyBook
    planner: Planner
    pauses: Pauses
    per_node: Rate
    fleet: DisarmerLimits
    allowed: Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Produced:
    """What is to be published.

    Attributes:
        enforcements: ``Enforcement`` records, not signed yet.
        waiting: ``PendingResponse`` records, not signed yet.
        events: ``Alert`` records of rule nsp.response and of disarmers.
    """

    enforcements: list[dict[str, Any]] = field(default_factory=list)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


class ResponseDesk:
    """All of it. Not thread-safe: one thread calls it."""

    def __init__(self, responder: Responder, situation: Situation, times: Times, pods: PodTable) -> None:
        self._responder = responder
        self._now = situation
        self._times = times
        self._pods = pods
        self._stories = Stories(pods)

    def retune(self, tuning: Tuning, now_ns: int) -> None:
        """Go over to another configuration; what is in force, waits and was counted stays."""
        before = [each.allowance for each in self._responder.book.policies]
        now = [each.allowance for each in tuning.book.policies]
        self._now.limits.load_again(tuning.per_node, tuning.fleet, (before, now), now_ns)
        self._now.states.allowed = tuple(tuning.allowed)
        self._responder.retune(tuning.book, tuning.planner, tuning.pauses)

    def takes(self, is_ours: Callable[[str], bool]) -> None:
        """Say which nodes are told of here from now on."""
        self._stories.takes(is_ours)
        self._now.room.takes(is_ours)

    def respond(self, threat: Threat, now_ns: int) -> Response:
        """See :meth:`Responder.respond`."""
        return self._responder.respond(threat, now_ns)

    def block_further(self, threat: Threat, now_ns: int) -> Response | None:
        """See :meth:`Responder.block_further`."""
        return self._responder.block_further(threat, now_ns)

    def issued(
        self,
        response: Response,
        threat: Threat,
        clock: tuple[str, int],
        now_ns: int,
        *,
        replaying: bool = False,
    ) -> Produced:
        """Account for a response; ``clock`` is the node's boot id and its wall clock minus its boot clock."""
        produced = Produced()
        boot_id, offset_ns = clock
        self._stories.clock(threat.node, offset_ns)
        for decision in response.decisions:
            about = _about(decision, threat, boot_id, response.policy)
            record = decision.enforcement
            if record is not None:
                produced.enforcements.append(record)
                self._times.issued(record, offset_ns)
                self._stories.follow(about, record)
            if decision.waiting is not None and not replaying and self._now.room.put(decision.waiting):
                produced.waiting.append(decision.waiting.record())
            status = _TOLD.get(decision.decision)
            if status is not None:
                happened = Happened(
                    status, decision.reason, now_ns, decision.generation, decision.expires_at_ns
                )
                produced.events.append(audit_event(about, happened, self._pods.describe(threat.workload)))
        return produced

    def tick(self, now_ns: int) -> Produced:
        """Let time pass: parts that are over, what has waited long enough, what was said meanwhile."""
        produced = Produced(enforcements=list(self._now.states.expire(now_ns)))
        for waiting in self._now.room.due(now_ns):
            self._conclude(waiting, now_ns, produced)
        produced.events += [disarmed_alert(each) for each in self._now.limits.changes(now_ns)]
        produced.events += self._stories.taken()
        return produced

    def on_enforcement(self, record: Mapping[str, Any]) -> None:
        """Take an ``Enforcement`` from the topic: our own, an approved one, or a person's."""
        self._stories.ordered(record)
        self._now.states.read_back(record)

    def on_waiting(self, waiting: Waiting) -> None:
        """Take a ``PendingResponse`` from its topic: ours after a restart, or as a person decided."""
        self._now.room.put(waiting)
        self._stories.decided(waiting)

    def on_status(self, status: Mapping[str, Any]) -> TimeToBlock | None:
        """Take a sensor's word; the times of the enforcement it is about, if it was issued here."""
        self._stories.answered(status)
        return self._times.on_status(status)

    def metrics(self) -> Mapping[tuple[str, str], int]:
        """Counters by stage and reason, and sizes of tables (``*_now``)."""
        states, room = self._now.states, self._now.room
        return {
            ("respond", "subjects_evicted"): states.evicted,
            ("respond", "subjects_now"): len(states),
            ("respond", "destinations_dropped"): states.destinations_dropped,
            ("respond", "rules_disarmed_now"): len(self._now.limits.disarmed_rules()),
            ("respond", "times_evicted"): self._times.evicted,
            ("respond", "waiting_now"): len(room),
            ("respond", "waiting_refused"): room.refused,
            ("respond", "audit_events_lost"): self._stories.lost,
        }

    def _conclude(self, waiting: Waiting, now_ns: int, produced: Produced) -> None:
        """What has waited long enough."""
        about = about_waiting(waiting)
        status, reason = self._hindrance(waiting, now_ns)
        workload = self._pods.describe(waiting.workload)
        if status is not None:
            produced.waiting.append(self._end(waiting, "DROPPED", reason))
            happened = Happened(status, reason, now_ns, 0, waiting.expires_ns)
            produced.events.append(audit_event(about, happened, workload))
            return
        record = self._now.states.quarantine(
            waiting.subject, waiting, waiting.expires_ns, now_ns, kill=waiting.action == "kill"
        )
        self._times.issued(record, self._stories.offset_ns(waiting.node))
        self._stories.follow(about, record)
        produced.enforcements.append(record)
        produced.waiting.append(self._end(waiting, "DONE", "nothing spoke against it"))

    def _hindrance(self, waiting: Waiting, now_ns: int) -> tuple[Status | None, str]:
        if waiting.state == "PENDING":
            return "expired", "no person has decided in time"
        if waiting.expires_ns <= now_ns:
            return "expired", "it is older than the response lasts"
        policy = self._responder.book.named(waiting.policy)
        withdrawn = self._withdrawn(waiting, policy)
        if policy is None or withdrawn:
            return "refused", withdrawn
        held = self._now.limits.held_back(policy.allowance, waiting.rule_id)
        if held is not None:
            return held.kind, held.reason
        state = self._now.states.get(waiting.node, waiting.subject, now_ns)
        if state is None or state.by_person:
            return "refused", f"a person's order stands: {state.reason}" if state else "it is cut no more"
        return None, ""

    def _withdrawn(self, waiting: Waiting, policy: Policy | None) -> str:
        """What the configuration, which may be another by now, says against what it wanted done."""
        if policy is None:
            return f"there is no policy {waiting.policy} any more"
        if policy.dry_run:
            return "dry run was switched on meanwhile"
        if waiting.action not in dict(policy.acts):
            return f"policy {policy.name} does not say {waiting.action} any more"
        return self._responder.protects(waiting, self._pods.of_workload(waiting.workload)) or ""

    def _end(self, waiting: Waiting, state: Any, reason: str) -> dict[str, Any]:
        ended = over(waiting, state, reason)
        self._now.room.put(ended)
        return ended.record()


def _about(decision: Decision, threat: Threat, boot_id: str, policy: str) -> About:
    return About(
        decision.action, threat.node, boot_id, decision.subject, threat.rule_id, policy, threat.alert_id, "",
        threat.observed_ns, threat.observed_boot_ns, threat.workload,
    )  # fmt: skip
