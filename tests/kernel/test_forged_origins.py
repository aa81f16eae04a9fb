# SPDX-License-Identifier: Apache-2.0
"""Ways around a profile: packets that go, or come from, elsewhere than is said.

Between hosts on a wire: a pod that is governed, and a target that no rule allows.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from sensor.kernel.policy_state import ResolverKey
from tests.support import dns_messages as dns
from tests.support.dns_messages import message
from tests.support.name_lab import NAME, a_record
from tests.support.profile_lab import ProfileLab, network, traffic
from tests.support.ring_records import mapped
from tests.support.wire_lab import Host, Wire, datagram, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sensor.kernel import Kernel
    from tests.support.kernel_lab import Cgroup

pytestmark = pytest.mark.kernel

ALLOWED: Final = "10.78.0.30"  # nobody's
ALLOWED_6: Final = "fd78::30"
TARGET_6: Final = "fd78::10"
UNDERLAY: Final = "10.78.0.10"
TUNNELLED: Final = "198.51.100.2"
FORGED: Final = "192.0.2.66"

_SNIFFER: Final = """
import socket
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
print("ready", flush=True)
while True:
    data = sniffer.recv(2000)
    if data[0] >> 4 == 4 and data[9] in (6, 17):
        print("tcp" if data[9] == 6 else "udp", socket.inet_ntoa(data[16:20]), flush=True)
    elif data[0] >> 4 == 6 and data[6] in (6, 43):
        print("tcp", socket.inet_ntop(socket.AF_INET6, data[24:40]), flush=True)
"""

# Arguments: where to, and over whom first. IP_OPTIONS with a loose source route; IPV6_RTHDR with segments.
_CONNECT: Final = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family)
s.setblocking(False)
if len(sys.argv) > 2:
    hop = socket.inet_pton(family, sys.argv[2])
    if family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes((131, 7, 4)) + hop + bytes(1))
    else:
        segments = bytes((0, 4, 4, 1, 1, 0, 0, 0)) + bytes(16) + hop
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, segments)
print(s.connect_ex((sys.argv[1], 443)))
"""

# Arguments: question, answer, resolver, where the client gets the forged answer.
_ASK: Final = """
import socket, struct, sys
question, answer = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
resolver, to = sys.argv[3:]
family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
source = socket.inet_pton(family, resolver)
client = socket.socket(family, socket.SOCK_DGRAM)
client.settimeout(5)
client.bind(("", 0))
client.sendto(question, (resolver, 53))
port = client.getsockname()[1]
forger = socket.socket(family, socket.SOCK_DGRAM)
"""
_GOT: Final = "\nprint(client.recvfrom(2000)[1][0])\n"
FORGERS: Final = {
    # IP_TRANSPARENT takes CAP_NET_RAW, as containers have it; IPV6_FREEBIND takes nothing.
    "transparent": """
forger.setsockopt(socket.IPPROTO_IP, 19, 1)
forger.bind(("127.0.0.1", 53))
chosen = socket.IPPROTO_IP, 8, struct.pack("=I4s4s", 0, source, bytes(4))
forger.sendmsg([answer], [chosen], 0, (to, port))
""",
    "free": """
forger.setsockopt(socket.IPPROTO_IP, 15, 1)
forger.bind(("::1", 53))
chosen = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source + bytes(4)
forger.sendmsg([answer], [chosen], 0, (to, port))
""",
}


class Sniffer:
    """Protocol and destination of what comes to a host, line by line."""

    def __init__(self, host: Host) -> None:
        command = host.command("/usr/bin/python3", "-c", _SNIFFER)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def wire(shared_kernel: tuple[Kernel, Cgroup, Path]) -> Iterator[Wire]:
    with Wire(*shared_kernel) as made:
        target = made.add("target", 10)
        pod = made.add("pod", 20)
        made.add("other", 40)
        pod.ip("route", "add", "default", "via", target.address)
        for host, number in ((target, 10), (pod, 20)):
            host.ip("addr", "add", f"fd78::{number}/64", "dev", "eth0", "nodad")
        made.attach()
        yield made


@pytest.fixture
def sniffer(wire: Wire) -> Iterator[Sniffer]:
    made = Sniffer(wire.hosts["target"])
    yield made
    made.process.kill()
    made.process.wait()
    assert made.process.stdout is not None
    made.process.stdout.close()


