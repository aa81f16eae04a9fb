# SPDX-License-Identifier: Apache-2.0
"""What the kernel would say to a flow, asked of the same compiled rules. Pure; for ``nsp explain``.

Order and meaning are those of bpf/profile.h: a flow passes when one rule set of its program lets it pass in
every layer, and the reason of a refusal is that of the rule set which let it come furthest. A property test
holds the two together (tests/kernel/test_decide.py). Beyond it, what dns.c, http.c and tls.c judge later is
answered here at once, where the flow says what it will ask or send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from schemas.addresses import MAPPED_PREFIX
from sensor.policy import layout
from sensor.policy.layers import Answer, Asked, Flow, RuleTries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sensor.policy.policy import Policy
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
    if policy is None or grants is None or grants.mode == layout.MODE_NONE:
        return Verdict("allowed", layout.REASON_NONE, governed=False)
    if not policy.flags & layout.POLICY_LOOPBACK and is_loopback(flow.remote_address):
        return Verdict("allowed", layout.REASON_NONE, governed=True)
    trace = tuple((content, tries[content].ask(flow)) for content in grants.contents)
    reason = _reason([asked for _, asked in trace])
    outcome: Outcome = "allowed"
    if reason:
        outcome = "refused" if grants.mode == layout.MODE_ENFORCE else "alerted"
        if policy.flags & layout.POLICY_UNKNOWN_WORKLOAD:
            reason = layout.REASON_UNKNOWN_WORKLOAD
    return Verdict(outcome, reason, governed=True, trace=trace)


def is_loopback(address: bytes) -> bool:
    """127.0.0.0/8 and ::1, of 16 bytes."""
    return address == _IPV6_LOOPBACK or address.startswith(_IPV4_LOOPBACK)


def _reason(asked: list[Asked]) -> int:
    stopped = [each.stopped for each in asked]
    if layout.REASON_NONE in stopped:
        return layout.REASON_NONE
    return max(stopped, default=layout.REASON_L3_PROTOCOL)


__all__ = ["Answer", "Asked", "Flow", "Outcome", "RuleTries", "Verdict", "decide", "is_loopback"]
