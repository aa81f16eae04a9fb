# SPDX-License-Identifier: Apache-2.0
"""Hosts on one wire: network namespaces joined by a bridge in one that plays the node.

Each host has a cgroup with a process in its namespace, as a pod has, and sends frames made by hand through
AF_PACKET. The machine's own interfaces are never touched.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from sensor.kernel import EnforcementValue, ProcessKey
from sensor.kernel.attach_request import AttachReply, AttachRequest
from sensor.kernel.interface_maps import InterfaceMaps
from sensor.kernel.interface_state import InterfaceKey
from sensor.kernel.interfaces import attach_now
from sensor.kernel.namespaces import namespaces_of
from sensor.kernel.pins import Pins
from sensor.kernel.policy_state import GrantsValue, PolicyValue, RulesetValue
from sensor.publish import layout
from tests.support.kernel_lab import Cgroup, events_of

if TYPE_CHECKING:
    from sensor.kernel import Kernel

BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
MARKER: Final = "02:00:00:00:00:ff"
NOBODY: Final = "00:00:00:00:00:00"
ALERT: Final = 1
ENFORCE: Final = 2
ARP_SPOOFING: Final = 8
RAW_SOCKETS: Final = 1 << 18
L3_ARP: Final = 4
# Every address, IPv4, IPv6 and ARP both ways.
_ANYTHING: Final = 0x1F | 0x1F << 8
_ALL_BITS: Final = (1 << 64) - 1
_FIRST_SLOT: Final = 100
_WAIT_S: Final = 10.0
_numbers = itertools.count()

_EVENT = layout.reader(layout.ARP_EVENT, *(name for name, _ in layout.ARP_EVENT.fields))
_EVENT_FIELDS = [name for name, _ in layout.ARP_EVENT.fields]
_FLOW = layout.reader(layout.FLOW_EVENT, "start_ns", "cgroup_id", "tgid", "verdict", "reason")
_PADDING = b"\0" * layout.RING_HEADER_BYTES

# Arguments: interface, ethertype in hex, whether to bypass the qdisc, frames in hex.
_SENDER: Final = """
import socket, sys
interface, kind, bypass, *frames = sys.argv[1:]
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
if bypass == "1":
    sender.setsockopt(263, 20, 1)
sender.bind((interface, int(kind, 16)))
refused = 0
for frame in frames:
    try:
        sender.send(bytes.fromhex(frame))
    except OSError:
        refused += 1
print(refused)
"""

_CALLER: Final = """
import socket, sys
caller = socket.socket()
caller.settimeout(1)
try:
    caller.connect((sys.argv[1], 9))
except ConnectionRefusedError:
    sys.exit(0)
except OSError:
    sys.exit(1)
"""


def run(*command: str) -> str:
    """A set-up command; its output."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def raw_mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def mapped(address: str) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(address)


def arp(
    operation: int,
    sender: tuple[str, str],
    target: tuple[str, str],
    source: str | None = None,
    to: str = BROADCAST,
) -> bytes:
    """An ARP frame; sender and target are (IP, MAC), source the Ethernet source if another."""
    return (
        raw_mac(to)
        + raw_mac(source or sender[1])
        + struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation)
        + raw_mac(sender[1])
        + socket.inet_aton(sender[0])
        + raw_mac(target[1])
        + socket.inet_aton(target[0])
    )


def announcement(address: str, mac: str, source: str | None = None) -> bytes:
    """A gratuitous reply: everybody, this address is mine."""
    return arp(2, (address, mac), (address, BROADCAST), source)


def nd(kind: int, option: int, address: bytes, mac: str, to: str = "33:33:00:00:00:01") -> bytes:
    """A neighbour solicitation (135) or advertisement (136) with a link-layer address option."""
    body = struct.pack(">BBHI", kind, 0, 0, 0x20000000) + address + bytes((option, 1)) + raw_mac(mac)
    header = struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + address + address
    return raw_mac(to) + raw_mac(mac) + b"\x86\xdd" + header + body


def datagram(sender: Host, target: Host, source_ip: str | None = None) -> bytes:
    """A UDP datagram to port 9 as a frame made by hand."""
    udp = struct.pack(">HHHH", 4444, 9, 12, 0) + b"nsp!"
    addresses = socket.inet_aton(source_ip or sender.address) + socket.inet_aton(target.address)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack(">H", checksum) + header[12:]
    return raw_mac(target.mac) + raw_mac(sender.mac) + b"\x08\x00" + header + udp


