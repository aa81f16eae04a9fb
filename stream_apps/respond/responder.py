# SPDX-License-Identifier: Apache-2.0
"""Decides what is done about a threat, in a fixed order of objections.

Input: a :class:`Threat` and the time. Output: a :class:`Response`: what to write into the alert, and the
desired states to publish. The order: severity too low, on the never-cut list, a person's order stands, too
old, in force already, over a limit, dry run; what has no objection is issued. A dry run comes last, so that
it shows what would have happened, limits included.

Generations and expiry come from the evidence, so reprocessing decides the same; only limits and age look at
the present.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from schemas.subject import WorkloadSubject
from stream_apps.detect.rule import RANK, Destination
from stream_apps.respond.threat import Decision, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_apps.detect.rule import Severity
    from stream_apps.respond.desired import DesiredStates, State
    from stream_apps.respond.limits import Limits
    from stream_apps.respond.never_cut import NeverCut
    from stream_apps.respond.threat import ActionName, Threat

# A cut in force is renewed when that makes it last longer by this part of its time.
_RENEWAL_PART: Final = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """What one rule may do.

    Attributes:
        actions: What to do, with the time each lasts in ns; the first is the one an alert names.
        min_severity: Below it, only an alert.
        dry_run: Say what would be done.
    """

    actions: Sequence[tuple[ActionName, int]] = ()
    min_severity: Severity = "HIGH"
    dry_run: bool = True


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
class _Plan:
    """An action on a subject: when it would end, and how long it lasts."""

    action: ActionName
    subject: str
    expires_ns: int
    ttl_ns: int

    @property
    def renewal_ns(self) -> int:
        """What ends later than this needs no renewal."""
        return self.expires_ns - self.ttl_ns // _RENEWAL_PART


class Responder:
    """Decides.

    Args:
        policies: By rule id; a rule without one only alerts.
        never_cut: What is never cut.
        limits: How much may be cut.
        states: What is in force.
        blocking: How destinations are blocked.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        never_cut: NeverCut,
        limits: Limits,
        states: DesiredStates,
        blocking: Blocking,
    ) -> None:
        self._policies = policies
        self._never_cut = never_cut
        self._limits = limits
        self._states = states
        self._blocking = blocking

    def respond(self, threat: Threat, now_ns: int) -> Response:
        """Decide on a threat; the record has the first action, its reason all of them."""
        policy = self._policies.get(threat.rule_id, Policy())
        actions = [each for each in policy.actions if each[0] != "alert"]
        if not actions:
            return _only_alert(f"{threat.rule_id} only alerts")
        if RANK[threat.severity] < RANK[policy.min_severity]:
            return _only_alert(f"{threat.severity} is below {policy.min_severity}, from which on is acted")
        decisions = [self._act(name, ttl_ns, policy, threat, now_ns) for name, ttl_ns in actions]
        first = decisions[0]
        return Response(
            record={
                "action": first.action,
                "decision": first.decision,
                "subject": first.subject,
                "generation": first.generation,
                "expires_at_ns": first.expires_at_ns,
                "reason": "; ".join(f"{each.action}: {each.reason}" for each in decisions),
            },
            enforcements=tuple(each.enforcement for each in decisions if each.enforcement is not None),
            retry=any(each.decision == "rate-limited" for each in decisions),
        )

    def block_further(self, threat: Threat, now_ns: int) -> Response | None:
        """Decide on further destinations of a tree whose alert was told; None when nothing is to do."""
        policy = self._policies.get(threat.rule_id, Policy())
        ttl_ns = dict(policy.actions).get("block-destination")
        if ttl_ns is None or RANK[threat.severity] < RANK[policy.min_severity]:
            return None
        decision = self._block(ttl_ns, policy, threat, now_ns)
        if decision.enforcement is None:
            return None
        return Response({}, (decision.enforcement,), retry=False)

    def _act(self, action: ActionName, ttl_ns: int, policy: Policy, threat: Threat, now_ns: int) -> Decision:
        if action == "quarantine-process":
            return self._quarantine(ttl_ns, policy, threat, now_ns)
        return self._block(ttl_ns, policy, threat, now_ns)

    def _quarantine(self, ttl_ns: int, policy: Policy, threat: Threat, now_ns: int) -> Decision:
        action: ActionName = "quarantine-process"
        if threat.root is None:
            return Decision(action, "none", "there is no process to cut")
        subject = str(threat.root)
        plan = _Plan(action, subject, threat.observed_ns + ttl_ns, ttl_ns)
        state = self._states.get(threat.node, subject, now_ns)
        standing = _objection(plan, self._never_cut.protects_process(threat), state, now_ns)
        if standing is not None:
            return standing
        if state is not None and state.quarantined and state.expires_ns > plan.renewal_ns:
            reason = f"in force already, by alert {state.alert_id}"
            return Decision(action, "issued", reason, subject, state.generation, state.expires_ns)
        limited = self._limited(plan, policy, threat, now_ns)
        if limited is not None:
            return limited
        record = self._states.quarantine(subject, threat, plan.expires_ns, now_ns)
        reason = f"the process tree below process {threat.root.tgid} is off the network"
        return Decision(action, "issued", reason, subject, record["generation"], plan.expires_ns, record)

    def _block(self, ttl_ns: int, policy: Policy, threat: Threat, now_ns: int) -> Decision:
        action: ActionName = "block-destination"
        wanted = self._to_block(threat)
        if not wanted:
            return Decision(action, "none", "there is no destination that may be blocked")
        subject = str(WorkloadSubject(threat.workload["id"]))
        plan = _Plan(action, subject, threat.observed_ns + ttl_ns, ttl_ns)
        state = self._states.get(threat.node, subject, now_ns)
        host = "the workload is the whole host" if threat.workload["kind"] == "HOST" else None
        protected = host or self._never_cut.protects_workload(threat.workload, threat.pod)
        standing = _objection(plan, protected, state, now_ns)
        if standing is not None:
            return standing
        if state is not None and all(state.destinations.get(each, 0) > plan.renewal_ns for each in wanted):
            return Decision(action, "issued", "blocked already", subject, state.generation, state.expires_ns)
        limited = self._limited(plan, policy, threat, now_ns)
        if limited is not None:
            return limited
        record = self._states.block(subject, threat, wanted, plan.expires_ns, now_ns)
        reason = f"{', '.join(each.address for each in wanted)} is out of reach for the workload"
        return Decision(
            action, "issued", reason, subject, record["generation"], record["expires_at_ns"], record
        )

    def _limited(self, plan: _Plan, policy: Policy, threat: Threat, now_ns: int) -> Decision | None:
        limit = self._limits.objection(
            threat.rule_id, threat.node, threat.workload["id"], plan.subject, now_ns
        )
        if limit:
            return Decision(plan.action, "rate-limited", limit, plan.subject)
        if policy.dry_run:
            return Decision(plan.action, "dry-run", "would be issued without dry run", plan.subject)
        return None

    def _to_block(self, threat: Threat) -> list[Destination]:
        wanted: dict[Destination, None] = {}
        for each in threat.destinations:
            if not self._blocking.never(each):
                whole = self._blocking.whole_address
                wanted[Destination(each.address, 0, 0) if whole else each] = None
        return list(wanted)


def _only_alert(reason: str) -> Response:
    record = {
        "action": "alert", "decision": "none", "subject": "", "generation": 0, "expires_at_ns": 0,
        "reason": reason,
    }  # fmt: skip
    return Response(record, (), retry=False)


def _objection(plan: _Plan, protected: str | None, state: State | None, now_ns: int) -> Decision | None:
    """What stands against an action before it is looked at what is in force."""
    if protected:
        return Decision(plan.action, "never-cut", protected, plan.subject)
    if state is not None and state.by_person:
        return Decision(plan.action, "never-cut", f"a person's order stands: {state.reason}", plan.subject)
    if plan.expires_ns <= now_ns:
        reason = f"the evidence is older than the response lasts ({plan.ttl_ns // 1_000_000_000} s)"
        return Decision(plan.action, "expired", reason, plan.subject)
    return None