def in_pod(wire: Wire, code: str, *arguments: str) -> str:
    return run(*wire.hosts["pod"].command("/usr/bin/python3", "-c", code, *arguments)).strip()


def arrived(wire: Wire, sniffer: Sniffer) -> list[str]:
    """What came to the target before a datagram of somebody whom no profile governs."""
    other, target = wire.hosts["other"], wire.hosts["target"]
    assert other.send(datagram(other, target), kind=0x0800) == 0
    found = []
    while (line := sniffer.line()) != f"udp {target.address}":
        found.append(line)
    return found


@pytest.mark.parametrize(
    ("to", "over"), [(ALLOWED, UNDERLAY), ("127.0.0.1", UNDERLAY), (ALLOWED_6, TARGET_6), ("::1", TARGET_6)]
)
def test_a_source_route_does_not_lead_past_the_rules(
    wire: Wire, sniffer: Sniffer, to: str, over: str
) -> None:
    """Any process may set one; the loopback, which is free, must not be a way out either."""
    pod = wire.hosts["pod"]
    rules = network(traffic(f"{ALLOWED}/32", f"{ALLOWED_6}/128"))
    ProfileLab(wire.kernel).govern(pod.slot, rules, flags=0)
    in_pod(wire, _CONNECT, to, over)
    assert f"tcp {over}" not in arrived(wire, sniffer)
    assert wire.kernel.policy.policy_counters(pod.slot).refused_packets


def test_a_source_route_through_what_is_allowed_passes(wire: Wire, sniffer: Sniffer) -> None:
    rules = network(traffic("10.78.0.0/24", "fd78::/64"))
    ProfileLab(wire.kernel).govern(wire.hosts["pod"].slot, rules, flags=0)
    in_pod(wire, _CONNECT, ALLOWED, UNDERLAY)
    in_pod(wire, _CONNECT, ALLOWED_6, TARGET_6)
    assert {f"tcp {UNDERLAY}", f"tcp {TARGET_6}"} <= set(arrived(wire, sniffer))


@pytest.mark.parametrize(
    ("forger", "resolver", "to"),
    [("transparent", UNDERLAY, "127.0.0.1"), ("free", TARGET_6, "::1")],
)
def test_an_answer_that_the_workload_gives_itself_is_not_learned(
    wire: Wire, forger: str, resolver: str, to: str
) -> None:
    """It has the resolver's address, and everything that was asked."""
    pod, lab = wire.hosts["pod"], ProfileLab(wire.kernel)
    lab.govern(pod.slot, network(traffic(names=[NAME])), flags=0)
    wire.kernel.policy.set_resolver(ResolverKey(pod.cgroup.id, mapped(resolver)))
    question = message(NAME, flags=dns.QUERY)
    answer = message(NAME, (a_record(FORGED),))
    before = wire.kernel.counters()["learned_unsolicited"]
    got = in_pod(wire, _ASK + FORGERS[forger] + _GOT, question.hex(), answer.hex(), resolver, to)
    assert got == resolver
    keys = {key.workload_cgroup_id for key, _ in wire.kernel.policy.learned()}
    assert pod.cgroup.id not in keys
    assert wire.kernel.counters()["learned_unsolicited"] > before


def test_the_administrator_of_the_pods_network_makes_tunnels(wire: Wire, sniffer: Sniffer) -> None:
    # Not stopped: what a tunnel device sends has no socket. It takes CAP_NET_ADMIN in the pod's network.
    pod = wire.hosts["pod"]
    ProfileLab(wire.kernel).govern(pod.slot, network(traffic(f"{TUNNELLED}/32")), flags=0)
    tunnel = ("vxlan", "id", "7", "remote", UNDERLAY, "dstport", "9", "dev", "eth0")
    pod.ip("link", "add", "tunnel", "type", *tunnel)
    pod.ip("link", "set", "tunnel", "up")
    pod.ip("addr", "add", "198.51.100.1/24", "dev", "tunnel")
    pod.ip("neigh", "add", TUNNELLED, "lladdr", "02:00:00:00:00:77", "dev", "tunnel")
    in_pod(wire, _CONNECT, TUNNELLED)
    assert sniffer.line() == f"udp {UNDERLAY}"
