# SPDX-License-Identifier: Apache-2.0
"""What interfaces a network namespace has, and what their addresses and gateways are.

Runs in the attaching child only (attach.py), which has entered the namespace: pyroute2 speaks rtnetlink.
Input: the namespace of the calling thread. Output: :class:`Found` per interface. Failure: pyroute2's
NetlinkError, which the child reports with the namespace.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from sensor.kernel.interface_state import BINDING_CONFIRMED, BINDING_GATEWAY, BINDING_OWN, BindingValue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyroute2 import IPRoute

_ARPHRD_ETHER: Final = 1
_MAIN_TABLE: Final = 254
# Gateways of one interface: a router with more next hops than this protects the first ones.
_MAX_GATEWAYS: Final = 64
# NUD_REACHABLE and NUD_PERMANENT: the kernel itself has just heard it, or was told so for good.
_NUD_TRUSTED: Final = 0x02 | 0x80
_ADDRESS_BYTES: Final = 16


@dataclass(slots=True)
class Found:
    """One interface.

    Attributes:
        index: Its number in its namespace.
        name: Its name there.
        kind: veth, bridge, vlan, ...; empty for hardware.
        ethernet: Frames begin with an Ethernet header.
        mac: Of an Ethernet interface.
        master: Index of the bridge or bond it is a port of, or 0.
        far_index: Index of the other end, or of the interface below; 0: none.
        far_namespace: The number by which this namespace knows that of the other end; None: this one.
        addresses: Own addresses and gateways, 16 bytes each, with what is known of them.
    """

    index: int
    name: str
    kind: str
    ethernet: bool
    mac: bytes
    master: int
    far_index: int
    far_namespace: int | None
    addresses: dict[bytes, BindingValue] = field(default_factory=dict)


def survey(route: IPRoute, now_ns: int) -> dict[int, Found]:
    """All interfaces of the namespace, by index.

    Args:
        route: A socket made in that namespace.
        now_ns: CLOCK_BOOTTIME, for neighbours the kernel trusts at this moment.
    """
    found = {link["index"]: _interface(link) for link in route.get_links()}
    for index, address in _gateways(route):
        if index in found and len(found[index].addresses) < _MAX_GATEWAYS:
            found[index].addresses[address] = BindingValue(BINDING_GATEWAY)
    for entry in route.get_neighbours():
        _learn(found, entry, now_ns)
    for entry in route.get_addr():
        text = entry.get("local") or entry.get("address")
        if text is not None and entry["index"] in found:
            addresses = found[entry["index"]].addresses
            own = packed(text)
            flags = addresses[own].flags & BINDING_GATEWAY if own in addresses else 0
            addresses[own] = BindingValue(flags | BINDING_OWN)
    return found


def packed(text: str) -> bytes:
    """16 bytes of an address, IPv4 mapped."""
    address = ip_address(text)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed  # noqa: PLR2004


def _interface(link: Any) -> Found:
    text = link.get("address") or ""
    ethernet = link["ifi_type"] == _ARPHRD_ETHER
    return Found(
        index=link["index"],
        name=link.get("ifname") or "",
        kind=link.get(("linkinfo", "kind")) or "",
        ethernet=ethernet,
        mac=bytes.fromhex(text.replace(":", "")) if ethernet else bytes(6),
        master=link.get("master") or 0,
        far_index=link.get("link") or 0,
        far_namespace=link.get("link_netnsid"),
    )


def _gateways(route: IPRoute) -> Iterable[tuple[int, bytes]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for entry in route.get_routes(family=family, table=_MAIN_TABLE):
            hops = [entry, *(entry.get("multipath") or ())]
            for hop in hops:
                gateway = hop.get("gateway")
                index = hop.get("oif") or hop.get("hop_ifindex") or 0
                if gateway is not None and index:
                    yield index, packed(gateway)


def _learn(found: dict[int, Found], entry: Any, now_ns: int) -> None:
    """The gateway's MAC as the kernel knows it: better than the first claim that comes by."""
    text, lladdr = entry.get("dst"), entry.get("lladdr")
    if text is None or lladdr is None or not entry["state"] & _NUD_TRUSTED:
        return
    interface = found.get(entry["ifindex"])
    address = packed(text)
    if interface is None or address not in interface.addresses:
        return
    mac = bytes.fromhex(lladdr.replace(":", ""))
    interface.addresses[address] = BindingValue(BINDING_GATEWAY | BINDING_CONFIRMED, mac, now_ns)