@dataclass(slots=True)
class Host:
    """One namespace on the wire, with its cgroup and the process that keeps it."""

    name: str
    namespace: str
    address: str
    mac: str
    cgroup: Cgroup
    slot: int
    keeper: subprocess.Popen[bytes]

    @property
    def netns(self) -> int:
        return Path(f"/run/netns/{self.namespace}").stat().st_ino

    def command(self, *arguments: str) -> list[str]:
        return self.cgroup.command("ip", "netns", "exec", self.namespace, *arguments)

    def send(self, *frames: bytes, kind: int = 0x0806, bypass: bool = False) -> int:
        """Send frames from a process of the host's; how many the kernel refused to the sender."""
        words = [frame.hex() for frame in frames]
        command = self.command("/usr/bin/python3", "-c", _SENDER, "eth0", f"{kind:x}", str(int(bypass)))
        return int(run(*command, *words))

    def neighbour(self, address: str) -> str | None:
        """The MAC the host's kernel believes an address to have."""
        found = json.loads(run("ip", "-j", "-n", self.namespace, "neigh", "show", address) or "[]")
        return found[0].get("lladdr") if found else None

    def believes(self, address: str, mac: str) -> bool:
        """Whether the host's kernel takes an address to have a MAC, or comes to do so."""
        deadline = time.monotonic() + _WAIT_S
        while self.neighbour(address) != mac and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.neighbour(address) == mac

    def reaches(self, address: str) -> bool:
        """Whether a packet comes back: the RST of a port where nobody listens."""
        command = self.command("/usr/bin/python3", "-c", _CALLER, address)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def ip(self, *arguments: str) -> None:
        run("ip", "-n", self.namespace, *arguments)


