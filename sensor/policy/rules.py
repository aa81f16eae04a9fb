# SPDX-License-Identifier: Apache-2.0
"""NetworkRules of one program -> the rule set the kernel asks, canonical: same rules, same bytes. Pure.

Input: ``NetworkRules`` as the codec gives it (a canonical SecurityProfile has nothing else). Output: a
:class:`RuleSet`. Failure: :class:`~sensor.policy.errors.PolicyRefused`, and nothing is compiled.

Order and repetition of rules do not matter, nor do rules that others cover. Two rule sets with the same
``content`` are the same to the kernel, so profiles share them and a restarted sensor recognises them.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sensor.policy import layout, names
from sensor.policy.errors import PolicyRefused
from sensor.policy.limits import MAX_RULES_OF_A_PROGRAM, check
from sensor.policy.prefixes import address_prefixes, merged, port_prefixes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

CONTENT_BYTES: Final = 16
_ALL_PROTOCOLS: Final = (1 << 256) - 1
_WORD: Final = (1 << 64) - 1
_FAMILIES: Final = {"IPV4": layout.L3_IPV4, "IPV6": layout.L3_IPV6, "ARP": layout.L3_ARP}
_ALL_FAMILIES: Final = layout.L3_IPV4 | layout.L3_IPV6 | layout.L3_ARP
_L7: Final = {"DNS": layout.L7_DNS, "HTTP": layout.L7_HTTP, "HTTPS": layout.L7_TLS}
_ALL_L7: Final = layout.L7_DNS | layout.L7_HTTP | layout.L7_TLS
_ANY_CODE: Final = -1
_HEAD: Final = struct.Struct("<8QI2B2x")
# In front of the hash: a new meaning of the same bytes gets a new content.
_HASHED_AS: Final = b"nsp rule set 1\0"

Words = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One program's rules as the kernel has them; directions are (out, in).

    Attributes:
        flags: ``NSP_RULESET_*``.
        protocols: A bit for each IP protocol that passes on all its ports.
        l7: ``NSP_L7_*``.
        addresses: Keys of address_rules, sorted.
        ports: Keys of port_rules, sorted.
        names: Reversed names and their ``NSP_NAME_*``, sorted by name.
        http: Keys of http_rules, sorted.
        content: First bytes of the SHA-256 of all of it.
    """

    flags: int
    protocols: tuple[Words, Words]
    l7: tuple[int, int]
    addresses: tuple[bytes, ...]
    ports: tuple[bytes, ...]
    names: tuple[tuple[bytes, int], ...]
    http: tuple[bytes, ...]
    content: bytes

    def items(self, kind: layout.TrieKind) -> Iterator[tuple[bytes, int]]:
        """The entries of one trie: key as the kernel reads it, and value."""
        if kind == "name":
            return ((layout.name_key(name), value) for name, value in self.names)
        keys = {"address": self.addresses, "port": self.ports, "http": self.http}[kind]
        return ((key, 1) for key in keys)

    def count(self, kind: layout.TrieKind) -> int:
        """How many entries one trie has."""
        entries = {"address": self.addresses, "port": self.ports, "name": self.names, "http": self.http}
        return len(entries[kind])


@dataclass(frozen=True, slots=True)
class _Traffic:
    """One direction, compiled."""

    flags: int
    protocols: int
    l7: int
    addresses: list[bytes]
    ports: list[bytes]
    http: set[bytes]


def compile_rules(network: Mapping[str, Any] | None) -> RuleSet:
    """Compile ``NetworkRules``; None lets nothing pass.

    Raises:
        PolicyRefused: A value the kernel cannot hold, or more rules than a program may have.
    """
    network = network or {"raw_sockets": False, "egress": None, "ingress": None}
    egress, ingress = network["egress"], network["ingress"]
    check("rules of one program", _rule_count(egress) + _rule_count(ingress), MAX_RULES_OF_A_PROGRAM)
    going_out, coming_in = _traffic(egress, layout.OUT), _traffic(ingress, layout.IN)
    found = _names(egress, ingress)
    flags = going_out.flags | coming_in.flags << layout.INGRESS_SHIFT
    if any(value & (layout.NAME_ASK | layout.NAME_REACH) for value in found.values()):
        flags |= layout.NAMES
    elif _may_ask_anything(egress):
        flags |= layout.DNS_ANY
    if network["raw_sockets"]:
        flags |= layout.RAW_SOCKETS
    return _complete(
        flags,
        (_words(going_out.protocols), _words(coming_in.protocols)),
        (going_out.l7, coming_in.l7),
        {
            "address": sorted((*going_out.addresses, *coming_in.addresses)),
            "port": sorted((*going_out.ports, *coming_in.ports)),
            "http": sorted(going_out.http | coming_in.http),
        },
        tuple(_with_shorter(found)),
    )


