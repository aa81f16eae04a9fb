# SPDX-License-Identifier: Apache-2.0
"""The structs of profiles in bpf/state.h as frozen dataclasses, with their exact bytes.

As state.py, which has the others; tests/kernel/test_layout.py compares every size and offset with the C.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

# NSP_GRANTS of bpf/state.h.
GRANTS: Final = 8
CONTENT_BYTES: Final = 16
_ADDRESS_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class GrantsValue:
    """``struct nsp_grants``: indices of rule sets, without the empty places, and the mode."""

    rulesets: tuple[int, ...]
    mode: int

    layout: ClassVar = struct.Struct(f"<{GRANTS}IB7x")

    def pack(self) -> bytes:
        """The value's bytes."""
        return self.layout.pack(*self.rulesets, *(0,) * (GRANTS - len(self.rulesets)), self.mode)

    @classmethod
    def unpack(cls, data: bytes) -> GrantsValue:
        """Of the value's bytes."""
        *rulesets, mode = cls.layout.unpack(data)
        return cls(tuple(index for index in rulesets if index), mode)


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """``struct nsp_policy``; flags are ``NSP_POLICY_*``."""

    grants: GrantsValue
    content: bytes
    generation: int
    flags: int

    layout: ClassVar = struct.Struct(f"<{GrantsValue.layout.size}s{CONTENT_BYTES}sQI4x")

    def pack(self) -> bytes:
        """The value's bytes."""
        return self.layout.pack(self.grants.pack(), self.content, self.generation, self.flags)

    @classmethod
    def unpack(cls, data: bytes) -> PolicyValue:
        """Of the value's bytes."""
        grants, content, generation, flags = cls.layout.unpack(data)
        return cls(GrantsValue.unpack(grants), content, generation, flags)


@dataclass(frozen=True, slots=True)
class RulesetValue:
    """``struct nsp_ruleset``; pairs are (out, in); previous is an index in rulesets or 0."""

    protocols: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
    content: bytes
    flags: int
    l7: tuple[int, int]
    previous: int = 0

    layout: ClassVar = struct.Struct(f"<8Q{CONTENT_BYTES}sIIBB6x")

    def pack(self) -> bytes:
        """The value's bytes."""
        return self.layout.pack(
            *self.protocols[0], *self.protocols[1], self.content, self.flags, self.previous, *self.l7
        )

    @classmethod
    def unpack(cls, data: bytes) -> RulesetValue:
        """Of the value's bytes."""
        *words, content, flags, previous, l7_out, l7_in = cls.layout.unpack(data)
        out, into = words[:4], words[4:]
        return cls(
            ((out[0], out[1], out[2], out[3]), (into[0], into[1], into[2], into[3])),
            content,
            flags,
            (l7_out, l7_in),
            previous,
        )


@dataclass(frozen=True, slots=True)
class ProgramKey:
    """``struct nsp_program_key``; script 0: whatever it runs."""

    policy: int
    program: int
    script: int = 0

    layout: ClassVar = struct.Struct("<III4x")

    def pack(self) -> bytes:
        """The key's bytes, padding zero."""
        return self.layout.pack(self.policy, self.program, self.script)

    @classmethod
    def unpack(cls, data: bytes) -> ProgramKey:
        """Of the key's bytes."""
        return cls(*cls.layout.unpack(data))


@dataclass(frozen=True, slots=True)
class LearnedKey:
    """``struct nsp_learned_key``: an address that an allowed name was answered with."""

    workload_cgroup_id: int
    ruleset: int
    address: bytes

    layout: ClassVar = struct.Struct(f"<QI4x{_ADDRESS_BYTES}s")

    def pack(self) -> bytes:
        """The key's bytes, padding zero."""
        return self.layout.pack(self.workload_cgroup_id, self.ruleset, self.address)

    @classmethod
    def unpack(cls, data: bytes) -> LearnedKey:
        """Of the key's bytes."""
        return cls(*cls.layout.unpack(data))


@dataclass(frozen=True, slots=True)
class ResolverKey:
    """``struct nsp_resolver_key``: a DNS server one workload believes; 0: every one."""

    workload_cgroup_id: int
    address: bytes

    layout: ClassVar = struct.Struct(f"<Q{_ADDRESS_BYTES}s")

    def pack(self) -> bytes:
        """The key's bytes."""
        return self.layout.pack(self.workload_cgroup_id, self.address)

    @classmethod
    def unpack(cls, data: bytes) -> ResolverKey:
        """Of the key's bytes."""
        return cls(*cls.layout.unpack(data))


@dataclass(frozen=True, slots=True)
class LearnedValue:
    """``struct nsp_learned_value``: until when an address counts, CLOCK_BOOTTIME, and under which name."""

    expires_ns: int
    name_id: int

    layout: ClassVar = struct.Struct("<QQ")

    def pack(self) -> bytes:
        """The value's bytes."""
        return self.layout.pack(self.expires_ns, self.name_id)

    @classmethod
    def unpack(cls, data: bytes) -> LearnedValue:
        """Of the value's bytes."""
        return cls(*cls.layout.unpack(data))


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """``struct nsp_break_glass``: flows no profile cuts; prefix_bits of the address, 16 bytes, count.

    The port is the remote one going out (direction 0), the local one coming in (1) or to be bound (2).
    """

    protocol: int
    direction: int
    port: int
    address: bytes
    prefix_bits: int

    layout: ClassVar = struct.Struct(f"<IBBH{_ADDRESS_BYTES}s")

    def pack(self) -> bytes:
        """The key's bytes."""
        port = self.port >> 8 | (self.port & 0xFF) << 8
        return self.layout.pack(32 + self.prefix_bits, self.protocol, self.direction, port, self.address)

    @classmethod
    def unpack(cls, data: bytes) -> BreakGlass:
        """Of the key's bytes."""
        bits, protocol, direction, port, address = cls.layout.unpack(data)
        return cls(protocol, direction, port >> 8 | (port & 0xFF) << 8, address, bits - 32)


@dataclass(frozen=True, slots=True)
class PolicyCounters:
    """``struct nsp_policy_counters`` of one slot; by_reason has a number for each ``enum nsp_reason``."""

    refused_calls: int
    refused_packets: int
    alerted: int
    first_refused_ns: int
    by_reason: tuple[int, ...]

    layout: ClassVar = struct.Struct("<4Q16Q8x")

    @classmethod
    def unpack(cls, data: bytes) -> PolicyCounters:
        """Of the value's bytes."""
        calls, packets, alerted, first, *by_reason = cls.layout.unpack(data)
        return cls(calls, packets, alerted, first, tuple(by_reason))


# struct nsp_workload: workload cgroup id and policy slot.
WORKLOAD: Final = struct.Struct("<QI4x")
# NSP_CGROUP_NAME_BYTES and NSP_PROGRAM_PATH_BYTES.
CGROUP_NAME_BYTES: Final = 128
PROGRAM_PATH_BYTES: Final = 256
