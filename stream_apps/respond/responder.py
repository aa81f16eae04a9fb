# SPDX-License-Identifier: Apache-2.0
"""Decides what is done about a threat, in a fixed order of objections.

Input: a :class:`Threat` and the time. Output: a :class:`Response`: what to write into the alert, the desired
states to publish, and what waits. The order: no policy or severity too low, on the never-cut list, a person's
order stands, too old, in force already, too few healthy replicas, over a limit, dry run; what has no
objection is issued, or waits for a person where the policy says so. A dry run comes last, so that it shows
what would have happened, limits included.

What can be taken back goes out at once. A kill cannot: the tree is off the network at once, and is ended
after a pause in which the disarmer may speak against it (:mod:`stream_apps.respond.desk`).

Generations and expiry come from the evidence, so reprocessing decides the same; only limits and age look at
the present.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from stream_apps.detect.rule import RANK
from stream_apps.respond.disarmer import Attempt
from stream_apps.respond.threat import Decision, Response
from stream_apps.respond.waiting import Waiting, waiting_id

if TYPE_CHECKING:
    from stream_apps.correlate.pods import Pod
    from stream_apps.respond.desired import DesiredStates, State
    from stream_apps.respond.limits import Limits
    from stream_apps.respond.plans import Plan, Planner
    from stream_apps.respond.policy import Policy, PolicyBook
    from stream_apps.respond.replicas import Replicas
    from stream_apps.respond.threat import ActionName, Threat
    from stream_apps.respond.waiting import WaitingRoom

_NS_PER_S: Final = 1_000_000_000
# These take a pod out of service: others must be left.
_TOUCHES_POD: Final = frozenset({"quarantine-pod", "kill"})


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long things wait.

    Attributes:
        kill_ns: A kill, for the disarmer.
        approval_ns: Anything, for a person.
    """

    kill_ns: int = 5 * _NS_PER_S
    approval_ns: int = 3600 * _NS_PER_S


@dataclass(frozen=True, slots=True)
class Situation:
    """What the responder looks at before it acts.

    Attributes:
        states: What is in force.
        limits: How much may be cut.
        room: What waits.
        replicas: Who else does the same work.
    """

    states: DesiredStates
    limits: Limits
    room: WaitingRoom
    replicas: Replicas


