# SPDX-License-Identifier: Apache-2.0
"""One rule set asked about one flow, layer by layer, in the kernel's order, up to the payload. Pure.

What is said on a flow is payloads.py's. Both follow bpf/rules.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from schemas.addresses import MAPPED_PREFIX, to_text
from sensor.policy import layout, names
from sensor.policy.trie import Trie

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sensor.policy.payloads import Payload
    from sensor.policy.rules import RuleSet

TCP: Final = 6
UDP: Final = 17
DNS_PORT: Final = 53
PROTOCOL_NAMES: Final = {1: "icmp", TCP: "tcp", UDP: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp"}
_ICMP: Final = frozenset({1, 58})
_MAPPED_BITS: Final = 96
_EVERY_PROTOCOL: Final = ((1 << 64) - 1,) * 4
_ADDRESS_HEAD: Final = 4
_FQDNS: Final = "egress.fqdns"

# Datagrams have no direction: what may go out may be answered, and the reverse.
Direction = Literal["out", "in", "either"]
Layer = Literal["l3", "dns", "l4", "address", "l7"]


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
        field: Where in ``network`` the rule is, or would have to be.
    """

    layer: Layer
    reason: int
    rule: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rule set said.

    Attributes:
        stopped: Why it stops the flow; 0: it passes.
        answers: The layers up to the one that stopped it.
        direction: Whose rules these are: a datagram that may not go out may be an answer to what came in.
        learned: It passes by the address of a name.
    """

    stopped: int
    answers: tuple[Answer, ...] = ()
    direction: int = layout.OUT
    learned: bool = False


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
        asked = Asked(layout.REASON_ADDRESS)
        if flow.direction != "in":
            asked = _until_stopped(self._way(flow, layout.OUT), layout.OUT)
        if asked.stopped and flow.direction != "out":
            asked = _until_stopped(self._way(flow, layout.IN), layout.IN)
        return asked

    def ask_port(self, protocol: int, port: int) -> Asked:
        """Ask whether anybody may come to a local port: what a bind is for."""
        flow = Flow("in", protocol, bytes(16), local_port=port)
        said = self._protocol(flow, layout.IN, self.direction_flags(layout.IN))
        return Asked(said.reason, (said,), layout.IN)

    def name_value(self, key: bytes | None) -> tuple[int, str]:
        """What may be done with a name (names.py has its key), and the rule that says so."""
        found = None if key is None else self._name.longest(layout.name_key(key))
        return (0, "") if found is None else (found[1], names.rule_text(found[0]))

    def request_rule(self, direction: int, method: bytes, uri: bytes) -> str | None:
        """The rule that lists a request (its URI with the blank behind it), if one does."""
        for asked in (method, b""):
            found = self._http.longest(layout.http_key(direction, asked, uri[: layout.HTTP_URI_BYTES]))
            if found:
                rule = found[0][1 + layout.HTTP_METHOD_BYTES :].decode(errors="backslashreplace")
                exact = rule.endswith(" ")
                return f"{asked.decode() or '*'} {rule[:-1] if exact else rule + '*'}"
        return None

    def direction_flags(self, direction: int) -> int:
        """``NSP_RULESET_*`` of one direction."""
        return self.rules.flags >> (layout.INGRESS_SHIFT if direction else 0)

    def _way(self, flow: Flow, direction: int) -> Iterator[Answer]:
        flags = self.direction_flags(direction)
        family = layout.L3_IPV4 if flow.is_ipv4 else layout.L3_IPV6
        passes = flags & family
        yield Answer(
            "l3", 0 if passes else layout.REASON_L3_PROTOCOL, field=_field(direction, "l3.protocols")
        )
        if direction == layout.OUT and self._is_allowed_dns(flow):
            yield Answer("dns", 0, "DNS to a listed resolver")
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
        if self.rules.protocols[direction] == _EVERY_PROTOCOL:
            return Answer("l4", 0, "every protocol and port")
        if word >> (flow.protocol & 63) & 1:
            return Answer("l4", 0, f"{name} on every port", _field(direction, "l4.protocols"))
        port = flow.local_port if direction else flow.remote_port
        if flags & layout.PORTS and self._port.get(layout.port_key(direction, flow.protocol, port)):
            if flow.protocol in _ICMP:
                return Answer(
                    "l4", 0, f"type {port >> 8} code {port & 0xFF}", _field(direction, f"l4.{name}")
                )
            return Answer("l4", 0, f"{name} {port}", _field(direction, "l4.protocolPorts"))
        return Answer("l4", layout.REASON_L4_PROTOCOL, field=_field(direction, "l4"))

    def _reachable(self, flow: Flow, direction: int, flags: int) -> Answer:
        cidrs = _field(direction, "cidr4" if flow.is_ipv4 else "cidr6")
        if flags & (layout.ANY_IPV4 if flow.is_ipv4 else layout.ANY_IPV6):
            return Answer("address", 0, "0.0.0.0/0" if flow.is_ipv4 else "::/0", cidrs)
        if direction == layout.OUT:
            for name in sorted(flow.learned):
                value, rule = self.name_value(names.asked_key(name))
                if value & layout.NAME_REACH:
                    return Answer("address", 0, f"{rule}, answered for {name}", _FQDNS)
        found = self._address.longest(layout.address_key(direction, flow.remote_address))
        if found:
            return Answer("address", 0, self._cidr(found[0], direction), cidrs)
        where = cidrs if direction else f"{_FQDNS} and {cidrs}"
        return Answer("address", layout.REASON_ADDRESS, field=where)

    def _cidr(self, data: bytes, direction: int) -> str:
        """A matched prefix as text: its length is found by asking for shorter and shorter keys."""
        address = data[_ADDRESS_HEAD:].ljust(16, b"\0")
        for bits in range(129):
            if self._address.get(layout.address_key(direction, address, bits)):
                mapped = bits >= _MAPPED_BITS and address.startswith(MAPPED_PREFIX)
                return f"{to_text(address)}/{bits - _MAPPED_BITS if mapped else bits}"
        return to_text(address)


def _field(direction: int, name: str) -> str:
    return f"{'ingress' if direction else 'egress'}.{name}"


def _until_stopped(answers: Iterator[Answer], direction: int) -> Asked:
    said: list[Answer] = []
    for answer in answers:
        said.append(answer)
        if answer.reason:
            return Asked(answer.reason, tuple(said), direction)
    return Asked(0, tuple(said), direction, said[-1].field == _FQDNS)