def _complete(
    flags: int,
    protocols: tuple[Words, Words],
    l7: tuple[int, int],
    keys: Mapping[str, list[bytes]],
    names_found: tuple[tuple[bytes, int], ...],
) -> RuleSet:
    digest = hashlib.sha256(_HASHED_AS + _HEAD.pack(*protocols[0], *protocols[1], flags, *l7))
    for kind in ("address", "port", "http"):
        digest.update(struct.pack("<I", len(keys[kind])))
        for key in keys[kind]:
            digest.update(key)
    for name, value in names_found:
        digest.update(layout.name_key(name) + bytes((value,)))
    return RuleSet(
        flags,
        protocols,
        l7,
        tuple(keys["address"]),
        tuple(keys["port"]),
        names_found,
        tuple(keys["http"]),
        digest.digest()[:CONTENT_BYTES],
    )


def _traffic(rules: Mapping[str, Any] | None, direction: int) -> _Traffic:
    if rules is None:
        # Nothing passes: no address does. Going out that is the reason to give; coming in, a port that
        # nobody may reach need not be listened on either.
        return _Traffic(_ALL_FAMILIES, _ALL_PROTOCOLS if direction == layout.OUT else 0, 0, [], [], set())
    flags = _ALL_FAMILIES if rules["l3"] is None else sum(_FAMILIES[each] for each in set(rules["l3"]))
    any_ipv4, any_ipv6, prefixes = address_prefixes(rules["cidrs"])
    flags |= layout.ANY_IPV4 * any_ipv4 | layout.ANY_IPV6 * any_ipv6
    addresses = [layout.address_key(direction, first.to_bytes(16), bits) for first, bits in prefixes]
    protocols, ports = _protocols_and_ports(rules["l4"], direction)
    if direction == layout.IN and not (any_ipv4 or any_ipv6 or addresses):
        protocols, ports = 0, []
    l7, http = _l7(rules["l7"], direction)
    flags |= layout.PORTS * bool(ports) | layout.L7 * bool(l7)
    return _Traffic(flags, protocols, l7, addresses, ports, http)


def _protocols_and_ports(l4: Mapping[str, Any] | None, direction: int) -> tuple[int, list[bytes]]:
    if l4 is None:
        return _ALL_PROTOCOLS, []
    protocols = 0
    for number in l4["protocols"]:
        protocols |= 1 << _in_range("IP protocol", number, 0, 255)
    ranges: dict[int, list[tuple[int, int]]] = {}
    for each in l4["ports"]:
        first = _in_range("port", each["first"], 0, 65535)
        last = _in_range("port", each["last"], first, 65535)
        ranges.setdefault(_in_range("IP protocol", each["protocol"], 0, 255), []).append((first, last))
    for each in l4["icmp"]:
        kind, code = _in_range("ICMP type", each["type"], 0, 255) << 8, each["code"]
        code = code if code == _ANY_CODE else _in_range("ICMP code", code, 0, 255)
        span = (kind, kind | 0xFF) if code == _ANY_CODE else (kind | code, kind | code)
        ranges.setdefault(_in_range("IP protocol", each["protocol"], 0, 255), []).append(span)
    ports = [
        layout.port_key(direction, protocol, first, bits)
        for protocol, spans in ranges.items()
        if not protocols >> protocol & 1
        for span in merged(spans)
        for first, bits in port_prefixes(*span)
    ]
    return protocols, ports


