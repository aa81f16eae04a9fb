# SPDX-License-Identifier: Apache-2.0
"""Fields of a profile, each from the signed order to what a real process may do."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sensor.policy import layout
from sensor.publish.layout import CONNECT
from tests.support.host_lab import LISTED, Service, host_profile
from tests.support.kernel_watch import Actor, Watch
from tests.support.profile_lab import ANY_ADDRESS, UDP, network, traffic
from tests.support.profile_node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, THERE, ELSEWHERE = "127.0.0.1", "127.0.0.2", "192.0.2.1"
DATAGRAM, RAW = socket.SOCK_DGRAM, socket.SOCK_RAW
ICMP, ICMPV6 = socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6
UNIT = "some.service"
ALERTED = 2
PYTHON = Path(sys.executable).resolve()
TRYING = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.connect((sys.argv[1], 9))
    print("passed")
except PermissionError:
    print("EPERM")
"""


pytestmark = pytest.mark.usefixtures("slices")


@pytest.fixture
def service(watch: Watch) -> Service:
    return Service(watch, UNIT)


@pytest.fixture
def actor(service: Service) -> Iterator[Actor]:
    with Actor(service.cgroup) as started:
        yield started


def governed(watch: Watch, **fields: Any) -> None:
    status = Node(watch).profile(5, **host_profile(unit=UNIT) | fields)
    assert (status["outcome"], status["reason"]) == ("APPLIED", "")