class Responder:
    """Decides.

    Args:
        book: Who may do what.
        planner: What that is.
        situation: What is so now.
        pauses: How long things wait.
    """

    def __init__(self, book: PolicyBook, planner: Planner, situation: Situation, pauses: Pauses) -> None:
        self.book = book
        self._planner = planner
        self._now = situation
        self._pauses = pauses

    def retune(self, book: PolicyBook, planner: Planner, pauses: Pauses) -> None:
        """Decide by others from now on; what is in force, waits and was counted stays."""
        self.book, self._planner, self._pauses = book, planner, pauses

    def protects(self, waiting: Waiting, pod: Pod | None) -> str | None:
        """Why the workload of what has waited must not be cut by now, or None."""
        return self._planner.protects(waiting.workload, pod)

    def respond(self, threat: Threat, now_ns: int) -> Response:
        """Decide on a threat; the record has the first action, its reason all of them."""
        policy = self.book.choose(threat)
        if policy is None or not policy.acts:
            by = f" by policy {policy.name}" if policy and policy.name != threat.rule_id else ""
            return _only_alert(f"{threat.rule_id} only alerts{by}")
        if RANK[threat.severity] < RANK[policy.min_severity]:
            return _only_alert(f"{threat.severity} is below {policy.min_severity}, from which on is acted")
        decisions = [self._act(name, ttl_ns, policy, threat, now_ns) for name, ttl_ns in policy.acts]
        first = decisions[0]
        by = "" if policy.name == threat.rule_id else f" (policy {policy.name})"
        return Response(
            record={
                "action": first.action,
                "decision": first.decision,
                "subject": first.subject,
                "generation": first.generation,
                "expires_at_ns": first.expires_at_ns,
                "reason": "; ".join(f"{each.action}: {each.reason}" for each in decisions) + by,
            },
            enforcements=tuple(each.enforcement for each in decisions if each.enforcement is not None),
            retry=any(each.decision in {"rate-limited", "disarmed"} for each in decisions),
            decisions=tuple(decisions),
            policy=policy.name,
        )

    def block_further(self, threat: Threat, now_ns: int) -> Response | None:
        """Decide on further destinations of a tree whose alert was told; None when nothing is to do."""
        policy = self.book.choose(threat)
        if policy is None or RANK[threat.severity] < RANK[policy.min_severity]:
            return None
        ttl_ns = dict(policy.acts).get("block-destination")
        if ttl_ns is None:
            return None
        decision = self._act("block-destination", ttl_ns, policy, threat, now_ns)
        if decision.enforcement is None:
            return None
        return Response({}, (decision.enforcement,), retry=False, decisions=(decision,), policy=policy.name)

    def _act(self, action: ActionName, ttl_ns: int, policy: Policy, threat: Threat, now_ns: int) -> Decision:
        plan = self._planner.plan(action, ttl_ns, threat)
        if isinstance(plan, str):
            return Decision(action, "none", plan)
        state = self._now.states.get(threat.node, plan.subject, now_ns)
        standing = _objection(plan, state, now_ns) or self._in_force(plan, state, threat, now_ns)
        if standing is not None:
            return standing
        limited = self._limited(plan, policy, threat, now_ns)
        if limited is not None:
            return limited
        if action in policy.approval:
            return self._wait(plan, policy, threat, now_ns)
        if action == "kill":
            return self._queue_kill(plan, policy, threat, now_ns)
        record = self._issue(plan, threat, now_ns)
        return Decision(
            action, "issued", plan.effect, plan.subject, record["generation"], record["expires_at_ns"], record
        )

    def _issue(self, plan: Plan, threat: Threat, now_ns: int) -> dict[str, Any]:
        states = self._now.states
        if plan.destinations is None:
            return states.quarantine(plan.subject, threat, plan.expires_ns, now_ns)
        return states.block(plan.subject, threat, plan.destinations, plan.expires_ns, now_ns)

    def _in_force(self, plan: Plan, state: State | None, threat: Threat, now_ns: int) -> Decision | None:
        """What is done already, or waits already."""
        mine = state is not None and threat.again and state.alert_id == threat.alert_id
        if state is not None and plan.stands_in(state) and not mine:
            self._now.states.prolong(threat.node, plan.subject, plan.destinations, plan.expires_ns)
            reason = (
                "blocked already" if plan.destinations else f"in force already, by alert {state.alert_id}"
            )
            return Decision(plan.action, "issued", reason, plan.subject, state.generation, state.published_ns)
        waiting = self._now.room.get(waiting_id(threat.node, plan.subject, plan.action), now_ns)
        if waiting is None:
            return None
        if waiting.state == "REJECTED":
            reason = f"{waiting.decided_by or 'a person'} rejected it: {waiting.reason}"
            return Decision(plan.action, "refused", reason, plan.subject)
        return Decision(plan.action, "queued", f"waits already as {waiting.id}", plan.subject)

    def _limited(self, plan: Plan, policy: Policy, threat: Threat, now_ns: int) -> Decision | None:
        if plan.action in _TOUCHES_POD and threat.workload["kind"] == "POD" and policy.min_healthy_replicas:
            too_few = self._now.replicas.too_few(threat.pod, policy.min_healthy_replicas, now_ns)
            if too_few:
                return Decision(plan.action, "refused", too_few, plan.subject)
        attempt = Attempt(threat.node, threat.workload["id"], plan.subject, threat.executable)
        limit = self._now.limits.objection(policy.allowance, threat.rule_id, attempt, now_ns)
        if limit:
            return Decision(plan.action, limit.kind, limit.reason, plan.subject)
        if policy.dry_run:
            return Decision(plan.action, "dry-run", "would be issued without dry run", plan.subject)
        return None

    def _queue_kill(self, plan: Plan, policy: Policy, threat: Threat, now_ns: int) -> Decision:
        """The tree is cut now and ended when nobody objected."""
        waiting = _waiting(plan, policy, threat, now_ns, now_ns + self._pauses.kill_ns)
        record = self._now.states.quarantine(plan.subject, threat, plan.expires_ns, now_ns)
        seconds = self._pauses.kill_ns // _NS_PER_S
        return Decision(
            "kill",
            "queued",
            f"off the network now, ended in {seconds} s if nothing speaks against it",
            plan.subject,
            record["generation"],
            record["expires_at_ns"],
            record,
            waiting,
        )

    def _wait(self, plan: Plan, policy: Policy, threat: Threat, now_ns: int) -> Decision:
        due_ns = min(now_ns + self._pauses.approval_ns, plan.expires_ns)
        waiting = _waiting(plan, policy, threat, now_ns, due_ns, for_person=True)
        if plan.action == "quarantine-pod":
            waiting = replace(waiting, allowed=self._now.states.allowed)
        reason = f"waits for a person: nsp responses approve {waiting.id}"
        return Decision(plan.action, "queued", reason, plan.subject, 0, plan.expires_ns, None, waiting)


def _waiting(
    plan: Plan, policy: Policy, threat: Threat, now_ns: int, due_ns: int, for_person: bool = False
) -> Waiting:
    return Waiting(
        id=waiting_id(threat.node, plan.subject, plan.action),
        state="PENDING" if for_person else "QUEUED",
        action=plan.action,
        subject=plan.subject,
        rule_id=threat.rule_id,
        policy=policy.name,
        severity=threat.severity,
        alert_id=threat.alert_id,
        node=threat.node,
        summary=threat.summary,
        workload=threat.workload,
        destinations=plan.destinations or (),
        observed_ns=threat.observed_ns,
        observed_boot_ns=threat.observed_boot_ns,
        requested_ns=now_ns,
        due_ns=due_ns,
        expires_ns=plan.expires_ns,
    )


def _only_alert(reason: str) -> Response:
    record = {
        "action": "alert", "decision": "none", "subject": "", "generation": 0, "expires_at_ns": 0,
        "reason": reason,
    }  # fmt: skip
    return Response(record, (), retry=False)


def _objection(plan: Plan, state: State | None, now_ns: int) -> Decision | None:
    """What stands against an action before it is looked at what is in force."""
    if plan.protected:
        return Decision(plan.action, "never-cut", plan.protected, plan.subject)
    if state is not None and state.by_person:
        return Decision(plan.action, "never-cut", f"a person's order stands: {state.reason}", plan.subject)
    if plan.expires_ns <= now_ns:
        reason = f"the evidence is older than the response lasts ({plan.ttl_ns // _NS_PER_S} s)"
        return Decision(plan.action, "expired", reason, plan.subject)
    return None
