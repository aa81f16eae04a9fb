# SPDX-License-Identifier: Apache-2.0
"""The maps of network interfaces: whose each is, its own addresses, its gateways, and who was heard.

Input: what a survey found. Output: entries the programs on the interfaces obey. What the kernel keeps in an
entry, the gateway's MAC for one, survives when user space writes its part again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import KernelError
from sensor.kernel.interface_state import (
    BINDING_CONFIRMED,
    BindingKey,
    BindingValue,
    InterfaceKey,
    InterfaceValue,
)
from sensor.kernel.state import U32, U64

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sensor.kernel.pins import Pins

# NSP_SETTING_BINDING_AGE_NS of bpf/maps.h.
_SETTING_BINDING_AGE: Final = 5
_NAMES: Final = ("interfaces", "interface_addresses", "bindings", "settings")


@dataclass(frozen=True, slots=True)
class InterfaceMaps:
    """Typed access.

    Args:
        maps: Descriptors by map name.
    """

    maps: Mapping[str, int]

    @classmethod
    def open(cls, pins: Pins) -> InterfaceMaps:
        """The pinned ones.

        Raises:
            KernelError: They are not pinned: no sensor has been started.
        """
        found = {name: pins.get("maps", name) for name in _NAMES}
        maps = {name: fd for name, fd in found.items() if fd is not None}
        if len(maps) != len(_NAMES):
            raise KernelError(f"{pins.directory} has no maps of interfaces", "start the sensor first")
        return cls(maps)

    def set_interface(self, key: InterfaceKey, value: InterfaceValue) -> None:
        """Have an interface judged."""
        fd = self.maps["interfaces"]
        before = bpf.map_lookup(fd, key.pack(), InterfaceValue.layout.size)
        bpf.map_update(fd, key.pack(), value.pack(before))

    def interfaces(self) -> Iterator[tuple[InterfaceKey, InterfaceValue]]:
        """All that are judged."""
        fd = self.maps["interfaces"]
        for key, value in bpf.map_items(fd, bpf.map_info(fd)):
            yield InterfaceKey.unpack(key), InterfaceValue.unpack(value)

    def set_addresses(self, wanted: Mapping[InterfaceKey, Mapping[bytes, BindingValue]]) -> None:
        """Own addresses and gateways of all interfaces: exactly these."""
        fd = self.maps["interface_addresses"]
        before = dict(self.addresses())
        entries = {
            BindingKey(interface, address): value
            for interface, addresses in wanted.items()
            for address, value in addresses.items()
        }
        for key in before.keys() - entries.keys():
            bpf.map_delete(fd, key.pack())
        for key, value in entries.items():
            known = before.get(key)
            if known is None:
                bpf.map_update(fd, key.pack(), value.pack())
            elif (known.flags ^ value.flags) & ~BINDING_CONFIRMED:
                flags = value.flags & ~BINDING_CONFIRMED | known.flags & BINDING_CONFIRMED
                bpf.map_update(fd, key.pack(), replace(known, flags=flags).pack())

    def addresses(self, interface: InterfaceKey | None = None) -> Iterator[tuple[BindingKey, BindingValue]]:
        """Own addresses and gateways, of one interface or all."""
        yield from self._bindings("interface_addresses", interface)

    def bindings(self, interface: InterfaceKey | None = None) -> Iterator[tuple[BindingKey, BindingValue]]:
        """Neighbours heard, of one interface or all."""
        yield from self._bindings("bindings", interface)

    def keep_only(self, wanted: set[InterfaceKey]) -> None:
        """Forget all other interfaces; their neighbours are forgotten as least used."""
        for key, _ in list(self.interfaces()):
            if key not in wanted:
                bpf.map_delete(self.maps["interfaces"], key.pack())

    def set_binding_age_ns(self, age_ns: int) -> None:
        """How long a silent neighbour's binding is held against others; 0: the programs' default."""
        bpf.map_update(self.maps["settings"], U32.pack(_SETTING_BINDING_AGE), U64.pack(age_ns))

    def _bindings(
        self, name: str, interface: InterfaceKey | None
    ) -> Iterator[tuple[BindingKey, BindingValue]]:
        fd = self.maps[name]
        for packed, value in bpf.map_items(fd, bpf.map_info(fd)):
            key = BindingKey.unpack(packed)
            if interface is None or key.interface == interface:
                yield key, BindingValue.unpack(value)
