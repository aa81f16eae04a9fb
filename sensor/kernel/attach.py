# SPDX-License-Identifier: Apache-2.0
"""The attaching child: ``python -m sensor.kernel.attach``, started when something changed.

Input: an :class:`AttachRequest` as JSON on standard input: whose network namespace is whose. It enters one
namespace after the other, which the sensor's own threads must never do, finds the interfaces, tells the
kernel programs about them and attaches these. Output: an :class:`AttachReply` as JSON on standard output.
What is attached and not asked for any more is taken off. It may be run as often as one likes.

Failure: a namespace that is gone is left out; one that refuses is named in the reply, the others go on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sensor.kernel.attach_request import AttachReply, AttachRequest, Namespace
from sensor.kernel.errors import KernelError
from sensor.kernel.hooks import attach, open_hook, remove_filter
from sensor.kernel.interface_maps import InterfaceMaps
from sensor.kernel.interface_pins import FOLDER, HookPin
from sensor.kernel.interface_state import (
    INTERFACE_ETHERNET,
    INTERFACE_PEER,
    INTERFACE_WORKLOAD,
    InterfaceKey,
    InterfaceValue,
)
from sensor.kernel.namespaces import find_namespace
from sensor.kernel.pins import Pins
from sensor.kernel.survey import Found, survey

if TYPE_CHECKING:
    from sensor.kernel.hooks import Hook

_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_VETH: Final = "veth"
# A device for shaping what comes in: what it sends was met before.
_IFB: Final = "ifb"
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Entered:
    """One namespace, its descriptor and interfaces; peer_number is the host's number in it."""

    namespace: Namespace
    fd: int
    interfaces: dict[int, Found] = field(default_factory=dict)
    host_number: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One interface with what is to run on it, by direction."""

    key: InterfaceKey
    value: InterfaceValue
    found: Found
    programs: dict[str, str]


def enter(fd: int) -> None:
    """Put the calling thread into a network namespace."""
    if _LIBC.setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def end_with_parent() -> None:
    """Be killed when the sensor is: the next one starts a child of its own, and two must not work at once.

    Being killed in the middle is harmless, as it is for one that hangs.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def look_into(request: AttachRequest, reply: AttachReply, stack: ExitStack) -> list[Entered]:
    """Survey every namespace that is still there, the host's first."""
    entered: list[Entered] = []
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for namespace in request.namespaces:
        try:
            fd = os.open(namespace.path, os.O_RDONLY)
        except OSError:
            continue  # its last process has ended
        stack.callback(os.close, fd)
        if os.fstat(fd).st_ino != namespace.netns:
            continue  # the pid is somebody else's by now
        each = Entered(namespace, fd)
        try:
            enter(fd)
            with IPRoute() as route:
                each.interfaces = survey(route, now_ns)
                if entered and not namespace.is_host:
                    answer = route.get_netnsid(fd=entered[0].fd)
                    each.host_number = answer["nsid"] if answer else None
        except (OSError, NetlinkError) as error:
            reply.failed.append(f"namespace {namespace.netns}: {error}")
            continue
        entered.append(each)
    return entered


def plan(entered: list[Entered]) -> list[Wanted]:
    """What is to run where."""
    host = next((each for each in entered if each.namespace.is_host), None)
    peers = {} if host is None else _peers(host, entered)
    wanted = []
    for each in entered:
        for found in each.interfaces.values():
            one = _on_host(each, found, peers) if each.namespace.is_host else _in_workload(each, found)
            if one is not None:
                wanted.append(one)
    return wanted


def _peers(host: Entered, entered: list[Entered]) -> dict[int, tuple[Entered, Found]]:
    """The workload's end by the index of the host's end of a veth pair."""
    pairs = {}
    for each in entered:
        for found in each.interfaces.values():
            far = host.interfaces.get(found.far_index)
            if (
                not each.namespace.is_host
                and found.kind == _VETH
                and found.far_namespace == each.host_number
                and each.host_number is not None
                and far is not None
                and far.kind == _VETH
                and far.far_index == found.index
            ):
                pairs[far.index] = (each, found)
    return pairs


def _in_workload(each: Entered, found: Found) -> Wanted:
    key = InterfaceKey(each.namespace.netns, found.index)
    judged = found.ethernet and not found.master
    flags = INTERFACE_WORKLOAD | (INTERFACE_ETHERNET if judged else 0)
    programs = {"egress": "link_egress"}  # the loopback too: a packet socket reaches its own services there
    if judged:
        programs["ingress"] = "link_ingress"
    value = InterfaceValue(each.namespace.workload_cgroup_id, key, flags, found.mac)
    return Wanted(key, value, found, programs)


