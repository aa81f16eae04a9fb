# SPDX-License-Identifier: Apache-2.0
"""What is said on a flow, held against a rule set that lets the flow pass below. Pure.

Order and meaning are those of bpf/dns_policy.h for questions, bpf/l7_rules.h for requests and TLS hellos, and
of bpf/l7.c for what is not read: of datagrams nothing is but that they are DNS, at port 53, nor of DNS over
connections to other ports or to a name server of the workload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from schemas.addresses import to_text
from sensor.policy import layout, names
from sensor.policy.layers import DNS_PORT, TCP, UDP, Answer

if TYPE_CHECKING:
    from sensor.policy.layers import Flow, RuleTries

_ANYTHING: Final = "any"
_DOT_SEGMENT: Final = re.compile(r"/\.{1,2}(?=[/#;% ])|%2e")
_SLASH: Final = re.compile(r"\\|%2f|%5c")
_ASK: Final = layout.NAMES | layout.DNS_ANY


@dataclass(frozen=True, slots=True)
class Payload:
    """What will be said on a flow.

    Attributes:
        protocol: ``NSP_L7_DNS``, ``NSP_L7_HTTP``, ``NSP_L7_TLS``, or ``NSP_L7_OPAQUE``.
        name: The question, or the TLS server name; a hello without one has none.
        method: Of an HTTP request.
        uri: Of an HTTP request, as it is sent.
        host: Of an HTTP request, without a port; None: it has no such header.
        encrypted: The TLS hello has an encrypted one within.
    """

    protocol: int
    name: str = ""
    method: str = ""
    uri: str = ""
    host: str | None = None
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Spoken:
    """A payload where it is judged.

    Attributes:
        payload: What is said.
        flow: On which flow.
        direction: Whose rules let the flow pass.
        by_cidr: No name led to the address.
    """

    payload: Payload
    flow: Flow
    direction: int
    by_cidr: bool

    @property
    def field(self) -> str:
        """Where its rules are."""
        return f"{'ingress' if self.direction else 'egress'}.l7"


def is_to_dns(flow: Flow) -> bool:
    """Whether what leaves is taken for a question: by its port, as resolvers are asked."""
    return flow.direction != "in" and flow.remote_port == DNS_PORT and flow.protocol in {TCP, UDP}


def is_served_dns(spoken: Spoken) -> bool:
    """Whether a datagram is a question to a name server of the workload: known as DNS, and no more."""
    came_in = spoken.direction == layout.IN and spoken.flow.protocol == UDP
    return came_in and spoken.flow.local_port == DNS_PORT and spoken.payload.protocol == layout.L7_DNS


def judge(rules: RuleTries, spoken: Spoken) -> Answer:
    """What one rule set says to a payload."""
    if is_to_dns(spoken.flow):
        return _question(rules, spoken)
    if spoken.flow.protocol not in {TCP, UDP} or not rules.direction_flags(spoken.direction) & layout.L7:
        return _passes(spoken, "")
    payload, bits = spoken.payload, rules.rules.l7[spoken.direction]
    if is_served_dns(spoken):
        listed = bits & layout.L7_DNS
        return (
            _passes(spoken, "dns", "protocols")
            if listed
            else _stopped(spoken, layout.REASON_L7_PROTOCOL, "protocols")
        )
    if spoken.flow.protocol == TCP and payload.protocol == layout.L7_HTTP:
        return _request(rules, spoken, bits)
    if spoken.flow.protocol == TCP and payload.protocol == layout.L7_TLS:
        return _hello(rules, spoken, bits)
    return _unreadable(spoken, bits)


def _question(rules: RuleTries, spoken: Spoken) -> Answer:
    flags, readable = rules.rules.flags, spoken.payload.protocol == layout.L7_DNS
    if not (spoken.flow.to_resolver and flags & _ASK):
        as_payload = _question_as_payload(spoken, flags, rules.rules.l7[layout.OUT])
        if as_payload:
            return as_payload
    if readable and (flags & layout.DNS_ANY or not flags & layout.NAMES):
        return Answer("l7", 0, "any name", "egress.l7.protocols")
    key = names.asked_key(spoken.payload.name) if readable else None
    value, rule = rules.name_value(key)
    if value & (layout.NAME_ASK | layout.NAME_REACH):
        reached = value & layout.NAME_REACH
        return Answer("l7", 0, f"question {rule}", "egress.fqdns" if reached else "egress.l7.dns")
    return Answer("l7", layout.REASON_DNS_NAME, field="egress.fqdns and egress.l7.dns")


def _question_as_payload(spoken: Spoken, flags: int, bits: int) -> Answer | None:
    """What is said to any other server than a listed one; None: the name decides."""
    spoken = replace(spoken, direction=layout.OUT)
    if not flags & layout.L7:
        return _passes(spoken, "")
    if spoken.payload.protocol != layout.L7_DNS:
        return _unreadable(spoken, bits)
    return None if bits & layout.L7_DNS else _stopped(spoken, layout.REASON_L7_PROTOCOL, "protocols")


def _request(rules: RuleTries, spoken: Spoken, bits: int) -> Answer:
    payload = spoken.payload
    by_name = spoken.direction == layout.OUT and rules.rules.flags & layout.NAMES
    if not bits & layout.L7_HTTP:
        return _stopped(spoken, layout.REASON_L7_PROTOCOL, "protocols")
    if not (bits & layout.L7_HTTP_RULES or by_name):
        return _passes(spoken, "http", "protocols")
    if payload.host is None:
        return _stopped(spoken, layout.REASON_HTTP_REQUEST, "http (no Host)")
    listed = _listed(rules, spoken) if bits & layout.L7_HTTP_RULES else _ANYTHING
    if not listed:
        return _stopped(spoken, layout.REASON_HTTP_REQUEST, "http")
    host = _host_rule(rules, spoken, payload.host) if by_name else _ANYTHING
    if not host:
        return Answer(
            "l7", layout.REASON_HTTP_REQUEST, field=f"egress.fqdns (for host {payload.host[:80]!r})"
        )
    said = [
        "http" if listed == _ANYTHING else listed,
        *([] if host == _ANYTHING else [f"host {host}"]),
    ]
    return _passes(spoken, ", ".join(said), "http" if bits & layout.L7_HTTP_RULES else "protocols")


def _listed(rules: RuleTries, spoken: Spoken) -> str | None:
    payload = spoken.payload
    method = payload.method.encode()
    if has_dot_segment(payload.uri) or not 0 < len(method) <= layout.HTTP_METHOD_BYTES:
        return None
    return rules.request_rule(spoken.direction, method, payload.uri.encode() + b" ")


def has_dot_segment(uri: str) -> bool:
    """Whether some server would make another path of a URI's."""
    path = uri.partition("?")[0].lower() + " "
    return _DOT_SEGMENT.search(_SLASH.sub("/", path)) is not None


