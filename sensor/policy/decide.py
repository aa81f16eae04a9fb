# SPDX-License-Identifier: Apache-2.0
"""What the kernel would say to a flow, asked of the same compiled rules. Pure; for ``nsp explain``.

Order and meaning are those of bpf/profile.h: a flow passes when one rule set of its program lets it pass in
every layer, and the reason of a refusal is that of the rule set which let it come furthest. What dns.c and
l7.c judge later is answered here at once, where the flow says what it will ask or send. Property tests hold
the two together (tests/kernel/test_decide*.py).

Not here, because no rule says it: what is open to the sensor itself and by ``--break-glass``, and the moments
in which a node does not know yet what a name was answered with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from schemas.addresses import MAPPED_PREFIX
from sensor.policy import layout
from sensor.policy.layers import Answer, Asked, Flow, RuleTries
from sensor.policy.payloads import Payload, Spoken, is_to_dns, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sensor.policy.policy import Grants, Policy
    from sensor.policy.profile import Program

Outcome = Literal["allowed", "alerted", "refused"]
_IPV6_LOOPBACK: Final = bytes(15) + b"\1"
_IPV4_LOOPBACK: Final = MAPPED_PREFIX + b"\x7f"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a flow, and why.

    Attributes:
        outcome: What the kernel does.
        reason: ``NSP_REASON_*``; 0 when nothing speaks against it.
        governed: Whether a profile has a say at all.
        trace: For each rule set, by content, what its layers said.
    """

    outcome: Outcome
    reason: int
    governed: bool
    trace: tuple[tuple[bytes, Asked], ...] = ()


def decide(
    policy: Policy | None,
    flow: Flow,
    tries: Mapping[bytes, RuleTries],
    program: Program | None = None,
) -> Verdict:
    """Hold a flow against a policy.

    Args:
        policy: Of the workload; None: it has none.
        flow: What wants to pass.
        tries: The compiled rule sets of the policy, by content.
        program: Who wants it, as far as a profile names it.
    """
    grants = policy.grants_of(program) if policy else None
    if policy is None or grants is None:
        return Verdict("allowed", layout.REASON_NONE, governed=False)
    if not policy.flags & layout.POLICY_LOOPBACK and is_loopback(flow.remote_address):
        if not (flow.payload and flow.to_resolver and is_to_dns(flow)):
            return Verdict("allowed", layout.REASON_NONE, governed=grants.mode != layout.MODE_NONE)
        # The loopback is free, but a resolver there answers for everywhere.
        below = dict.fromkeys(grants.contents, Asked(layout.REASON_NONE))
    else:
        below = {content: tries[content].ask(flow) for content in grants.contents}
    found = _said(below, flow, flow.payload, tries) if flow.payload else below
    return _verdict(policy, grants, found)


def decide_bind(
    policy: Policy | None,
    protocol: int,
    port: int,
    tries: Mapping[bytes, RuleTries],
    program: Program | None = None,
) -> Verdict:
    """Hold a bind to a local port against a policy: somebody must be allowed to come to it."""
    grants = policy.grants_of(program) if policy else None
    if policy is None or grants is None or not port:
        return Verdict("allowed", layout.REASON_NONE, governed=False)
    found = {content: tries[content].ask_port(protocol, port) for content in grants.contents}
    return _verdict(policy, grants, found)


def is_loopback(address: bytes) -> bool:
    """127.0.0.0/8 and ::1, of 16 bytes."""
    return address == _IPV6_LOOPBACK or address.startswith(_IPV4_LOOPBACK)


def _verdict(policy: Policy, grants: Grants, found: Mapping[bytes, Asked]) -> Verdict:
    if grants.mode == layout.MODE_NONE:
        return Verdict("allowed", layout.REASON_NONE, governed=False, trace=tuple(found.items()))
    reason = _reason(found.values())
    outcome: Outcome = "allowed"
    if reason:
        outcome = "refused" if grants.mode == layout.MODE_ENFORCE else "alerted"
        if policy.flags & layout.POLICY_UNKNOWN_WORKLOAD:
            reason = layout.REASON_UNKNOWN_WORKLOAD
    return Verdict(outcome, reason, governed=True, trace=tuple(found.items()))


def _said(
    below: Mapping[bytes, Asked], flow: Flow, payload: Payload, tries: Mapping[bytes, RuleTries]
) -> dict[bytes, Asked]:
    """What the rule sets that let the flow pass say to its payload."""
    by_cidr = not any(asked.learned for asked in below.values() if not asked.stopped)
    found = dict(below)
    for content, asked in below.items():
        if not asked.stopped:
            answer = judge(tries[content], Spoken(payload, flow, asked.direction, by_cidr))
            found[content] = replace(asked, stopped=answer.reason, answers=(*asked.answers, answer))
    return found


def _reason(asked: Iterable[Asked]) -> int:
    stopped = [each.stopped for each in asked]
    if layout.REASON_NONE in stopped:
        return layout.REASON_NONE
    return max(stopped, default=layout.REASON_L3_PROTOCOL)


__all__ = [
    "Answer", "Asked", "Flow", "Outcome", "Payload", "RuleTries", "Verdict", "decide", "decide_bind",
    "is_loopback",
]  # fmt: skip
