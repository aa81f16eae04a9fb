# SPDX-License-Identifier: Apache-2.0
"""Claims on the wire that a profile spoke against: ARP and neighbour discovery.

Input: a ring record's bytes and offset. Output: ArpSpoofing events appended to the batch. They are rare and
bounded in the kernel, so nothing here is made for speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.publish import layout
from sensor.publish.layout import ALERTED, ARP_EVENT, CLAIM_FINDINGS, REASONS, reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from sensor.publish.batch import BatchBuilder

_ARP: Final = reader(
    ARP_EVENT, "ktime_ns", "start_ns", "tgid", "workload_cgroup_id", "generation", "known_age_ns", "ifindex",
    "netns", "operation", "vlan", "sender_address", "target_address", "sender_mac", "target_mac",
    "source_mac", "known_mac", "protocol", "finding", "verdict", "reason", "direction",
)  # fmt: skip
# enum nsp_claim_protocol and the schema's ClaimProtocol.
_PROTOCOLS: Final = ("ARP", "ND")
_OUT: Final = 0
_LONG_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF


class ClaimEvents:
    """Handlers of events about who claims which address.

    Args:
        batch: What they append to.
    """

    def __init__(self, batch: BatchBuilder) -> None:
        self._batch = batch

    def handlers(self) -> dict[int, Callable[[bytes, int, int], None]]:
        """Event type to handler(ring bytes, offset of the record, position)."""
        return {layout.ARP: self.arp}

    def arp(self, data: bytes, offset: int, position: int) -> None:
        """ArpSpoofing."""
        (
            ktime_ns, start_ns, tgid, cgroup_id, generation, known_age_ns, ifindex, netns, operation, vlan,
            sender, target, sender_mac, target_mac, source_mac, known_mac, protocol, finding, verdict,
            reason, direction,
        ) = _ARP.unpack_from(data, offset)  # fmt: skip
        batch = self._batch
        key = (tgid, start_ns)
        index = batch.index.get(key)
        batch.events.append((
            "nsp.ArpSpoofing",
            {
                "position": position,
                "ktime_ns": ktime_ns,
                "process": batch.process(key) if index is None else index,
                "workload": batch.workload(cgroup_id),
                "interface_index": ifindex,
                "network_namespace": netns,
                "protocol": _PROTOCOLS[protocol],
                "operation": operation,
                "vlan": vlan,
                "outgoing": direction == _OUT,
                "sender_address": batch.addresses[sender],
                "sender_mac": mac_text(sender_mac),
                "target_address": batch.addresses[target],
                "target_mac": mac_text(target_mac),
                "source_mac": mac_text(source_mac),
                "known_mac": mac_text(known_mac) if any(known_mac) else None,
                "known_age_ns": known_age_ns & _LONG_MAX,
                "finding": CLAIM_FINDINGS[finding - 1],
                "reason": REASONS[reason - 1],
                "alerted_only": verdict == ALERTED,
                "generation": generation & _LONG_MAX,
            },
        ))  # fmt: skip


def mac_text(mac: bytes) -> str:
    """As people write it: 02:00:00:00:00:01."""
    return mac.hex(":")