def _host_rule(rules: RuleTries, spoken: Spoken, host: str) -> str:
    wanted = layout.NAME_REACH | layout.NAME_SNI | layout.NAME_ASK * spoken.by_cidr
    value, rule = rules.name_value(names.host_key(host))
    if value & wanted:
        return rule
    flow = spoken.flow
    return "as its address" if flow.is_ipv4 and host == to_text(flow.remote_address) else ""


def _hello(rules: RuleTries, spoken: Spoken, bits: int) -> Answer:
    if not bits & layout.L7_TLS:
        return _stopped(spoken, layout.REASON_L7_PROTOCOL, "protocols")
    if not bits & layout.L7_SNI_RULES:
        return _passes(spoken, "https", "protocols")
    if spoken.payload.encrypted:
        return _unreadable(spoken, bits)
    value, rule = rules.name_value(names.host_key(spoken.payload.name))
    if value & layout.SNI_OF[spoken.direction]:
        return _passes(spoken, f"server name {rule}", "tls.sni")
    return _stopped(spoken, layout.REASON_TLS_SNI, "tls.sni")


def _unreadable(spoken: Spoken, bits: int) -> Answer:
    if bits & layout.L7_OPAQUE:
        return _passes(spoken, "what cannot be read", "opaque")
    return _stopped(spoken, layout.REASON_OPAQUE, "opaque")


def _passes(spoken: Spoken, rule: str, field: str = "") -> Answer:
    return Answer("l7", layout.REASON_NONE, rule, f"{spoken.field}.{field}" if field else "")


def _stopped(spoken: Spoken, reason: int, field: str) -> Answer:
    return Answer("l7", reason, field=f"{spoken.field}.{field}")
