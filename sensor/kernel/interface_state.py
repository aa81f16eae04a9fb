# SPDX-License-Identifier: Apache-2.0
"""The structs of network interfaces in bpf/state.h, with their exact bytes.

Beside state.py, which it would make too long; the same test compares them with the C.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

INTERFACE_ETHERNET: Final = 1
INTERFACE_WORKLOAD: Final = 2
INTERFACE_PEER: Final = 4

BINDING_OWN: Final = 1
BINDING_GATEWAY: Final = 2
BINDING_CONFIRMED: Final = 4

MAC_BYTES: Final = 6


@dataclass(frozen=True, slots=True)
class InterfaceKey:
    """``struct nsp_interface_key``: an interface by its namespace's inode number and its index."""

    netns: int
    ifindex: int

    layout: ClassVar = struct.Struct("<II")

    def pack(self) -> bytes:
        """The key's bytes."""
        return self.layout.pack(self.netns, self.ifindex)

    @classmethod
    def unpack(cls, data: bytes) -> InterfaceKey:
        """Of the key's bytes."""
        return cls(*cls.layout.unpack(data))


@dataclass(frozen=True, slots=True)
class InterfaceValue:
    """``struct nsp_interface`` without what the kernel keeps in it."""

    workload_cgroup_id: int
    subject: InterfaceKey
    flags: int
    mac: bytes = bytes(MAC_BYTES)

    layout: ClassVar = struct.Struct("<QQQQIII6s6x")

    def pack(self, kernels: bytes | None = None) -> bytes:
        """The value's bytes; ``kernels``: the entry there was, whose kernel part goes on."""
        tokens = (0, 0, 0) if kernels is None else self.layout.unpack(kernels)[1:4]
        subject = self.subject
        return self.layout.pack(
            self.workload_cgroup_id, *tokens, subject.netns, subject.ifindex, self.flags, self.mac
        )

    @classmethod
    def unpack(cls, data: bytes) -> InterfaceValue:
        """Of the value's bytes."""
        cgroup_id, _, _, _, netns, ifindex, flags, mac = cls.layout.unpack(data)
        return cls(cgroup_id, InterfaceKey(netns, ifindex), flags, mac)


@dataclass(frozen=True, slots=True)
class BindingKey:
    """``struct nsp_binding_key``: an address (16 bytes, IPv4 mapped) on an interface and VLAN."""

    interface: InterfaceKey
    address: bytes
    vlan: int = 0

    layout: ClassVar = struct.Struct("<IIII16s")

    def pack(self) -> bytes:
        """The key's bytes, padding zero."""
        return self.layout.pack(self.interface.netns, self.interface.ifindex, self.vlan, 0, self.address)

    @classmethod
    def unpack(cls, data: bytes) -> BindingKey:
        """Of the key's bytes."""
        netns, ifindex, vlan, _, address = cls.layout.unpack(data)
        return cls(InterfaceKey(netns, ifindex), address, vlan)


@dataclass(frozen=True, slots=True)
class BindingValue:
    """``struct nsp_binding``; an all-zero MAC is one that is not known yet."""

    flags: int
    mac: bytes = bytes(MAC_BYTES)
    seen_ns: int = 0
    asked_ns: int = 0
    probed_ns: int = 0

    layout: ClassVar = struct.Struct("<QQQ6sBx")

    def pack(self) -> bytes:
        """The value's bytes."""
        return self.layout.pack(self.seen_ns, self.asked_ns, self.probed_ns, self.mac, self.flags)

    @classmethod
    def unpack(cls, data: bytes) -> BindingValue:
        """Of the value's bytes."""
        seen_ns, asked_ns, probed_ns, mac, flags = cls.layout.unpack(data)
        return cls(flags, mac, seen_ns, asked_ns, probed_ns)