@dataclass(slots=True)
class Wire:
    """The wire, and the kernel part attached to it."""

    kernel: Kernel
    cgroup: Cgroup
    pin_directory: Path
    tcx: bool = True
    hosts: dict[str, Host] = field(default_factory=dict)
    fabric: str = ""
    _quarantined: ProcessKey | None = None
    _events: list[dict[str, Any]] = field(default_factory=list)
    _refusals: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.fabric = f"nsp-test-{os.getpid()}-{next(_numbers)}"
        self._read()  # what other tests left, so that there is room
        run("ip", "netns", "add", self.fabric)
        try:
            self._on_fabric("link", "add", "wire", "address", "02:00:00:00:00:fe", "type", "bridge")
            self._on_fabric("link", "set", "wire", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            self.kernel.policy.set_policy_slot(host.slot, 0)
            host.keeper.kill()
            host.keeper.wait()
            run("ip", "netns", "del", host.namespace)
            host.cgroup.remove()
        run("ip", "netns", "del", self.fabric)
        self.maps.set_binding_age_ns(0)
        attach_now(AttachRequest(str(self.pin_directory), ()))

    def _on_fabric(self, *arguments: str) -> None:
        run("ip", "-n", self.fabric, *arguments)

    def add(self, name: str, number: int, gateway: str | None = None) -> Host:
        """A host with address 10.78.0.<number> and MAC 02:00:00:00:00:<number>."""
        namespace = f"{self.fabric}-{name}"
        cgroup = Cgroup(self.cgroup.path / name)
        cgroup.path.mkdir()
        slot = _FIRST_SLOT + number
        self.kernel.state.set_workload(cgroup.id, cgroup.id, slot)
        run("ip", "netns", "add", namespace)
        keeper = subprocess.Popen(
            cgroup.command("ip", "netns", "exec", namespace, "sleep", "infinity"), stdin=subprocess.DEVNULL
        )
        mac = f"02:00:00:00:00:{number:02x}"
        host = Host(name, namespace, f"10.78.0.{number}", mac, cgroup, slot, keeper)
        self.hosts[name] = host
        port = f"port{number}"
        self._on_fabric("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._on_fabric("link", "set", port, "master", "wire", "up")
        host.ip("link", "set", "eth0", "address", mac, "up")
        host.ip("link", "set", "lo", "up")
        # Linux keeps a neighbour's MAC for a second whatever it hears: not what is tested here.
        setting = "/proc/sys/net/ipv4/neigh/eth0/locktime"
        run("ip", "netns", "exec", namespace, "sh", "-c", f"echo 0 > {setting}")
        host.ip("addr", "add", f"{host.address}/24", "dev", "eth0")
        if gateway is not None:
            host.ip("route", "add", "default", "via", gateway)
        self._wait_for_keeper(host)
        return host

    def _wait_for_keeper(self, host: Host) -> None:
        deadline = time.monotonic() + _WAIT_S
        while Path(f"/proc/{host.keeper.pid}/ns/net").stat().st_ino != host.netns:
            assert time.monotonic() < deadline, "the host's process did not enter its namespace"
            time.sleep(0.01)

    def attach(self) -> AttachReply:
        """Have the programs attached, as the sensor does."""
        reply = attach_now(AttachRequest(str(self.pin_directory), self.namespaces(), self.tcx))
        assert not reply.failed, reply.failed
        return reply

    def namespaces(self) -> tuple[Any, ...]:
        cgroups = [(host.cgroup.path, host.cgroup.id) for host in self.hosts.values()]
        return namespaces_of(cgroups, Path(f"/run/netns/{self.fabric}"))

    @property
    def maps(self) -> InterfaceMaps:
        return InterfaceMaps.open(Pins(self.pin_directory))

    def interface_of(self, host: Host) -> InterfaceKey:
        index = json.loads(run("ip", "-j", "-n", host.namespace, "link", "show", "eth0"))[0]["ifindex"]
        return InterfaceKey(host.netns, index)

    def govern(self, host: Host, mode: int, flags: int = ARP_SPOOFING, ruleset: int = RAW_SOCKETS) -> None:
        """Give a host a profile that lets everything pass but what is to be tested.

        Args:
            host: Whose.
            mode: ALERT or ENFORCE.
            flags: NSP_POLICY_*.
            ruleset: Flags of its rule set beside "anything"; a negative one takes flags away.
        """
        every = (_ALL_BITS,) * 4
        wanted = _ANYTHING | ruleset if ruleset >= 0 else _ANYTHING & ~-ruleset
        self.kernel.policy.write_ruleset(host.slot, RulesetValue((every, every), bytes(16), wanted, (0, 0)))
        policy = PolicyValue(GrantsValue((host.slot,), mode), bytes(16), generation=7, flags=flags)
        self.kernel.policy.write_policy(host.slot, policy)
        self.kernel.policy.set_policy_slot(host.slot, host.slot | 1 << 32)

    def quarantine(self, tgid: int) -> None:
        """Cut one process."""
        state = self.kernel.state
        process = state.process(tgid)
        assert process is not None
        self._quarantined = ProcessKey(tgid, process.start_ns)
        state.set_quarantine(self._quarantined, EnforcementValue(3, 1 << 62))
        assert state.mark_process(tgid, process.start_ns, self._quarantined)

    def release(self) -> None:
        """End that."""
        if self._quarantined is not None:
            self.kernel.state.drop_quarantine(self._quarantined)

    def events(self, count: int) -> list[dict[str, Any]]:
        """The claims reported since the last call; waits for so many."""
        self._wait(self._events, count)
        found, self._events = self._events, []
        return found

    def refusals(self, count: int) -> list[dict[str, Any]]:
        """The packets reported as refused or alerted since the last call; waits for so many."""
        self._wait(self._refusals, count)
        found, self._refusals = self._refusals, []
        return found

    def is_quiet(self, sender: Host, about: Host) -> bool:
        """Whether nothing was reported: what the sender says last is, and comes after all before it."""
        sender.send(announcement(about.address, MARKER))
        found = self.events(1)
        return [event["sender_mac"] for event in found] == [raw_mac(MARKER)]

    def _wait(self, found: list[dict[str, Any]], count: int) -> None:
        deadline = time.monotonic() + _WAIT_S
        self._read()
        while len(found) < count and time.monotonic() < deadline:
            time.sleep(0.01)
            self._read()

    def _read(self) -> None:
        mine = {host.cgroup.id for host in self.hosts.values()}
        ring = self.kernel.ring
        while (chunk := ring.read(1 << 20)) is not None:
            for event in events_of(chunk):
                data = _PADDING + event.data
                if event.type == layout.ARP and event.cgroup_id in mine:
                    values = _EVENT.unpack_from(data)
                    self._events.append(dict(zip(_EVENT_FIELDS, values, strict=True)))
                elif event.type == layout.PACKET_REFUSED and event.cgroup_id in mine:
                    names = ("start_ns", "cgroup_id", "tgid", "verdict", "reason")
                    self._refusals.append(dict(zip(names, _FLOW.unpack_from(data), strict=True)))
            ring.release(chunk.end)
