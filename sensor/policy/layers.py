# SPDX-License-Identifier: Apache-2.0
"""One rule set asked about one flow, layer by layer, in the kernel's order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from schemas.addresses import MAPPED_PREFIX, to_text
from sensor.policy import layout, names
from sensor.policy.errors import PolicyRefused
from sensor.policy.trie import Trie

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.policy.rules import RuleSet

TCP: Final = 6
UDP: Final = 17
DNS_PORT: Final = 53
PROTOCOL_NAMES: Final = {1: "icmp", TCP: "tcp", UDP: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp"}
_ICMP: Final = frozenset({1, 58})
_MAPPED_BITS: Final = 96
_ADDRESS_HEAD: Final = 4
_HTTP_HEAD: Final = 1 + layout.HTTP_METHOD_BYTES

# Datagrams have no direction: what may go out may be answered, and the reverse.
Direction = Literal["out", "in", "either"]
Layer = Literal["l3", "dns", "l4", "address", "l7"]


@dataclass(frozen=True, slots=True)
class Payload:
    """What will be said on a flow.

    Attributes:
        protocol: ``NSP_L7_DNS``, ``NSP_L7_HTTP``, ``NSP_L7_TLS``, or ``NSP_L7_OPAQUE``.
        name: The question, or the TLS server name.
        method: Of an HTTP request.
        uri: Of an HTTP request.
    """

    protocol: int
    name: str = ""
    method: str = ""
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """What wants to pass.

    Attributes:
        direction: Out for a connection made, in for one accepted and for datagrams to a socket that has
            sent none, either for other datagrams.
        protocol: IP protocol number.
        remote_address: 16 bytes, IPv4 mapped.
        remote_port: For ICMP, type and code.
        local_port: For ICMP, type and code.
        learned: The names a listed resolver has answered with this address.
        to_resolver: The remote end is a listed resolver.
        payload: What will be said, if that is asked too.
    """

    direction: Direction
    protocol: int
    remote_address: bytes
    remote_port: int = 0
    local_port: int = 0
    learned: frozenset[str] = frozenset()
    to_resolver: bool = False
    payload: Payload | None = None

    @property
    def is_ipv4(self) -> bool:
        """The family the kernel goes by."""
        return self.remote_address.startswith(MAPPED_PREFIX)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one layer said.

    Attributes:
        layer: Which.
        reason: Why it stops the flow; 0: it passes.
        rule: The rule that let it pass, as a person writes it.
    """

    layer: Layer
    reason: int
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rule set said: the layers up to the one that stopped the flow; stopped is 0 if none did."""

    stopped: int
    answers: tuple[Answer, ...]


class RuleTries:
    """A compiled rule set to be asked."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._address = Trie(rules.items("address"))
        self._port = Trie(rules.items("port"))
        self._name = Trie(rules.items("name"))
        self._http = Trie(rules.items("http"))

    def ask(self, flow: Flow) -> Asked:
        """Ask every layer until one stops the flow; datagrams are asked the other way then."""
        asked, direction = Asked(layout.REASON_ADDRESS, ()), layout.OUT
        if flow.direction != "in":
            asked = _until_stopped(self._way(flow, layout.OUT))
        if asked.stopped and flow.direction != "out":
            asked, direction = _until_stopped(self._way(flow, layout.IN)), layout.IN
        if asked.stopped or flow.payload is None:
            return asked
        said = self._payload(flow, flow.payload, direction)
        return Asked(said.reason, (*asked.answers, said))

    def name_value(self, name: str) -> tuple[int, str]:
        """What may be done with a name, and the rule that says so."""
        try:
            key = layout.name_key(names.exact_key(name))
        except PolicyRefused:
            return 0, ""  # as the kernel: what is no name passes no rule
        found = self._name.longest(key)
        return (0, "") if found is None else (found[1], names.rule_text(found[0]))

    def _way(self, flow: Flow, direction: int) -> Iterator[Answer]:
        flags = self.rules.flags >> (layout.INGRESS_SHIFT if direction else 0)
        family = layout.L3_IPV4 if flow.is_ipv4 else layout.L3_IPV6
        yield Answer("l3", 0 if flags & family else layout.REASON_L3_PROTOCOL)
        if direction == layout.OUT and self._is_allowed_dns(flow):
            yield Answer("dns", 0, "listed resolver")
        else:
            yield self._protocol(flow, direction, flags)
            yield self._reachable(flow, direction, flags)

    def _is_allowed_dns(self, flow: Flow) -> bool:
        asks = self.rules.flags & (layout.NAMES | layout.DNS_ANY)
        return bool(
            asks and flow.to_resolver and flow.remote_port == DNS_PORT and flow.protocol in {TCP, UDP}
        )

    def _protocol(self, flow: Flow, direction: int, flags: int) -> Answer:
        word = self.rules.protocols[direction][flow.protocol >> 6]
        name = PROTOCOL_NAMES.get(flow.protocol, str(flow.protocol))
        if word >> (flow.protocol & 63) & 1:
            return Answer("l4", 0, f"{name} on every port")
        port = flow.local_port if direction else flow.remote_port
        if flags & layout.PORTS and self._port.get(layout.port_key(direction, flow.protocol, port)):
            shown = f"type {port >> 8} code {port & 0xFF}" if flow.protocol in _ICMP else str(port)
            return Answer("l4", 0, f"{name} {shown}")
        return Answer("l4", layout.REASON_L4_PROTOCOL)

    def _reachable(self, flow: Flow, direction: int, flags: int) -> Answer:
        if flags & (layout.ANY_IPV4 if flow.is_ipv4 else layout.ANY_IPV6):
            return Answer("address", 0, "0.0.0.0/0" if flow.is_ipv4 else "::/0")
        if direction == layout.OUT:
            for name in sorted(flow.learned):
                value, rule = self.name_value(name)
                if value & layout.NAME_REACH:
                    return Answer("address", 0, f"{rule} (answered for {name})")
        found = self._address.longest(layout.address_key(direction, flow.remote_address))
        if found:
            return Answer("address", 0, self._cidr(found[0], direction))
        return Answer("address", layout.REASON_ADDRESS)

    def _cidr(self, data: bytes, direction: int) -> str:
        """A matched prefix as text: its length is found by asking for shorter and shorter keys."""
        address = data[_ADDRESS_HEAD:].ljust(16, b"\0")
        for bits in range(129):
            if self._address.get(layout.address_key(direction, address, bits)):
                mapped = bits >= _MAPPED_BITS and address.startswith(MAPPED_PREFIX)
                return f"{to_text(address)}/{bits - _MAPPED_BITS if mapped else bits}"
        return to_text(address)

    def _payload(self, flow: Flow, payload: Payload, direction: int) -> Answer:
        flags = self.rules.flags >> (layout.INGRESS_SHIFT if direction else 0)
        asks = payload.protocol == layout.L7_DNS and direction == layout.OUT
        if asks and flow.to_resolver and self.rules.flags & (layout.NAMES | layout.DNS_ANY):
            return self._question(payload.name)
        bits = self.rules.l7[direction]
        if not flags & layout.L7:
            return Answer("l7", 0, "every payload")
        if not bits & payload.protocol:
            opaque = payload.protocol == layout.L7_OPAQUE
            return Answer("l7", layout.REASON_OPAQUE if opaque else layout.REASON_L7_PROTOCOL)
        return self._question(payload.name) if asks else self._spoken(payload, direction)

    def _spoken(self, payload: Payload, direction: int) -> Answer:
        bits = self.rules.l7[direction]
        if payload.protocol == layout.L7_HTTP and bits & layout.L7_HTTP_RULES:
            return self._request(payload, direction)
        if payload.protocol == layout.L7_TLS and bits & layout.L7_SNI_RULES:
            value, rule = self.name_value(payload.name)
            return Answer("l7", 0 if value & layout.NAME_SNI else layout.REASON_TLS_SNI, f"sni {rule}")
        return Answer("l7", 0, "protocol")

    def _question(self, name: str) -> Answer:
        flags = self.rules.flags
        if flags & layout.DNS_ANY or not flags & layout.NAMES:
            return Answer("l7", 0, "any question")
        value, rule = self.name_value(name)
        if value & layout.NAME_ASK:
            return Answer("l7", 0, f"question {rule}")
        return Answer("l7", layout.REASON_DNS_NAME)

    def _request(self, payload: Payload, direction: int) -> Answer:
        uri = (payload.uri.encode() + b" ")[: layout.HTTP_URI_BYTES]
        for method in (payload.method.encode(), b""):
            found = self._http.longest(layout.http_key(direction, method, uri))
            if found:
                rule = found[0][_HTTP_HEAD:].decode(errors="backslashreplace")
                exact = rule.endswith(" ")
                return Answer("l7", 0, f"{method.decode() or 'any'} {rule[:-1] if exact else rule + '*'}")
        return Answer("l7", layout.REASON_HTTP_REQUEST)


def _until_stopped(answers: Iterator[Answer]) -> Asked:
    said: list[Answer] = []
    for answer in answers:
        said.append(answer)
        if answer.reason:
            return Asked(answer.reason, tuple(said))
    return Asked(0, tuple(said))