def _on_host(each: Entered, found: Found, peers: dict[int, tuple[Entered, Found]]) -> Wanted | None:
    key = InterfaceKey(each.namespace.netns, found.index)
    peer = peers.get(found.index)
    if peer is not None:
        workload, end = peer
        subject = InterfaceKey(workload.namespace.netns, end.index)
        flags = INTERFACE_PEER | INTERFACE_ETHERNET
        value = InterfaceValue(workload.namespace.workload_cgroup_id, subject, flags, found.mac)
        found.addresses.clear()
        return Wanted(key, value, found, {"ingress": "link_peer"})
    # Ports of a bridge or bond carry others' traffic; the host's own is on the bridge or bond itself.
    if not found.ethernet or found.master or found.kind == _IFB:
        return None
    value = InterfaceValue(0, key, INTERFACE_ETHERNET, found.mac)
    return Wanted(key, value, found, {"ingress": "link_ingress", "egress": "link_egress"})


class Attacher:
    """Carries a plan out.

    Args:
        request: What was asked for.
        reply: Where failures go.
    """

    def __init__(self, request: AttachRequest, reply: AttachReply) -> None:
        self._pins = Pins(Path(request.pin_directory))
        self._maps = InterfaceMaps.open(self._pins)
        self._reply = reply
        self._tcx = request.tcx
        self._hooks: dict[tuple[str, str], Hook] = {}
        self._pins.path(FOLDER, "").mkdir(mode=0o700, exist_ok=True)

    def attach(self, entered: list[Entered], wanted: list[Wanted]) -> set[str]:
        """Tell the maps, then attach. Returns the names of the pins that are to stay."""
        keep: set[str] = set()
        for one in wanted:
            self._maps.set_interface(one.key, one.value)
        self._maps.set_addresses({one.key: one.found.addresses for one in wanted})
        for each in entered:
            mine = [one for one in wanted if one.key.netns == each.namespace.netns]
            try:
                enter(each.fd)
                with IPRoute() as route:
                    for one in mine:
                        self._attach_one(route, one, keep)
            except OSError as error:
                self._reply.failed.append(f"namespace {each.namespace.netns}: {error}")
        return keep

    def _attach_one(self, route: IPRoute, one: Wanted, keep: set[str]) -> None:
        for direction, program in one.programs.items():
            pin = HookPin(one.key.netns, one.key.ifindex, direction)
            hook = self._hook(program, direction)
            try:
                keep.add(attach(route, self._pins, pin, hook, tcx=self._tcx).name)
            except (KernelError, NetlinkError) as error:
                self._reply.failed.append(f"{one.found.name} {direction}: {error}")

    def _hook(self, program: str, direction: str) -> Hook:
        key = program, direction
        if key not in self._hooks:
            self._hooks[key] = open_hook(self._pins, program, direction)
        return self._hooks[key]

    def tidy(self, keep: set[str], wanted: list[Wanted]) -> None:
        """Take off what is attached and not wanted any more."""
        self._maps.keep_only({one.key for one in wanted})
        for name in self._pins.names(FOLDER) - keep:
            pin = HookPin.parse(name)
            if pin is not None and pin.is_filter and pin.as_link().name not in keep:
                self._take_off(pin)
            self._pins.remove(FOLDER, name)

    def _take_off(self, pin: HookPin) -> None:
        path = find_namespace(pin.netns)
        if path is None:
            return  # the namespace has nobody in it; its interfaces are gone or on their way
        fd = os.open(path, os.O_RDONLY)
        try:
            enter(fd)
            with IPRoute() as route:
                remove_filter(route, pin.ifindex, pin.direction)
        except (OSError, NetlinkError) as error:
            self._reply.failed.append(f"filter {pin.name}: {error}")
        finally:
            os.close(fd)


def run(request: AttachRequest) -> AttachReply:
    """Serve one request in this process.

    Raises:
        KernelError: The pins are not there or cannot be opened.
    """
    reply = AttachReply()
    attacher = Attacher(request, reply)
    with ExitStack() as stack:
        entered = look_into(request, reply, stack)
        wanted = plan(entered)
        keep = attacher.attach(entered, wanted)
        attacher.tidy(keep, wanted)
    reply.interfaces = len(wanted)
    reply.attached = len(keep)
    return reply


def main() -> None:
    """Serve one request and end."""
    end_with_parent()
    request = AttachRequest.from_bytes(sys.stdin.buffer.read())
    try:
        reply = run(request)
    except (KernelError, OSError) as error:
        reply = AttachReply(failed=[str(error)])
    sys.stdout.buffer.write(reply.to_bytes())


if __name__ == "__main__":
    main()
