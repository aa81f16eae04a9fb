# SPDX-License-Identifier: Apache-2.0
"""The structs of bpf/state.h as frozen dataclasses, with their exact bytes.

tests/kernel/test_layout.py compares every size and offset with what a C compiler says. Times are
CLOCK_BOOTTIME nanoseconds, addresses 16 bytes with IPv4 mapped, ports in host order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

# NSP_LAYOUT_VERSION of bpf/events.h.
LAYOUT_VERSION: Final = 2
# NSP_ANCESTORS of bpf/state.h.
ANCESTORS: Final = 8
ADDRESS_BYTES: Final = 16

# NSP_WORKLOAD_*: values of workload_flags.
WORKLOAD_HAS_BLOCKS: Final = 1
WORKLOAD_HAS_QUARANTINE: Final = 2
WORKLOAD_HAS_ALLOWED: Final = 4
# NSP_ALLOWED_FLOW_BITS: what is compared before the address.
_ALLOWED_FLOW_BITS: Final = 96

# enum nsp_counter, in order.
COUNTERS: Final = (
    "ring_full",
    "scratch_missing",
    "process_map_full",
    "workload_map_full",
    "socket_storage",
    "owner_unknown",
    "process_unknown",
    "read_failed",
    "dns_malformed",
    "dns_tcp_segmented",
    "dns_too_long",
    "path_truncated",
    "packet_unparsed",
    "tail_call",
    "learned_full",
    "learned_unsolicited",
    "learned_other_owner",
    "name_too_long",
    "policy_reports_spared",
    "l7_too_long",
    "l7_opaque",
    "l7_reordered",
    "arp_malformed",
    "arp_table_full",
    "packet_socket",
)

_KEY: Final = "QII"


@dataclass(frozen=True, slots=True)
class ProcessKey:
    """``struct nsp_process_key``: a process for ever, because a tgid alone is reused."""

    tgid: int
    start_ns: int

    layout: ClassVar = struct.Struct(f"<{_KEY}")

    def pack(self) -> bytes:
        """The key's bytes, padding zero."""
        return self.layout.pack(self.start_ns, self.tgid, 0)

    @classmethod
    def unpack(cls, data: bytes) -> ProcessKey:
        """Of the key's bytes."""
        start_ns, tgid, _ = cls.layout.unpack(data)
        return cls(tgid, start_ns)


@dataclass(frozen=True, slots=True)
class ProcessValue:
    """``struct nsp_process``; ancestors nearest first, without the empty places."""

    start_ns: int
    inode: int
    quarantine_root: ProcessKey | None
    ancestors: tuple[ProcessKey, ...]
    dev: int
    flags: int
    program: int = 0
    script: int = 0

    layout: ClassVar = struct.Struct(f"<QQ{_KEY}{_KEY * ANCESTORS}IIII")
    # Where quarantine_root lies: mark_process replaces these bytes only.
    root_offset: ClassVar[int] = 16

    def pack(self) -> bytes:
        """The value's bytes."""
        root = self.quarantine_root
        numbers = [self.start_ns, self.inode, *((root.start_ns, root.tgid, 0) if root else (0, 0, 0))]
        for ancestor in self.ancestors[:ANCESTORS]:
            numbers += [ancestor.start_ns, ancestor.tgid, 0]
        numbers += [0, 0, 0] * (ANCESTORS - len(self.ancestors))
        return self.layout.pack(*numbers, self.dev, self.flags, self.program, self.script)

    @classmethod
    def unpack(cls, data: bytes) -> ProcessValue:
        """Of the value's bytes."""
        numbers = cls.layout.unpack(data)
        root = ProcessKey(numbers[3], numbers[2]) if numbers[3] else None
        triples = range(5, 5 + 3 * ANCESTORS, 3)
        ancestors = tuple(ProcessKey(numbers[at + 1], numbers[at]) for at in triples if numbers[at + 1])
        return cls(numbers[0], numbers[1], root, ancestors, *numbers[-4:])


@dataclass(frozen=True, slots=True)
class EnforcementValue:
    """``struct nsp_enforcement``: in force until expires_ns; the counters are the kernel's."""

    generation: int
    expires_ns: int
    first_refused_ns: int = 0
    refused_calls: int = 0
    refused_packets: int = 0
    refused_bytes: int = 0

    layout: ClassVar = struct.Struct("<6Q")

    def pack(self) -> bytes:
        """The value's bytes."""
        return self.layout.pack(
            self.generation,
            self.expires_ns,
            self.first_refused_ns,
            self.refused_calls,
            self.refused_packets,
            self.refused_bytes,
        )

    @classmethod
    def unpack(cls, data: bytes) -> EnforcementValue:
        """Of the value's bytes."""
        return cls(*cls.layout.unpack(data))


@dataclass(frozen=True, slots=True)
class DestinationKey:
    """``struct nsp_destination``; port 0 is any port, protocol 0 any protocol (then port is 0 too)."""

    workload_cgroup_id: int
    address: bytes
    port: int
    protocol: int

    layout: ClassVar = struct.Struct(f"<Q{ADDRESS_BYTES}sHB5x")

    def __post_init__(self) -> None:
        if len(self.address) != ADDRESS_BYTES:
            raise ValueError(f"an address has {ADDRESS_BYTES} bytes (IPv4 mapped), not {len(self.address)}")
        if self.port and not self.protocol:
            raise ValueError("a port without a protocol means nothing to the kernel")

    def pack(self) -> bytes:
        """The key's bytes, padding zero."""
        return self.layout.pack(self.workload_cgroup_id, self.address, self.port, self.protocol)

    @classmethod
    def unpack(cls, data: bytes) -> DestinationKey:
        """Of the key's bytes."""
        return cls(*cls.layout.unpack(data))


@dataclass(frozen=True, slots=True)
class AllowedKey:
    """``struct nsp_allowed_flow``: what passes a workload's quarantine; prefix_bits of the address count.

    The port is the remote one going out (direction 0), the local one coming in (1).
    """

    workload_cgroup_id: int
    protocol: int
    direction: int
    port: int
    address: bytes
    prefix_bits: int

    layout: ClassVar = struct.Struct(f"<IBBHQ{ADDRESS_BYTES}s")

    def pack(self) -> bytes:
        """The key's bytes."""
        bits = _ALLOWED_FLOW_BITS + self.prefix_bits
        port, cgroup = _swapped(self.port), self.workload_cgroup_id
        return self.layout.pack(bits, self.protocol, self.direction, port, cgroup, self.address)

    @classmethod
    def unpack(cls, data: bytes) -> AllowedKey:
        """Of the key's bytes."""
        bits, protocol, direction, port, cgroup, address = cls.layout.unpack(data)
        return cls(cgroup, protocol, direction, _swapped(port), address, bits - _ALLOWED_FLOW_BITS)


def _swapped(port: int) -> int:
    return port >> 8 | (port & 0xFF) << 8


@dataclass(frozen=True, slots=True)
class SensorState:
    """``struct nsp_sensor_state``: what a new sensor resumes from."""

    batch_sequence: int
    ring_position: int

    layout: ClassVar = struct.Struct("<QQ")

    def pack(self) -> bytes:
        """The value's bytes."""
        return self.layout.pack(self.batch_sequence, self.ring_position)

    @classmethod
    def unpack(cls, data: bytes) -> SensorState:
        """Of the value's bytes."""
        return cls(*cls.layout.unpack(data))


# struct nsp_workload, map keys that are cgroup ids, and array indices.
U64: Final = struct.Struct("<Q")
U32: Final = struct.Struct("<I")
