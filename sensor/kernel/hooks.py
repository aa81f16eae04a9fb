# SPDX-License-Identifier: Apache-2.0
"""Programs on an interface: TCX links where the kernel has them (6.6), classifiers on clsact elsewhere.

Runs in the attaching child, inside the interface's network namespace. A TCX link is pinned, goes first and
leaves the verdict to others. A classifier lives as long as its interface and no link can be pinned: so a
pin of its program marks it, for whoever is to remove it. Either is swapped in one step.

The pin's name is ``<namespace>_<index>_<hook>_<link|filter>``: it says where to look again.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyroute2.netlink.exceptions import NetlinkError

from sensor.kernel import bpf_syscall as bpf
from sensor.kernel.errors import BpfCallError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

    from sensor.kernel.interface_pins import HookPin
    from sensor.kernel.pins import Pins

# enum bpf_attach_type
_TCX: Final = {"ingress": 46, "egress": 47}
_PARENT: Final = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
# Ours among the filters of the first priority, beside other tools': "NS".
_HANDLE: Final = 0x4E53
_PRIORITY: Final = 1
_ALL_PROTOCOLS: Final = 0x0003
# What kernels without TCX say to it, or those that know the attach type for nothing.
_NO_TCX: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Hook:
    """One program on one interface.

    Attributes:
        program: Its name, also of its pin.
        direction: ingress or egress.
        fd: The loaded program.
        program_id: Its id.
    """

    program: str
    direction: str
    fd: int
    program_id: int


def open_hook(pins: Pins, program: str, direction: str) -> Hook:
    """The program as the loader left it."""
    fd = bpf.obj_get(str(pins.path("programs", program)))
    return Hook(program, direction, fd, bpf.program_id(fd))


def attach(route: IPRoute, pins: Pins, at: HookPin, hook: Hook, *, tcx: bool) -> HookPin:
    """Make a program run on an interface, or swap what runs there.

    Args:
        route: A socket made in the interface's namespace.
        pins: Where to pin.
        at: The pin wanted.
        hook: What to attach.
        tcx: Try a TCX link; False on kernels known to have none.

    Returns:
        The pin there is now: a filter's where the kernel has no TCX.
    """
    if tcx:
        try:
            _attach_link(pins, at, hook)
        except BpfCallError as error:
            if error.errno not in _NO_TCX:
                raise
        else:
            return at
    marker = at.as_filter()
    _attach_filter(route, marker.ifindex, hook)
    pins.replace(hook.fd, "interfaces", marker.name)
    return marker


def _attach_link(pins: Pins, at: HookPin, hook: Hook) -> None:
    link = pins.get("interfaces", at.name)
    if link is not None:
        try:
            info = bpf.link_info(link)
            if info.ifindex:
                if info.program_id != hook.program_id:
                    bpf.link_update(link, hook.fd, at.name)
                return
        finally:
            os.close(link)
        pins.path("interfaces", at.name).unlink()  # its interface is gone, and the index used again
    link = bpf.link_create_first(hook.fd, at.ifindex, _TCX[hook.direction], at.name)
    try:
        bpf.obj_pin(link, str(pins.path("interfaces", at.name)))
    finally:
        os.close(link)


def _attach_filter(route: IPRoute, ifindex: int, hook: Hook) -> None:
    try:
        route.tc("add", "clsact", ifindex)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
    route.tc(
        "replace-filter", "bpf", ifindex, handle=_HANDLE, prio=_PRIORITY, protocol=_ALL_PROTOCOLS, fd=hook.fd,
        name=hook.program, parent=_PARENT[hook.direction], classid=1, direct_action=True,
    )  # fmt: skip


def remove_filter(route: IPRoute, ifindex: int, direction: str) -> None:
    """Take our classifier off an interface, and the qdisc too when nobody else uses it."""
    try:
        route.tc(
            "del-filter", "bpf", ifindex, handle=_HANDLE, prio=_PRIORITY, protocol=_ALL_PROTOCOLS,
            parent=_PARENT[direction],
        )  # fmt: skip
        if not any(list(route.get_filters(index=ifindex, parent=parent)) for parent in _PARENT.values()):
            route.tc("del", "clsact", ifindex)
    except NetlinkError as error:
        if error.code not in {errno.ENOENT, errno.ENODEV, errno.EINVAL}:
            raise
