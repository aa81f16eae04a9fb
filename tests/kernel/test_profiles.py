# SPDX-License-Identifier: Apache-2.0
"""Decisions by profile on real sockets: calls, binds, raw sockets, open flows, programs, new cgroups.

Addresses of the loopback stand for other hosts: the policies here say that it is governed too.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sensor.kernel.policy_state import BreakGlass
from sensor.policy import layout
from sensor.publish.layout import ACCEPT, BIND, CONNECT, PACKET_REFUSED, SENDMSG
from tests.support.kernel_lab import Cgroup
from tests.support.kernel_watch import Actor, Watch
from tests.support.profile_lab import ANY_ADDRESS, TCP, UDP, ProfileLab, network, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED, REFUSED, ALERTED = 0, 1, 2
RAW_SOCKET = 21
HERE, THERE, NOWHERE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
ANYTHING = network(traffic(*ANY_ADDRESS), traffic(*ANY_ADDRESS), raw_sockets=True)


@pytest.fixture(scope="module")
def lab(watch: Watch) -> ProfileLab:
    return ProfileLab(watch.kernel)


@pytest.fixture
def pod(watch: Watch) -> Iterator[Cgroup]:
    path = watch.cgroup.path / "pod"
    path.mkdir()
    yield Cgroup(path)
    Cgroup(path).remove()


@pytest.fixture
def slot(lab: ProfileLab, pod: Cgroup) -> int:
    return lab.slot_for(pod.id)


@pytest.fixture
def actor(pod: Cgroup) -> Iterator[Actor]:
    with Actor(pod) as started:
        yield started


def only(address: str) -> dict[str, object]:
    return network(traffic(f"{address}/32"), traffic(*ANY_ADDRESS))


def test_a_connect_passes_by_address_and_is_else_refused_at_once(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    other = peer.listen("other", THERE)
    lab.govern(slot, only(HERE), generation=7)
    assert actor.connect("a", HERE, port) is None
    assert actor.connect("b", THERE, other) == "EPERM"
    assert actor.connect("c", f"::ffff:{THERE}", other, family=socket.AF_INET6) == "EPERM"
    assert actor.connect("d", "::1", port) == "EPERM"
    assert actor.connect("e", THERE, 9, kind=socket.SOCK_DGRAM) == "EPERM"
    told = [seen for seen in watch.events(CONNECT, tgid=actor.tgid) if seen["verdict"] == REFUSED]
    assert [seen["reason"] for seen in told] == [layout.REASON_ADDRESS] * 4
    assert {seen["generation"] for seen in told} == {7}
    counted = lab.maps.policy_counters(slot)
    assert lab.maps.policy_totals().refused_calls >= counted.refused_calls > 0
    assert counted.refused_calls == 4
    assert counted.by_reason[layout.REASON_ADDRESS] == 4


def test_each_layer_must_let_a_flow_pass(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    everything = traffic(*ANY_ADDRESS)
    cases = [
        ({**everything, "l3": ["IPV4"]}, None, None),
        ({**everything, "l3": ["IPV6"]}, layout.REASON_L3_PROTOCOL, "EPERM"),
        (traffic(*ANY_ADDRESS, protocols=[UDP]), layout.REASON_L4_PROTOCOL, "EPERM"),
        (traffic(*ANY_ADDRESS, ports=[(TCP, port, port)]), None, None),
        (traffic(*ANY_ADDRESS, ports=[(TCP, port + 1, 65535)]), layout.REASON_L4_PROTOCOL, "EPERM"),
        (traffic(*ANY_ADDRESS, ports=[(UDP, port, port)]), layout.REASON_L4_PROTOCOL, "EPERM"),
        (traffic("127.0.0.0/24"), None, None),
        (traffic("127.0.1.0/24", "::/0"), layout.REASON_ADDRESS, "EPERM"),
        (traffic(), layout.REASON_ADDRESS, "EPERM"),
        (None, layout.REASON_ADDRESS, "EPERM"),
    ]
    for number, (rules, reason, answer) in enumerate(cases):
        lab.govern(slot, network(rules), generation=100 + number)
        assert actor.connect(f"case-{number}", HERE, port) == answer, rules
        if reason:
            told = [seen for seen in watch.events(CONNECT) if seen["generation"] == 100 + number]
            assert [seen["reason"] for seen in told] == [reason], rules


def test_what_only_alerts_passes_and_is_told(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    lab.govern(slot, only(THERE), mode=layout.MODE_ALERT, generation=9)
    assert actor.connect("a", HERE, port) is None
    assert actor.tell("send", "a", "hello") == 5
    told = watch.wait_for(CONNECT, tgid=actor.tgid, where=lambda seen: seen["verdict"] == ALERTED)
    assert (told["reason"], told["generation"]) == (layout.REASON_ADDRESS, 9)
    assert lab.maps.policy_counters(slot).alerted == 1
    assert not [seen for seen in watch.events(PACKET_REFUSED) if seen["generation"] == 9]


def test_a_union_passes_what_one_of_its_profiles_passes(
    lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    elsewhere = peer.listen("elsewhere", THERE)
    first = lab.ruleset(network(traffic(f"{HERE}/32", ports=[(TCP, port, port)])))
    second = lab.ruleset(network(traffic(f"{THERE}/32", ports=[(TCP, elsewhere, elsewhere)])))
    lab.switch(slot, lab.policy([first, second]))
    assert actor.connect("a", HERE, port) is None
    assert actor.connect("b", THERE, elsewhere) is None
    # The address of one and the port of the other make no rule.
    assert actor.connect("c", THERE, port) == "EPERM"
    assert actor.connect("d", HERE, elsewhere) == "EPERM"


def test_eight_profiles_of_one_workload_are_all_asked(
    lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server", "127.0.0.8")
    rulesets = [lab.ruleset(only(f"127.0.0.{number}")) for number in range(1, 9)]
    lab.switch(slot, lab.policy(rulesets))
    assert actor.connect("a", "127.0.0.8", port) is None
    assert actor.connect("b", "127.0.0.9", port) == "EPERM"


def test_an_update_cuts_open_flows_it_no_longer_allows_and_no_others(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    for name, address in (("kept", HERE), ("cut", THERE)):
        port = peer.listen(f"{name}-server", address)
        assert actor.connect(name, address, port) is None
        assert peer.tell("accept", f"{name}-server", name) is None
    lab.govern(slot, ANYTHING)
    for name in ("kept", "cut"):
        assert actor.tell("send", name, "one") == 3
        assert peer.tell("recv", name) == "one"
    lab.govern(slot, only(HERE), generation=55)
    assert actor.tell("send", "kept", "two") == 3
    assert peer.tell("recv", "kept") == "two"
    actor.tell("send", "cut", "two")
    assert peer.tell("recv", "cut") == "ETIMEDOUT"
    assert peer.tell("send", "cut", "back") == 4
    assert actor.tell("recv", "cut") == "ETIMEDOUT"
    told = watch.wait_for(PACKET_REFUSED, tgid=actor.tgid, where=lambda seen: seen["generation"] == 55)
    assert told.remote[0] == THERE
    lab.govern(slot, ANYTHING)
    assert peer.tell("recv", "cut") == "two"  # TCP sends it again


def test_a_server_is_reached_by_whom_its_ingress_rules_let_in(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = actor.listen("server", "0.0.0.0")
    hidden = actor.listen("hidden", "0.0.0.0")
    lab.govern(slot, network(None, traffic(f"{THERE}/32", ports=[(TCP, port, port)])), generation=66)
    assert peer.tell("socket", "friend", socket.AF_INET, socket.SOCK_STREAM) is None
    assert peer.tell("bind", "friend", THERE, 0) is None
    assert peer.tell("connect", "friend", HERE, port) is None
    assert actor.tell("accept", "server", "friend") is None
    assert peer.tell("send", "friend", "in") == 2
    assert actor.tell("recv", "friend") == "in"
    assert actor.tell("send", "friend", "out") == 3  # an answer, though nothing may go out
    assert peer.tell("recv", "friend") == "out"
    assert peer.connect("stranger", HERE, port) == "ETIMEDOUT"
    assert peer.tell("socket", "lost", socket.AF_INET, socket.SOCK_STREAM) is None
    assert peer.tell("bind", "lost", THERE, 0) is None
    assert peer.tell("connect", "lost", HERE, hidden) == "ETIMEDOUT"
    refused = [seen for seen in watch.events(PACKET_REFUSED) if seen["generation"] == 66]
    assert {seen["reason"] for seen in refused} == {layout.REASON_ADDRESS, layout.REASON_L4_PROTOCOL}
    assert not [seen for seen in watch.events(ACCEPT) if seen.local[1] == hidden]


def test_datagrams_are_answered_both_ways_and_strangers_are_not_heard(
    lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    for who, name, address in ((actor, "a", HERE), (peer, "good", HERE), (peer, "bad", THERE)):
        who.tell("socket", name, socket.AF_INET, socket.SOCK_DGRAM)
        assert who.tell("bind", name, address, 0) is None
    mine, good, bad = actor.tell("port", "a"), peer.tell("port", "good"), peer.tell("port", "bad")
    lab.govern(slot, network(traffic(f"{HERE}/32", ports=[(UDP, good, good)])))
    # Nobody was asked yet.
    peer.tell("sendto", "good", "early", HERE, mine)
    assert actor.tell("recv", "a") == "ETIMEDOUT"
    assert actor.tell("sendto", "a", "ask", HERE, good) == 3
    assert peer.tell("recv", "good") == "ask"
    assert peer.tell("sendto", "good", "answer", HERE, mine) == 6
    assert actor.tell("recv", "a") == "answer"
    peer.tell("sendto", "bad", "noise", HERE, mine)
    assert actor.tell("recv", "a") == "ETIMEDOUT"
    assert actor.tell("sendto", "a", "ask", THERE, bad) == "EPERM"


def test_a_datagram_server_answers_whom_it_may_hear(
    lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    actor.tell("socket", "server", socket.AF_INET, socket.SOCK_DGRAM)
    assert actor.tell("bind", "server", HERE, 0) is None
    port = actor.tell("port", "server")
    peer.tell("socket", "client", socket.AF_INET, socket.SOCK_DGRAM)
    assert peer.tell("bind", "client", THERE, 0) is None
    client = peer.tell("port", "client")
    lab.govern(slot, network(None, traffic(f"{THERE}/32", ports=[(UDP, port, port)])))
    assert peer.tell("sendto", "client", "ask", HERE, port) == 3
    assert actor.tell("recv", "server") == "ask"
    assert actor.tell("sendto", "server", "answer", THERE, client) == 6
    assert peer.tell("recv", "client") == "answer"
    assert actor.tell("sendto", "server", "more", NOWHERE, client) == "EPERM"


def test_a_bind_needs_an_ingress_rule_for_its_port(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor
) -> None:
    actor.tell("socket", "probe", socket.AF_INET, socket.SOCK_STREAM)
    assert actor.tell("bind", "probe", HERE, 0) is None
    port = actor.tell("port", "probe")
    actor.tell("close", "probe")
    lab.govern(slot, network(None, traffic(*ANY_ADDRESS, ports=[(TCP, port, port)])), generation=77)
    for kind, at, answer in (
        (socket.SOCK_STREAM, port, None),
        (socket.SOCK_DGRAM, port, "EPERM"),
        (socket.SOCK_STREAM, port + 1, "EPERM"),
        (socket.SOCK_DGRAM, 0, None),
    ):
        actor.tell("socket", "s", socket.AF_INET, kind)
        assert actor.tell("bind", "s", HERE, at) == answer
        actor.tell("close", "s")
    told = [seen for seen in watch.events(BIND) if seen["generation"] == 77]
    assert [seen["reason"] for seen in told] == [layout.REASON_L4_PROTOCOL] * 2


def test_raw_sockets_need_a_word_of_their_own(watch: Watch, lab: ProfileLab, slot: int, actor: Actor) -> None:
    lab.govern(slot, network(traffic(*ANY_ADDRESS), traffic(*ANY_ADDRESS)), generation=88)
    assert actor.tell("socket", "raw", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) == "EPERM"
    assert actor.tell("socket", "raw6", socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) == "EPERM"
    told = [seen for seen in watch.events(RAW_SOCKET, tgid=actor.tgid) if seen["generation"] == 88]
    assert [seen["reason"] for seen in told] == [layout.REASON_RAW_SOCKET] * 2
    lab.govern(slot, network(traffic(f"{HERE}/32"), traffic(*ANY_ADDRESS), raw_sockets=True))
    assert actor.tell("socket", "raw", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) is None
    # What a raw socket sends is decided packet by packet.
    echo = "\x08\x00\x76\x7f\x00\x01\x00\x01"
    assert actor.tell("sendto", "raw", echo, HERE, 0) is not None
    assert actor.tell("sendto", "raw", echo, THERE, 0) == "EPERM"


PYTHON = str(Path(sys.executable).resolve())


def copy_of_python(directory: Path, name: str) -> str:
    """Another path of the same program."""
    path = directory / name
    shutil.copy(PYTHON, path)
    return str(path)


CONNECTING = (
    "import socket,sys\n"
    "s=socket.socket(); s.settimeout(2)\n"
    "try: s.connect((sys.argv[1],int(sys.argv[2]))); print('connected')\n"
    "except PermissionError: print('EPERM')\n"
)


def outcome(pod: Cgroup, *command: str, cwd: Path | None = None) -> str:
    run = subprocess.run(pod.command(*command), capture_output=True, text=True, check=True, cwd=cwd)
    return run.stdout.strip()


def test_a_program_has_its_own_rules_by_the_path_it_really_has(
    lab: ProfileLab, slot: int, pod: Cgroup, peer: Actor, tmp_path: Path
) -> None:
    port = str(peer.listen("server"))
    tool = copy_of_python(tmp_path, "tool")
    program = lab.program(tool)
    rulesets = lab.ruleset(only(HERE)), lab.ruleset(only(THERE))
    lab.switch(slot, lab.policy([rulesets[1]], programs={(program, 0): [rulesets[0]]}))
    assert outcome(pod, tool, "-c", CONNECTING, HERE, port) == "connected"
    assert outcome(pod, PYTHON, "-c", CONNECTING, HERE, port) == "EPERM"
    (tmp_path / "link").symlink_to(tool)
    os.link(tool, tmp_path / "hard")
    (tmp_path / "below").mkdir()
    assert outcome(pod, str(tmp_path / "link"), "-c", CONNECTING, HERE, port) == "connected"
    assert outcome(pod, "../tool", "-c", CONNECTING, HERE, port, cwd=tmp_path / "below") == "connected"
    assert outcome(pod, str(tmp_path / "hard"), "-c", CONNECTING, HERE, port) == "EPERM"


def test_a_running_process_gets_its_program_when_a_profile_names_it(
    lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    assert actor.connect("open", HERE, port) is None
    assert peer.tell("accept", "server", "open") is None
    program = lab.program(PYTHON)
    rulesets = lab.ruleset(only(HERE)), lab.ruleset(only(THERE))
    lab.switch(slot, lab.policy([rulesets[1]], programs={(program, 0): [rulesets[0]]}))
    assert actor.connect("a", HERE, port) is None
    assert actor.connect("b", THERE, port) == "EPERM"
    assert actor.tell("send", "open", "still") == 5
    assert peer.tell("recv", "open") == "still"


def test_a_script_has_rules_beside_those_of_its_interpreter(
    lab: ProfileLab, slot: int, pod: Cgroup, peer: Actor, tmp_path: Path
) -> None:
    port = str(peer.listen("server"))
    script = tmp_path / "script"
    script.write_text(f"#!{PYTHON}\n{CONNECTING}")
    script.chmod(0o755)
    program, named = lab.program(PYTHON), lab.script(str(script))
    rulesets = lab.ruleset(only(HERE)), lab.ruleset(only(THERE))
    policy = lab.policy([], programs={(program, named): [rulesets[0]], (program, 0): [rulesets[1]]})
    lab.switch(slot, policy)
    assert outcome(pod, str(script), HERE, port) == "connected"
    assert outcome(pod, PYTHON, str(script), HERE, port) == "EPERM"
    assert outcome(pod, "./script", HERE, port, cwd=tmp_path) == "EPERM"


def test_a_cgroup_that_is_expected_has_its_slot_before_its_first_process(
    watch: Watch, lab: ProfileLab, peer: Actor
) -> None:
    port = str(peer.listen("server"))
    waiting = watch.cgroup.path / f"expected-{os.getpid()}"
    lab.govern(300, only(THERE))
    lab.maps.set_expected_workload(waiting.name, 300)
    waiting.mkdir()
    inner = waiting / "container"
    inner.mkdir()
    try:
        assert outcome(Cgroup(inner), PYTHON, "-c", CONNECTING, HERE, port) == "EPERM"
        assert watch.kernel.state.policy_slot_of(waiting.stat().st_ino) == 300
        assert dict(watch.kernel.state.workloads())[inner.stat().st_ino] == waiting.stat().st_ino
        # A name inside a workload proves nothing.
        lab.maps.set_expected_workload("inner-pod", 301)
        (inner / "inner-pod").mkdir()
        assert watch.kernel.state.policy_slot_of((inner / "inner-pod").stat().st_ino) == 300
    finally:
        lab.maps.drop_expected_workload(waiting.name)
        lab.maps.drop_expected_workload("inner-pod")
        Cgroup(waiting).remove()


def test_nobody_slips_out_of_a_cgroup_that_is_not_known_yet(
    watch: Watch, lab: ProfileLab, peer: Actor
) -> None:
    port = str(peer.listen("server"))
    guarded = watch.cgroup.path / "guarded"
    guarded.mkdir()
    watch.kernel.state.set_workload(guarded.stat().st_ino, 0, layout.SLOT_UNKNOWN)
    flags = layout.POLICY_LOOPBACK | layout.POLICY_UNKNOWN_WORKLOAD
    lab.switch(layout.SLOT_UNKNOWN, lab.policy([], flags=flags, generation=99))
    try:
        for number in range(20):
            new = guarded / f"pod-{number}"
            new.mkdir()
            assert outcome(Cgroup(new), "bash", "-c", f"(: > /dev/tcp/{HERE}/{port}) 2>&1 || true")
        told = [seen for seen in watch.events(CONNECT) if seen["generation"] == 99]
        assert {(seen["verdict"], seen["reason"]) for seen in told} == {
            (REFUSED, layout.REASON_UNKNOWN_WORKLOAD)
        }
        assert lab.maps.policy_counters(layout.SLOT_UNKNOWN).refused_calls == 20
        # Once it is known, also what was opened before is decided by its own policy.
        known = guarded / "pod-0"
        slot = lab.slot_for(known.stat().st_ino)
        lab.govern(slot, only(HERE))
        assert outcome(Cgroup(known), PYTHON, "-c", CONNECTING, HERE, port) == "connected"
    finally:
        lab.maps.set_policy_slot(layout.SLOT_UNKNOWN, 0)
        Cgroup(guarded).remove()


def test_no_profile_cuts_the_exempt_or_the_break_glass(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    lab.govern(slot, network(None))
    glass = BreakGlass(TCP, 0, port, bytes(10) + b"\xff\xff" + socket.inet_aton("127.0.0.0"), 96 + 8)
    lab.maps.set_break_glass(glass)
    assert actor.connect("a", HERE, port) is None
    assert actor.connect("b", HERE, port + 1) == "EPERM"
    lab.maps.drop_break_glass(glass)
    assert actor.connect("c", HERE, port) == "EPERM"
    key = watch.key(actor.tgid)
    lab.maps.set_exempt(key.tgid, key.start_ns)
    assert actor.connect("d", HERE, port) is None
    lab.maps.drop_exempt(key.tgid)


def test_a_flood_of_refusals_is_counted_and_told_in_part(
    watch: Watch, lab: ProfileLab, slot: int, actor: Actor
) -> None:
    lab.govern(slot, network(None), generation=111)
    for number in range(600):
        actor.tell("socket", "s", socket.AF_INET, socket.SOCK_DGRAM)
        assert actor.tell("connect", "s", f"127.1.{number // 250}.{number % 250 + 1}", 9) == "EPERM"
        actor.tell("close", "s")
    told = [seen for seen in watch.events(CONNECT, SENDMSG) if seen["generation"] == 111]
    assert lab.maps.policy_counters(slot).refused_calls == 600
    assert 256 <= len(told) < 600
    assert watch.kernel.counters()["policy_reports_spared"] == 600 - len(told)


def test_the_loopback_is_free_unless_the_policy_says_otherwise(
    lab: ProfileLab, slot: int, actor: Actor, peer: Actor
) -> None:
    port = peer.listen("server")
    lab.govern(slot, network(None), flags=0)
    assert actor.connect("a", HERE, port) is None
    assert actor.connect("b", "192.0.2.1", 9, kind=socket.SOCK_DGRAM) == "EPERM"