def outcome(service: Service, program: Path, address: str) -> str:
    command = service.cgroup.command(str(program), "-S", "-c", TRYING, address)
    environment = {"PYTHONHOME": sys.base_prefix, "PATH": "/usr/bin:/bin"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return run.stdout.strip()


def copies_of_python(directory: Path, *names: str) -> list[Path]:
    """The same program under other paths."""
    return [Path(shutil.copy2(PYTHON, directory / name)) for name in names]


def rules_of(path: Path, mode: str | None, *cidrs: str) -> dict[str, Any]:
    return {"path": str(path), "script": "", "mode": mode, "network": network(traffic(*cidrs))}


def test_a_dry_run_refuses_nothing_and_tells_what_it_would_have(watch: Watch, actor: Actor) -> None:
    governed(watch, dry_run=True)
    assert actor.connect("a", ELSEWHERE, 9, kind=DATAGRAM) is None
    assert actor.connect("b", LISTED, 9, kind=DATAGRAM) is None
    told = watch.wait_for(CONNECT, tgid=actor.tgid, where=lambda seen: seen["verdict"] == ALERTED)
    assert (told.remote[0], told["reason"]) == (ELSEWHERE, layout.REASON_ADDRESS)
    governed(watch)
    assert actor.connect("c", ELSEWHERE, 9, kind=DATAGRAM) == "EPERM"


def test_a_program_s_action_is_its_own_both_ways(watch: Watch, service: Service, tmp_path: Path) -> None:
    spared, held = copies_of_python(tmp_path, "spared", "held")
    governed(watch, processes=[rules_of(spared, "ALERT", f"{LISTED}/32")])
    assert [outcome(service, each, ELSEWHERE) for each in (spared, held)] == ["passed", "EPERM"]
    governed(watch, mode="ALERT", processes=[rules_of(held, "ENFORCE", f"{LISTED}/32")])
    assert [outcome(service, each, ELSEWHERE) for each in (spared, held)] == ["passed", "EPERM"]
    assert outcome(service, held, LISTED) == "passed"
    governed(watch, processes=[rules_of(spared, "IGNORE"), rules_of(held, None, f"{ELSEWHERE}/32")])
    assert [outcome(service, each, LISTED) for each in (spared, held)] == ["passed", "EPERM"]


def test_a_range_of_ports_passes_from_its_first_to_its_last(watch: Watch, actor: Actor) -> None:
    governed(watch, default=network(traffic(*ANY_ADDRESS, ports=[(UDP, 8001, 8085), (UDP, 9, 9)])))
    tried = {8000: "EPERM", 8001: None, 8002: None, 8063: None, 8064: None, 8085: None, 8086: "EPERM"}
    for port, answer in tried.items():
        assert actor.connect("a", ELSEWHERE, port, kind=DATAGRAM) == answer, port
        actor.tell("close", "a")
    assert actor.connect("b", ELSEWHERE, 8002) == "EPERM", "the range is of another protocol"


def test_a_range_of_local_ports_may_be_bound(watch: Watch, actor: Actor) -> None:
    governed(watch, default=network(None, traffic(*ANY_ADDRESS, ports=[(UDP, 48001, 48010)])))
    for port, answer in {48000: "EPERM", 48001: None, 48010: None, 48011: "EPERM"}.items():
        actor.tell("socket", "s", socket.AF_INET, DATAGRAM)
        assert actor.tell("bind", "s", HERE, port) == answer, port
        actor.tell("close", "s")


@pytest.mark.parametrize("allowed", [False, True])
def test_raw_sockets_pass_only_by_a_word_of_their_own(watch: Watch, actor: Actor, allowed: bool) -> None:
    everything = traffic(*ANY_ADDRESS)
    governed(watch, default=network(everything, everything, raw_sockets=allowed))
    answer = None if allowed else "EPERM"
    assert actor.tell("socket", "r4", socket.AF_INET, RAW, ICMP) == answer
    assert actor.tell("socket", "r6", socket.AF_INET6, RAW, ICMPV6) == answer


def icmp(kind: int, code: int = 0) -> str:
    """A message of eight bytes with its checksum, as hexadecimal."""
    words = [kind << 8 | code, 1, 1]
    total = sum(words)
    words.insert(1, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return b"".join(word.to_bytes(2) for word in words).hex()


def test_icmp_passes_by_type_and_code(watch: Watch, actor: Actor) -> None:
    listed = [
        {"protocol": ICMP, "type": 8, "code": -1},
        {"protocol": ICMP, "type": 3, "code": 1},
        {"protocol": ICMPV6, "type": 128, "code": 0},
    ]
    rules = traffic(*ANY_ADDRESS, ports=[], icmp=listed)
    governed(watch, default=network(rules, raw_sockets=True))
    tried = [
        (THERE, socket.AF_INET, ICMP, 8, 0, 8),
        (THERE, socket.AF_INET, ICMP, 8, 7, 8),
        (THERE, socket.AF_INET, ICMP, 3, 1, 8),
        (THERE, socket.AF_INET, ICMP, 3, 2, "EPERM"),
        (THERE, socket.AF_INET, ICMP, 13, 0, "EPERM"),
        ("::1", socket.AF_INET6, ICMPV6, 128, 0, 8),
        ("::1", socket.AF_INET6, ICMPV6, 128, 1, "EPERM"),
        ("::1", socket.AF_INET6, ICMPV6, 135, 0, "EPERM"),
    ]
    for address, family, protocol, kind, code, answer in tried:
        actor.tell("socket", "raw", family, RAW, protocol)
        assert actor.tell("sendbytesto", "raw", icmp(kind, code), address, 0) == answer, (kind, code)
        actor.tell("close", "raw")


def test_an_echo_is_answered_to_who_may_ask(watch: Watch, actor: Actor) -> None:
    asking = traffic(f"{THERE}/32", ports=[], icmp=[{"protocol": ICMP, "type": 8, "code": -1}])
    governed(watch, default=network(asking, raw_sockets=True))
    actor.tell("socket", "raw", socket.AF_INET, RAW, ICMP)
    assert actor.tell("bind", "raw", HERE, 0) is None
    assert actor.tell("sendbytesto", "raw", icmp(8), THERE, 0) == 8
    answer, peer, _ = actor.tell("recvbytes", "raw")
    assert (bytes.fromhex(answer)[20], peer) == (0, THERE), "an answer, behind its IP header"


@pytest.mark.parametrize("protocol", [33, 132, 136], ids=["dccp", "sctp", "udplite"])
def test_other_protocols_with_ports_pass_by_port(watch: Watch, actor: Actor, protocol: int) -> None:
    governed(watch, default=network(traffic(*ANY_ADDRESS, ports=[(protocol, 7001, 7001)]), raw_sockets=True))
    actor.tell("socket", "raw", socket.AF_INET, RAW, protocol)
    for port, answer in ((7001, 12), (7002, "EPERM")):
        header = struct.pack(">HHQ", 40001, port, 0)
        assert actor.tell("sendbytesto", "raw", header.hex(), THERE, 0) == answer, port


def test_udplite_to_a_resolver_s_port_is_no_dns(watch: Watch, actor: Actor) -> None:
    governed(watch, default=network(traffic(*ANY_ADDRESS, ports=[(136, 53, 53)])))
    assert actor.tell("socket", "lite", socket.AF_INET, DATAGRAM, 136) is None
    assert actor.tell("sendbytesto", "lite", "00" * 12, THERE, 53) == 12