def _l7(rules: Mapping[str, Any] | None, direction: int) -> tuple[int, set[bytes]]:
    """The bits of one direction and its HTTP rules; 0 when every payload, questions too, passes."""
    if rules is None:
        return 0, set()
    bits = _ALL_L7 if rules["protocols"] is None else sum(_L7[each] for each in set(rules["protocols"]))
    http = {_http_key(each, direction) for each in rules["http"]}
    bits |= layout.L7_OPAQUE * bool(rules["opaque"])
    bits |= layout.L7_HTTP_RULES * bool(http) | layout.L7_SNI_RULES * bool(rules["sni"])
    if bits == _ALL_L7 | layout.L7_OPAQUE and not rules["dns"]:
        return 0, set()
    return bits, http


def _http_key(request: Mapping[str, Any], direction: int) -> bytes:
    method, uri = request["method"].encode(), request["uri"].encode()
    uri = uri[:-1] if uri.endswith(b"*") else uri + b" "
    if len(method) > layout.HTTP_METHOD_BYTES or len(uri) > layout.HTTP_URI_BYTES:
        raise PolicyRefused(
            f"HTTP rule {request['method'][:20]} {request['uri'][:80]}: the kernel compares methods of "
            f"{layout.HTTP_METHOD_BYTES} and URIs of {layout.HTTP_URI_BYTES - 1} bytes",
            "end the URI earlier, with a *",
        )
    if b"\0" in method or b" " in uri[:-1]:
        raise PolicyRefused(
            f"HTTP rule {request['method'][:20]} {request['uri'][:80]}: no request is like it"
        )
    return layout.http_key(direction, method, uri)


def _names(egress: Mapping[str, Any] | None, ingress: Mapping[str, Any] | None) -> dict[bytes, int]:
    """Every name rule by its key, with what it alone allows."""
    found: dict[bytes, int] = {}

    def add(rules: Iterable[str], value: int) -> None:
        for rule in rules:
            key = names.rule_key(rule)
            found[key] = found.get(key, 0) | value

    out = (egress or {}).get("l7") or {"dns": (), "sni": ()}
    into = (ingress or {}).get("l7") or {"dns": (), "sni": ()}
    if ingress and (ingress["names"] or into["dns"]):
        raise PolicyRefused("names and l7.dns are rules of egress", "use cidr4 and cidr6 for ingress")
    if egress:
        add(egress["names"], layout.NAME_ASK | layout.NAME_REACH)
    add(out["dns"], layout.NAME_ASK)
    add(out["sni"], layout.NAME_SNI)
    add(into["sni"], layout.NAME_SNI_IN)
    return found


def _with_shorter(found: dict[bytes, int]) -> Iterator[tuple[bytes, int]]:
    """Each name with what every rule that matches it allows, sorted.

    The longest match is all the kernel sees. The suffix of a wildcard is not below itself, but its name
    begins with the wildcard's key: it has an entry of its own, which may allow nothing.
    """
    for key in [key for key in found if key and not names.is_exact(key)]:
        found.setdefault(names.own_name(key), 0)
    above: list[tuple[bytes, int]] = []
    for key in sorted(found):
        while above and not key.startswith(above[-1][0]):
            above.pop()
        matching = above
        if names.is_exact(key) and above and above[-1][0] == key[:-1]:
            matching = above[:-1]
        value = found[key] | (matching[-1][1] if matching else 0)
        if not names.is_exact(key):
            above.append((key, value))
        yield key, value


def _may_ask_anything(egress: Mapping[str, Any] | None) -> bool:
    """DNS is listed, and no name is."""
    l7 = (egress or {}).get("l7")
    return bool(l7 and l7["protocols"] is not None and "DNS" in l7["protocols"])


def _rule_count(rules: Mapping[str, Any] | None) -> int:
    if rules is None:
        return 0
    l4, l7 = rules["l4"], rules["l7"]
    count = len(rules["names"]) + len(rules["cidrs"])
    count += len(l4["protocols"]) + len(l4["ports"]) + len(l4["icmp"]) if l4 else 0
    return count + (len(l7["dns"]) + len(l7["http"]) + len(l7["sni"]) if l7 else 0)


def _in_range(what: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise PolicyRefused(f"{what} {value} is not within {least} to {most}")
    return value


def _words(bits: int) -> Words:
    return bits & _WORD, bits >> 64 & _WORD, bits >> 128 & _WORD, bits >> 192
