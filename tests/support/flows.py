# SPDX-License-Identifier: Apache-2.0
"""Random flows near the rules of tests/support/profiles.py, and the rules read as they are written."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from schemas.addresses import to_mapped, to_text
from sensor.policy.layers import Flow
from tests.support.profiles import ADDRESSES, NAMES, PORTS, PROTOCOLS, TCP, UDP

if TYPE_CHECKING:
    from collections.abc import Iterable


def flows() -> st.SearchStrategy[Flow]:
    """Flows without a payload."""
    return st.builds(
        Flow,
        st.sampled_from(["out", "in", "either"]),
        PROTOCOLS,
        ADDRESSES.map(to_mapped),
        PORTS,
        PORTS,
        st.frozensets(NAMES, max_size=2),
        st.booleans(),
    )


def name_matches(rule: str, name: str) -> bool:
    """What a person means by a name rule."""
    if rule == "*":
        return True
    return name.endswith(rule[1:]) if rule.startswith("*.") else rule == name


def passes(network: dict[str, Any], flow: Flow) -> bool:
    """Whether NetworkRules let a flow pass, read as they are written; the reference for the compiled ones."""
    if flow.direction != "in" and _goes_out(network["egress"], flow):
        return True
    return flow.direction != "out" and _comes_in(network["ingress"], flow)


def _goes_out(rules: dict[str, Any] | None, flow: Flow) -> bool:
    if rules is None or not _family_passes(rules, flow):
        return False
    if _may_ask(rules) and flow.to_resolver and flow.remote_port == 53 and flow.protocol in {TCP, UDP}:
        return True
    learned = any(name_matches(rule, name) for rule in rules["names"] for name in flow.learned)
    return _l4_passes(rules["l4"], flow.protocol, flow.remote_port) and (learned or _listed(rules, flow))


def _comes_in(rules: dict[str, Any] | None, flow: Flow) -> bool:
    return (
        rules is not None
        and _family_passes(rules, flow)
        and _l4_passes(rules["l4"], flow.protocol, flow.local_port)
        and _listed(rules, flow)
    )


def _family_passes(rules: dict[str, Any], flow: Flow) -> bool:
    return rules["l3"] is None or ("IPV4" if flow.is_ipv4 else "IPV6") in rules["l3"]


def _may_ask(rules: dict[str, Any]) -> bool:
    l7 = rules["l7"]
    if rules["names"] or (l7 and l7["dns"]):
        return True
    return bool(l7 and l7["protocols"] and "DNS" in l7["protocols"])


def _listed(rules: dict[str, Any], flow: Flow) -> bool:
    address = ipaddress.ip_address(to_text(flow.remote_address))
    return any(address in ipaddress.ip_network(text, strict=False) for text in rules["cidrs"])


def _l4_passes(l4: dict[str, Any] | None, protocol: int, port: int) -> bool:
    if l4 is None or protocol in l4["protocols"]:
        return True
    if any(each["protocol"] == protocol and each["first"] <= port <= each["last"] for each in l4["ports"]):
        return True
    return any(
        each["protocol"] == protocol and each["type"] == port >> 8 and each["code"] in {-1, port & 0xFF}
        for each in l4["icmp"]
    )


def any_passes(networks: Iterable[dict[str, Any]], flow: Flow) -> bool:
    """Whether one of several does."""
    return any(passes(network, flow) for network in networks)
